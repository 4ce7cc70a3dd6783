"""Where the hosted workers' batches come from: shards of a data set, or a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tacit.tasks.batches import Batches
from tacit.tasks.data import Data
from tacit.tasks.streams import Stream


class Feed(Protocol):
    """The hosted workers' batches. ``even``: all of them have the same size."""

    even: bool

    def take(self, rows: Sequence[int], draws: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Batch number ``draws[i]`` of the worker in row ``rows[i]``, for all i, one after the
        other: inputs ``(n, ...)`` and targets ``(n, ...)``."""
        ...


class ShardFeed:
    """Every worker has its part of a data set."""

    even = True

    def __init__(self, data: Data, shards: Sequence[Batches]) -> None:
        self.data = data
        self.shards = shards

    def take(self, rows: Sequence[int], draws: Sequence[int]) -> tuple[Tensor, Tensor]:
        drawn = [self.shards[row].at(draw) for row, draw in zip(rows, draws, strict=True)]
        return self.data.batch(drawn[0] if len(drawn) == 1 else np.concatenate(drawn))


class StreamFeed:
    """Every worker has its own stream of fresh samples."""

    def __init__(self, stream: Stream, workers: range) -> None:
        self.stream = stream
        self.workers = workers
        self.even = len({stream.sizes[worker] for worker in workers}) == 1

    def take(self, rows: Sequence[int], draws: Sequence[int]) -> tuple[Tensor, Tensor]:
        workers = [self.workers[row] for row in rows]
        if len(set(draws)) == 1:
            return self.stream.batches(workers, draws[0])
        pairs = [self.stream.batch(worker, t) for worker, t in zip(workers, draws, strict=True)]
        return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
