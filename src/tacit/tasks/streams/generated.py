"""Streams without end whose samples are made of random bits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from tacit.rng import Name, numpy_stream
from tacit.tasks.data import TensorData
from tacit.tasks.streams.base import Stream, check
from tacit.tasks.streams.drift import Drifts, When
from tacit.tasks.streams.options import batch_sizes

BLOCK = 16  # rounds whose bits are drawn together: spreads the cost of opening a random stream
TEST_SIZE = 2000

#: Which concept: (number,), or with drifts of each worker's own (worker, number).
Key = tuple[int, ...]
#: 16 random bits, in the same order on every machine.
BITS = np.dtype("<u2")
SCALE = 1 << 16


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
        self._blocks: dict[tuple[int, ...], tuple[int, np.ndarray]] = {}
        #: As many as one round needs, and a few more.
        self._concept = functools.lru_cache(maxsize=workers + 4 if local else 4)(draw)
        self._test = functools.lru_cache(maxsize=4)(self._make_test)

    def batch(self, worker: int, round: int) -> tuple[Tensor, Tensor]:
        return self.batches([worker], round)

    def batches(self, workers: Sequence[int], round: int) -> tuple[Tensor, Tensor]:
        check(self, workers, round)
        number, row = divmod(round, BLOCK)
        bits = self._block(tuple(workers), number)[row]
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

    def _block(self, workers: tuple[int, ...], number: int) -> np.ndarray:
        """The bits of a block of rounds, (BLOCK, samples of all these workers, width)."""
        kept = self._blocks.get(workers)
        if kept is None or kept[0] != number:
            if len(workers) == 1:
                rows = BLOCK * self.sizes[workers[0]]
                bits = self._bits(rows, "bits", workers[0], number)
                bits = bits.reshape(BLOCK, -1, self._width)
            else:
                alone = [self._block((worker,), number) for worker in workers]
                # into the last block's memory: fresh pages cost more than the copy
                bits = np.concatenate(alone, axis=1, out=None if kept is None else kept[1])
            kept = self._blocks[workers] = number, bits
        return kept[1]

    def _bits(self, rows: int, *name: Name) -> np.ndarray:
        rng = numpy_stream(self._seed, "stream", *name)
        count = rows * self._width
        # the generator's own words, half the price of rng.bytes
        words = rng.bit_generator.random_raw(-(-count // 4)).astype("<u8", copy=False)
        return words.view(BITS)[:count].reshape(rows, self._width)

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
        bits = self._bits(TEST_SIZE, "test")
        return TensorData(*self._samples(np.array_split(bits, len(keys)), keys))


def cuts(probabilities: np.ndarray) -> np.ndarray:
    """Numbers c, uint16, such that 16 random bits are below c with these probabilities, which are
    rounded to multiples of 2^-16 below 1: two bytes then decide a draw exactly."""
    numbers: np.ndarray = np.minimum(np.rint(probabilities * SCALE), SCALE - 1).astype(np.uint16)
    return numbers
