"""What a stream is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.tasks.data import Data


class Stream(Protocol):
    """Fresh samples for every worker and round: a pure function of (seed, worker, round).

    sizes:  samples of each worker in a round, K numbers.
    rounds: how many rounds there are, numbered from 0; None: no end.

    There is no state to save: only caches, which make rounds in increasing order cheap.
    """

    sizes: list[int]
    rounds: int | None

    def batch(self, worker: int, round: int) -> tuple[Tensor, Tensor]:
        """Inputs (sizes[worker], ...) float32 and targets (sizes[worker],).

        Raises UserError for a worker or a round that there is not.
        """
        ...

    def batches(self, workers: Sequence[int], round: int) -> tuple[Tensor, Tensor]:
        """The batches of ``workers`` (at least one), one after the other."""
        pairs = [self.batch(worker, round) for worker in workers]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def drifts(self, start: int, stop: int) -> list[int]:
        """The rounds t, start <= t < stop, that begin with a new concept common to all workers."""
        ...

    def test(self, round: int) -> Data:
        """Held-out samples of the concept of this round; the same object while it lasts."""
        ...


#: (workers, batch size, seed) -> the stream.
StreamFactory = Callable[[int, int, int], Stream]


def check(stream: Stream, workers: Sequence[int], round: int) -> None:
    """Raise UserError unless the stream has this round of these workers."""
    for worker in workers:
        if not 0 <= worker < len(stream.sizes):
            raise UserError(
                f"there is no worker {worker}; this stream has {len(stream.sizes)}, numbered from 0"
            )
        if round < 0:
            raise UserError(f"worker {worker}: round {round} is negative; rounds begin at 0")
        if stream.rounds is not None and round >= stream.rounds:
            raise UserError(
                f"worker {worker} has no round {round}: the stream ends after {stream.rounds} "
                "rounds; run fewer steps, or take smaller batches"
            )
