"""What travels instead of a vector: fewer entries, fewer bits, or fewer ranks."""

from __future__ import annotations

from tacit.compressors.arrived import Arrived
from tacit.compressors.base import Compressor, Quantiser
from tacit.compressors.coded import Coded, Identity, Sign, Uniform
from tacit.compressors.lowrank import LowRank
from tacit.compressors.natural import Natural
from tacit.compressors.per_tensor import PerTensor
from tacit.compressors.qsgd import QSGD
from tacit.compressors.randomk import RandomK
from tacit.compressors.registry import COMPRESSORS, as_compressor, compressor
from tacit.compressors.sparse import Sparsifier, chain
from tacit.compressors.topk import BlockTopK, SampledTopK, Threshold, TopK

__all__ = [
    "COMPRESSORS",
    "QSGD",
    "Arrived",
    "BlockTopK",
    "Coded",
    "Compressor",
    "Identity",
    "LowRank",
    "Natural",
    "PerTensor",
    "Quantiser",
    "RandomK",
    "SampledTopK",
    "Sign",
    "Sparsifier",
    "Threshold",
    "TopK",
    "Uniform",
    "as_compressor",
    "chain",
    "compressor",
]
