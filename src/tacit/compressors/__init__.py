"""What travels instead of a vector: fewer entries, fewer bits, or fewer ranks."""

from __future__ import annotations

from tacit.compressors.base import Compressor, Quantiser
from tacit.compressors.coded import Coded, Identity, Sign, Uniform
from tacit.compressors.lowrank import LowRank
from tacit.compressors.natural import Natural
from tacit.compressors.qsgd import QSGD
from tacit.compressors.randomk import RandomK
from tacit.compressors.registry import COMPRESSORS, compressor
from tacit.compressors.sparse import Sparsifier, chain
from tacit.compressors.topk import BlockTopK, SampledTopK, Threshold, TopK

__all__ = [
    "COMPRESSORS",
    "QSGD",
    "BlockTopK",
    "Coded",
    "Compressor",
    "Identity",
    "LowRank",
    "Natural",
    "Quantiser",
    "RandomK",
    "SampledTopK",
    "Sign",
    "Sparsifier",
    "Threshold",
    "TopK",
    "Uniform",
    "chain",
    "compressor",
]
