"""Streams without end whose samples are made of random bits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from tacit.rng import Name
from tacit.tasks.data import TensorData
from tacit.tasks.streams.base import Stream, check
from tacit.tasks.streams.bits import Numbers, numbers
from tacit.tasks.streams.drift import Drifts, When
from tacit.tasks.streams.options import batch_sizes

BLOCK = 16  # rounds that share a random stream: spreads the cost of opening it
TEST_SIZE = 2000

#: Which concept: (number,), or with drifts of each worker's own (worker, number).
Key = tuple[int, ...]


class Concept(Protocol):
    """A distribution of samples."""

    def sample(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, ...) float32 and targets (n,) int64, a row from each row of ``bits``
        (n, width) uint16. A row must not depend on the others."""
        ...


C = TypeVar("C", bound=Concept)


class Generated(Stream, Generic[C]):
    """Worker k's samples at round t are made of bits drawn for (seed, k, t), by the concept of
    that round. So protocols, layouts and drift schedules of one seed share their bits.

    draw:  the concept of a key.
    width: numbers of 16 bits that a sample takes.
    local: every worker has drifts and concepts of its own; they share concept 0. There is then no
           common drift, and the test data has the same share of every worker's concept.
    """

    rounds = None

    def __init__(
        self,
        draw: Callable[[Key], C],
        width: int,
        when: When,
        local: bool,
        rates: tuple[int, ...],
        workers: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.sizes = batch_sizes(workers, batch_size, rates)
        self._seed, self._width, self._local = seed, width, local
        names = range(workers) if local else [None]
        self._drifts = [Drifts(when, seed, *([] if k is None else [k])) for k in names]
        #: Of some workers: the block of rounds last asked for, and its numbers.
        self._opened: dict[tuple[int, ...], tuple[int, Numbers]] = {}
        #: As many as one round needs, and a few more.
        self._concept = functools.lru_cache(maxsize=workers + 4 if local else 4)(draw)
        self._test = functools.lru_cache(maxsize=4)(self._make_test)

    def batch(self, worker: int, round: int) -> tuple[Tensor, Tensor]:
        return self.batches([worker], round)

    def batches(self, workers: Sequence[int], round: int) -> tuple[Tensor, Tensor]:
        check(self, workers, round)
        bits = self._bits(tuple(workers), round)
        if not self._local:
            return self._samples([bits], [self._key(0, round)])
        ends = np.cumsum([self.sizes[worker] for worker in workers])
        keys = [self._key(worker, round) for worker in workers]
        return self._samples(np.split(bits, ends[:-1]), keys)

    def drifts(self, start: int, stop: int) -> list[int]:
        return [] if self._local else self._drifts[0].between(start, stop)

    def test(self, round: int) -> TensorData:
        count = len(self.sizes) if self._local else 1
        return self._test(tuple(self._key(worker, round) for worker in range(count)))

    def concept(self, worker: int, round: int) -> C:
        """What this worker's samples of this round are drawn from."""
        return self._concept(self._key(worker, round))

    def _key(self, worker: int, round: int) -> Key:
        number = self._drifts[worker if self._local else 0].concept(round)
        return (worker, number) if self._local and number > 0 else (number,)

    def _bits(self, workers: tuple[int, ...], round: int) -> np.ndarray:
        """(samples of all these workers in this round, width); to be used before the next call."""
        block, row = divmod(round, BLOCK)
        opened = self._opened.get(workers)
        if opened is None or opened[0] != block:
            names: list[tuple[Name, ...]] = [("stream", "bits", w, block) for w in workers]
            counts = [self.sizes[worker] * self._width for worker in workers]
            opened = self._opened[workers] = block, numbers(self._seed, names, counts, BLOCK)
        return opened[1].read(row).reshape(-1, self._width)

    def _samples(self, parts: Sequence[np.ndarray], keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        if len(set(keys)) == 1:
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            inputs, targets = self._concept(keys[0]).sample(whole)
        else:
            made = [self._concept(k).sample(part) for k, part in zip(keys, parts, strict=True)]
            inputs = np.concatenate([pair[0] for pair in made])
            targets = np.concatenate([pair[1] for pair in made])
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def _make_test(self, keys: tuple[Key, ...]) -> TensorData:
        # The same bits for every concept: tests of different rounds differ by their concept alone.
        drawn = numbers(self._seed, [("stream", "test")], [TEST_SIZE * self._width], 1).read(0)
        parts = np.array_split(drawn.reshape(TEST_SIZE, self._width), len(keys))
        return TensorData(*self._samples(parts, keys))
