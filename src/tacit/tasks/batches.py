"""Which samples a worker draws at each step: a pure function of (seed, worker, draw)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tacit.errors import UserError, unknown
from tacit.rng import numpy_stream

Order = Literal["shuffle", "resample"]

BLOCK = 64  # draws made together under "resample": spreads the cost of opening a random stream


class Batches:
    """The batches of one worker, numbered 0, 1, 2, ... without end; every batch is full.

    indices:    the worker's samples, shape (n,), n >= 1.
    order:      "shuffle": an endless chain of reshuffled passes, cut into consecutive batches. A
                batch may straddle two passes, and may then hold a sample twice. Every sample is
                drawn once in each pass.
                "resample": every batch is drawn afresh from all n samples, distinct within the
                batch (the published FDA code: reshuffle, take the first 32). With n < batch_size
                a batch is ceil(batch_size / n) shuffled passes cut to size, so no sample occurs
                more than once more often than another.

    There is no state to save: only caches, which make draws in increasing order cheap.
    """

    def __init__(
        self,
        indices: np.ndarray,
        batch_size: int,
        seed: int,
        worker: int,
        order: Order = "shuffle",
    ) -> None:
        if len(indices) == 0:
            raise UserError(f"worker {worker} has no samples; use fewer workers or another split")
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}; it must be at least 1")
        if order not in ("shuffle", "resample"):
            raise unknown("batch order", order, ("shuffle", "resample"))
        self.indices = np.array(indices, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.worker = worker
        self.order = order
        self._cache: dict[int, np.ndarray] = {}

    @property
    def samples_per_pass(self) -> int:
        """n, the size of the worker's shard."""
        return len(self.indices)

    @property
    def steps_per_epoch(self) -> float:
        """Batches in one pass over the shard; rarely whole."""
        return self.samples_per_pass / self.batch_size

    def at(self, draw: int) -> np.ndarray:
        """The sample numbers of batch ``draw`` >= 0, shape (batch_size,), int64, read-only."""
        if draw < 0:
            raise UserError(f"draw {draw} is negative; batches are numbered from 0")
        return self._slice_of_chain(draw) if self.order == "shuffle" else self._resampled(draw)

    def _slice_of_chain(self, draw: int) -> np.ndarray:
        number, start = divmod(draw * self.batch_size, self.samples_per_pass)
        batch = self._pass(number)[start : start + self.batch_size]
        while len(batch) < self.batch_size:
            number += 1
            following = self._pass(number)[: self.batch_size - len(batch)]
            batch = np.concatenate([batch, following])
        batch.flags.writeable = False
        return batch

    def _pass(self, number: int) -> np.ndarray:
        shuffled = self._cache.get(number)
        if shuffled is None:
            rng = numpy_stream(self.seed, "pass", self.worker, number)
            shuffled = self._remember(number, rng.permutation(self.indices))
        return shuffled

    def _resampled(self, draw: int) -> np.ndarray:
        number, row = divmod(draw, BLOCK)
        block = self._cache.get(number)
        if block is None:
            rng = numpy_stream(self.seed, "resample", self.worker, number)
            rows = distinct_rows(rng, BLOCK, self.batch_size, self.samples_per_pass)
            block = self._remember(number, self.indices[rows])
        batch: np.ndarray = block[row]
        return batch

    def _remember(self, number: int, value: np.ndarray) -> np.ndarray:
        """Keep ``value``, and what was kept just before it, so that memory stays at two passes."""
        value.flags.writeable = False
        while len(self._cache) > 1:
            del self._cache[next(iter(self._cache))]
        self._cache[number] = value
        return value


def distinct_rows(rng: np.random.Generator, count: int, size: int, n: int) -> np.ndarray:
    """``count`` independent rows, each ``size`` of the numbers 0 to n - 1, shape (count, size).

    Within a row the numbers are distinct, in random order, all ordered choices equally likely;
    with n < size, no number occurs more than once more often than another.
    """
    if n < size * size // 2:
        # A random row would nearly always repeat a number: cut whole permutations.
        passes = -(-size // n)
        ordered = np.broadcast_to(np.arange(n), (count * passes, n))
        return rng.permuted(ordered, axis=1).reshape(count, passes * n)[:, :size]
    rows = rng.integers(n, size=(count, size))
    # Redrawing whole rows until they are distinct keeps every ordered choice equally likely.
    again = _rows_with_repeats(rows)
    while len(again):
        rows[again] = rng.integers(n, size=(len(again), size))
        again = again[_rows_with_repeats(rows[again])]
    return rows


def _rows_with_repeats(rows: np.ndarray) -> np.ndarray:
    ordered = np.sort(rows, axis=1)
    return np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
