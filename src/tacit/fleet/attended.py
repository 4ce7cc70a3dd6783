"""A fleet whose workers may run out of data, each in a process of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from tacit.errors import PeerError
from tacit.fleet.fleet import Pending, Ready
from tacit.fleet.ledger import Kind
from tacit.fleet.letters import Distrust
from tacit.fleet.process_group import ProcessGroupFleet
from tacit.fleet.star import Lead, Settled, reports

#: What workers may meet for, the most urgent first.
Purpose = Literal["save", "look", "finish"]

#: What every worker says beside its row: its share of the weight, whether the row counts, whether
#: it trains, its step (of which only so much that sums stay exact in float32), and whether it is
#: there to save or to look.
_TAIL = 6
_STEPS = 4096


class AttendedFleet(ProcessGroupFleet):
    """One worker a process. Every mean carries who takes part in it.

    A worker that has nothing to train on, or wants to meet the others for some purpose, is *away*:
    it goes on answering, but its row does not count, except that the next average of models still
    takes in what it has learned. So the others go on without it and nobody hangs. Workers that
    are at different steps are found out by the same message, which is a PeerError.
    """

    #: Which process of its worker this is; only an island has others.
    place = 0
    #: What this worker is away for; None: it trains.
    purpose: Purpose | None = None
    #: Its model holds what no average of models has taken in.
    owes = False
    #: It has taken part in an average of models; whoever looks resets this.
    gave = False
    #: It trains, but has no gradient at this step (an overflow was skipped).
    has_gradient = True
    #: More numbers for everybody, ``(m,)``, that go with the next mean.
    aside: Tensor | None = None
    _heard: Tensor | None = None
    #: What the workers have met for, once none trains.
    met_for: Purpose = "finish"
    #: Some worker was away while others trained.
    absences = False
    _answer: Pending | None = None

    def mean_later(
        self, rows: Tensor, kind: Kind, weights: Tensor | None = None, overlap: int = 0
    ) -> Pending:
        self._check_rows(rows)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            self.aside = None  # it said something already
            return answer
        share = float(self._shares(weights)[self.rank])
        self.gave |= kind == "model"
        message, size = self._exchange(rows[0], share, self._counts(kind))
        self.ledger.reduce(kind, size, overlap=overlap)
        return message

    def _counts(self, kind: Kind) -> bool:
        match kind:
            case "model" | "evaluation":
                return self.purpose is None or self.owes
            case "gradient":
                return self.purpose is None and self.has_gradient
        return self.purpose is None

    def _exchange(self, row: Tensor, share: float, counts: bool) -> tuple[Pending, int]:
        """The mean to come, and the size of each worker's message in bytes."""
        step = self.ledger.step
        purpose = self.purpose
        said = row.new_tensor(
            [
                share * counts,
                counts,
                purpose is None,
                step % _STEPS,
                purpose == "save",
                purpose == "look",
            ]
        )
        aside, self.aside = self.aside, None
        parts = [row * share if counts else torch.zeros_like(row), said]
        message = torch.cat(parts if aside is None else [*parts, aside / self.size])
        size = message.numel() * message.element_size()
        if self.deterministic:
            rows = self._gather_rows(message[None])
            total: Pending = Ready(rows.sum(dim=0))
        else:
            total = self._sum_later(message)
        width, asides = row.numel(), 0 if aside is None else aside.numel()
        return _Understood(total, lambda w: self._understand(w, width, asides, step)), size

    def _understand(self, whole: Tensor, width: int, asides: int, step: int) -> Tensor:
        weight, present, busy, steps, saving, looking = whole[width : width + _TAIL].tolist()
        if steps != self.size * (step % _STEPS):
            raise PeerError(
                f"worker {self.hosted.start} is at step {step} and some other worker is not; "
                "start all workers from the same checkpoint"
            )
        self.busy, self.weight = round(busy), weight
        self.absences |= 0 < self.busy < self.size
        self.met_for = "save" if saving else "look" if looking else "finish"
        if asides:
            self._heard = whole[width + _TAIL :]
        row = whole[:width]
        # where all take part the shares add up to 1, but for rounding
        return row if present == self.size or weight == 0 else row / weight

    def _reports(self, rows: Tensor, calls: Tensor, weights: Tensor) -> Tensor:
        there = self.purpose is None
        return reports(rows, calls & there, weights, present=there or self.owes)

    def coordinate(self, rows: Tensor, calls: Tensor, weights: Tensor, lead: Lead) -> Settled:
        settled = super().coordinate(rows, calls, weights, lead)
        # a part's average is not in the reference: its members still hold what nobody else has
        self.gave |= settled.whole
        return settled

    def gather_present(self, rows: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
        self._check_rows(rows)
        rows, counts = self.said(rows, kind), self._counts(kind)
        self.gave |= kind == "model"
        # one more number says whether the row counts
        row = rows if counts else torch.zeros_like(rows)
        message = torch.cat([row, rows.new_full((1, 1), counts)], dim=1)
        self.ledger.gather(kind, [message.numel() * message.element_size()] * self.size)
        every = self._gather_rows(message)
        return every[:, :-1], every[:, -1].cpu() > 0

    def roll_call(self, kind: Kind = "control") -> None:
        self.mean(torch.zeros(1, 0, device=self.device), kind)

    def gather_within(
        self,
        messages: Sequence[bytes],
        kind: Kind,
        limit: float = math.inf,
        distrust: Distrust | None = None,
    ) -> list[bytes] | None:
        every = super().gather_within(messages, kind, limit, distrust)
        self.gave |= kind == "model" and every is not None
        return every

    def collect_bytes(
        self,
        messages: Sequence[bytes],
        kind: Kind,
        limit: float = math.inf,
        distrust: Distrust | None = None,
    ) -> list[bytes] | None:
        self.gave |= kind == "model"
        return super().collect_bytes(messages, kind, limit, distrust)

    def takes_part(self, kind: Kind) -> bool:
        return self._counts(kind)

    def heard(self) -> Tensor:
        """The mean of what everybody said :attr:`aside` of a mean, when somebody last did."""
        assert self._heard is not None
        return self._heard

    def answer(self, width: int, kind: Kind, overlap: int = 0) -> bool:
        """For a worker that is away: take part in the next message, which has ``width`` columns,
        and say whether anybody trains. If so, that message's mean is the answer to the next
        :meth:`mean_later` or :meth:`roll_call` here; if not, all are away and have met, for the
        most urgent of their purposes (:attr:`met_for`)."""
        message, size = self._exchange(torch.zeros(width, device=self.device), 0.0, False)
        message.wait()
        if not self.busy:
            self.ledger.reduce("control", size)
            return False
        self.ledger.reduce(kind, size, overlap=overlap)
        self._answer = message
        return True


class _Understood:
    """A message that is read once it is there."""

    def __init__(self, message: Pending, understand: Callable[[Tensor], Tensor]) -> None:
        self._message = message
        self._understand = understand
        self._value: Tensor | None = None

    def wait(self) -> Tensor:
        if self._value is None:
            self._value = self._understand(self._message.wait())
        return self._value
