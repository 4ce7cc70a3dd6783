"""One exchange of compressed vectors: what is to travel, and how it is combined."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tacit.aggregators import Aggregator
from tacit.compressors import Compressor
from tacit.fleet import Kind


@dataclass(frozen=True)
class Exchange:
    """``outgoing``: by row, what the hosted workers that take part would like to send.
    ``weights``: ``(K,)``, with sum 1 if all take part; 0 for those that do not. ``standing``: the
    same with nobody left out. ``trained``: the share of the workers that train, present or not.
    ``compressor``: of the messages."""

    kind: Kind
    step: int
    outgoing: dict[int, Tensor]
    weights: Tensor
    standing: Tensor
    trained: float
    aggregator: Aggregator
    compressor: Compressor
