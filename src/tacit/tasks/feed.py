"""Where the hosted workers' batches come from: shards of a data set, or a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.tasks.augment import Augment
from tacit.tasks.batches import Batches, Order
from tacit.tasks.data import Data
from tacit.tasks.partition import partition as split
from tacit.tasks.streams import Stream
from tacit.tasks.task import Task


class Feed(Protocol):
    """The hosted workers' batches. ``even``: all of them have the same size."""

    even: bool

    def take(self, rows: Sequence[int], draws: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Batch number ``draws[i]`` of the worker in row ``rows[i]``, for all i, one after the
        other: inputs ``(n, ...)`` and targets ``(n, ...)``."""
        ...


class ShardFeed:
    """Every worker has its part of a data set.

    ``augment``: see ``Task``; the random numbers of worker k for batch t are the stream
    ("augment", k, t), so its batch is the same beside any other workers, and after resuming.
    """

    even = True

    def __init__(
        self, data: Data, shards: Sequence[Batches], augment: Augment | None = None
    ) -> None:
        self.data = data
        self.shards = shards
        self.augment = augment

    def take(self, rows: Sequence[int], draws: Sequence[int]) -> tuple[Tensor, Tensor]:
        drawn = [self.shards[row].at(draw) for row, draw in zip(rows, draws, strict=True)]
        inputs, targets = self.data.batch(drawn[0] if len(drawn) == 1 else np.concatenate(drawn))
        if self.augment is None:
            return inputs, targets
        parts = torch.split(inputs, [len(indices) for indices in drawn])
        changed = []
        for row, draw, part in zip(rows, draws, parts, strict=True):
            shard = self.shards[row]
            rng = numpy_stream(shard.seed, "augment", shard.worker, draw)
            changed.append(self.augment(part, rng))
        return changed[0] if len(changed) == 1 else torch.cat(changed), targets


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


def feed_of(
    task: Task,
    stream: Stream | None,
    partition: str,
    workers: int,
    hosted: range,
    size: int,
    seed: int,
    order: Order,
) -> tuple[Feed, list[int]]:
    """The hosted workers' batches, of ``size`` samples where the task is no stream, and how many
    samples each of all ``workers`` has (of a stream: gets in a round)."""
    if stream is not None:
        if partition != "iid":
            raise UserError(
                f"{task.name} is a stream, which is not partitioned; leave out {partition!r}"
            )
        if task.augment is not None:
            raise UserError(f"{task.name} is a stream, which is not augmented; leave out augment")
        return StreamFeed(stream, hosted), stream.sizes
    shards = split(partition, task.train, workers, seed)
    batches = [Batches(shards[k], size, seed, k, order) for k in hosted]
    return ShardFeed(task.train, batches, task.augment), [len(shard) for shard in shards]
