"""The fleet: the K workers of a run as one process sees them.

A process hosts some of the workers, and a tensor that differs from worker to worker has a leading
dimension for them: shape ``(L, ...)``, L = workers hosted here. A simulation is one process that
hosts all of them, a cluster is K processes that host one each; the code above a fleet is the same.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.fleet.correspondence import Correspondence
from tacit.fleet.ledger import Kind, Ledger
from tacit.fleet.letters import Letters
from tacit.fleet.star import Lead, Settled, charge, reports
from tacit.fleet.sums import CHUNK, weighted_sum
from tacit.fleet.voice import Voice


class Pending(Protocol):
    """A result that is on its way."""

    def wait(self) -> Tensor: ...


class Ready:
    """A result that is already there."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def wait(self) -> Tensor:
        return self._value


class Fleet(Letters):
    """Collectives over the workers, each of which reports to the ledger.

    ``deterministic``: every process gathers all rows and sums them alike, so that every layout
    gives the same bits. It costs the traffic of an all-gather.
    """

    #: Of the last mean: the weight of the rows that counted, where workers may be away.
    weight = 1.0
    #: How many workers train.
    busy: int
    #: What some workers say instead of what they should; None: all are honest.
    voice: Voice | None = None

    def __init__(self, size: int, hosted: range, deterministic: bool = False) -> None:
        if size < 1:
            raise UserError(f"a fleet needs at least 1 worker, got {size}")
        self.size = self.busy = size
        self.hosted = hosted
        self.deterministic = deterministic
        self.ledger = Ledger(size)

    @property
    def leader(self) -> bool:
        """Whether this process hosts worker 0: the one that prints and writes shared files."""
        return 0 in self.hosted

    def said(self, rows: Tensor, kind: Kind) -> Tensor:
        """What the hosted workers send, who should send these rows ``(L, n)``: the rows, unless
        some of them lie. Evaluation is nobody's message."""
        if self.voice is None or kind == "evaluation":
            return rows
        return self.voice.say(self, rows, kind)

    # -- collectives

    def mean(self, rows: Tensor, kind: Kind, weights: Tensor | None = None) -> Tensor:
        """The (weighted) mean of all workers' rows: ``(L, n) -> (n,)``.

        ``weights``: shape ``(K,)``, the same in every process, not negative, not all zero. A
        worker of weight 0 takes no part: nothing is charged to it and its row is not read.
        """
        return self.mean_later(rows, kind, weights).wait()

    def mean_later(
        self,
        rows: Tensor,
        kind: Kind,
        weights: Tensor | None = None,
        overlap: int = 0,
    ) -> Pending:
        """Start :meth:`mean` and return at once; ``wait()`` gives the result.

        ``overlap``: steps of computation before the result is needed, for the virtual clock.
        """
        self._check_rows(rows)
        if not rows.is_floating_point():
            raise UserError(f"a mean needs floating-point rows, got {rows.dtype}")
        rows = self.said(rows, kind)
        share = self._shares(weights)
        participants = None if weights is None else (share > 0).numpy()
        self.ledger.reduce(kind, _row_bytes(rows), participants, overlap)
        if self.deterministic:
            return Ready(self._gathered_mean(rows, share))
        return self._sum_later(weighted_sum(rows, share[self.hosted.start : self.hosted.stop]))

    def max(self, rows: Tensor, kind: Kind) -> Tensor:
        """The element-wise maximum over all workers: ``(L, n) -> (n,)``."""
        self._check_rows(rows)
        self.ledger.reduce(kind, _row_bytes(rows))
        return self._max(rows.amax(dim=0))

    def any(self, flags: Tensor, kind: Kind) -> bool:
        """Whether any worker's flag is set; ``flags``: ``(L,)``. Charged 1 byte a worker."""
        self._check_rows(flags, dims=1)
        self.ledger.reduce(kind, 1)
        return bool(self._max(flags.to(torch.uint8).amax(dim=0, keepdim=True)).item())

    def gather_rows(self, rows: Tensor, kind: Kind) -> Tensor:
        """Everybody's rows, in worker order: ``(L, n) -> (K, n)``; not to be written to."""
        self._check_rows(rows)
        self.ledger.gather(kind, [_row_bytes(rows)] * self.size)
        return self._gather_rows(self.said(rows, kind))

    def gather_present(self, rows: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
        """:meth:`gather_rows`, and whose rows count, ``(K,)`` bool; here everybody's. The others'
        are zeros. Not the first message of a step where workers may be away: see
        :meth:`roll_call`."""
        return self.gather_rows(rows, kind), torch.ones(self.size, dtype=torch.bool)

    def overhear(self, rows: Tensor) -> Tensor:
        """:meth:`gather_rows` for those who know everything (see :class:`Voice`): not charged."""
        self._check_rows(rows)
        return self._gather_rows(rows)

    def gather_first(
        self, rows: Tensor, kind: Kind, enough: int, correspondence: Correspondence
    ) -> tuple[list[int], Tensor] | None:
        """The rows of the workers whose messages come first, ``enough`` and the own one at least:
        who they are, in order, and their rows ``(m, n)``. None, and nothing is sent, where workers
        share processes, so that nobody is late. ``correspondence``: the run's own."""
        del rows, kind, enough, correspondence
        return None

    def introduce(self, rows: Tensor, kind: Kind, correspondence: Correspondence) -> None:
        """Before the first :meth:`gather_first` of rows like these, which else does it: workers get
        to know each other. Collective."""
        del rows, kind, correspondence

    def last_word(self, rows: Tensor, kind: Kind, correspondence: Correspondence) -> None:
        """For :meth:`gather_first`: ``rows`` ``(1, n)`` are this worker's of every step to come.
        Nothing is sent where workers share processes."""
        del rows, kind, correspondence

    def broadcast(self, row: Tensor, kind: Kind) -> Tensor:
        """Worker 0's vector ``(n,)``, in every process."""
        self.ledger.broadcast(kind, row.numel() * row.element_size(), source=0)
        return self._broadcast(row)

    def coordinate(self, rows: Tensor, calls: Tensor, weights: Tensor, lead: Lead) -> Settled:
        """One conversation with the coordinator (see ``tacit.fleet.star``); charged as *model*.

        ``rows``: ``(L, n)``; ``calls``: ``(L,)`` bool, the hosted workers that call; ``weights``:
        ``(L,)``. ``lead`` runs in the coordinator's process alone. Raises PeerError where rows do
        not fit.
        """
        self._check_rows(rows)
        rows = self.said(rows, "model")
        settled = self._converse(rows, self._reports(rows, calls, weights), lead)
        charge(self.ledger, settled, _row_bytes(rows))
        return settled

    def _reports(self, rows: Tensor, calls: Tensor, weights: Tensor) -> Tensor:
        return reports(rows, calls, weights)

    def roll_call(self, kind: Kind = "control") -> None:
        """Called before something travels that does not say by itself who takes part, if no message
        of this step has said it: see ``AttendedFleet``. Where all workers keep step by themselves
        there is nothing to do."""

    def takes_part(self, kind: Kind) -> bool:
        """Whether the hosted workers' messages of this kind count at this step."""
        del kind
        return True

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every process is here. Not charged."""

    @abstractmethod
    def total(self, values: Tensor) -> Tensor:
        """The sum over processes (not workers) of ``values``: bookkeeping, not charged."""

    # -- what an implementation provides

    @abstractmethod
    def _sum_later(self, partial: Tensor) -> Pending: ...

    @abstractmethod
    def _max(self, partial: Tensor) -> Tensor: ...

    @abstractmethod
    def _broadcast(self, row: Tensor) -> Tensor: ...

    @abstractmethod
    def _gather_rows(self, rows: Tensor) -> Tensor: ...

    @abstractmethod
    def _converse(self, rows: Tensor, reports: Tensor, lead: Lead) -> Settled: ...

    # -- shared pieces

    def _gathered_mean(self, rows: Tensor, share: Tensor) -> Tensor:
        starts = range(0, max(1, rows.shape[1]), CHUNK)
        chunks = (self._gather_rows(rows[:, start : start + CHUNK]) for start in starts)
        return torch.cat([weighted_sum(chunk, share) for chunk in chunks])

    def _shares(self, weights: Tensor | None) -> Tensor:
        if weights is None:
            return torch.full((self.size,), 1.0 / self.size, dtype=torch.float64)
        weights = weights.to("cpu", torch.float64)
        total = weights.sum()
        valid = weights.shape == (self.size,) and bool((weights >= 0).all())
        if not (valid and 0 < total < math.inf):
            raise UserError(
                f"weights must be {self.size} numbers, none negative and not all zero, "
                f"got {weights.tolist()}"
            )
        return weights / total

    def _check_rows(self, rows: Tensor, dims: int = 2) -> None:
        if rows.dim() != dims or rows.shape[0] != len(self.hosted):
            what = "row (L, n)" if dims == 2 else "flag (L,)"
            raise UserError(
                f"expected one {what} for each of {len(self.hosted)} hosted workers, "
                f"got shape {tuple(rows.shape)}"
            )


def layout(size: int, processes: int) -> list[range]:
    """The usual layout: consecutive workers, as evenly as it goes."""
    if not 1 <= processes <= size:
        raise UserError(f"{processes} processes cannot share {size} workers: each needs at least 1")
    ends = np.linspace(0, size, processes + 1).round().astype(int).tolist()
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


def _row_bytes(rows: Tensor) -> int:
    return rows[0].numel() * rows.element_size()
