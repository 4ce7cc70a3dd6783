"""What happens between two evaluations, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tacit.averaging import ModelAveraging
from tacit.fleet import Fleet
from tacit.tasks.streams import Stream


class Journal:
    """Notes of the hosted workers' steps, and what they come to over all workers.

    ``stream``: if there is one, every round's loss, wrong answers and bytes are kept.
    """

    def __init__(self, fleet: Fleet, stream: Stream | None) -> None:
        self.fleet, self.stream = fleet, stream
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begin anew after an evaluation at this step."""
        self.since = step
        self.losses = [0.0, 0.0]  # their sum and number
        self.checks: list[tuple[int, float | None, bool]] = []
        self.conversations: list[tuple[int, int, int, bool]] = []
        self._rounds: list[tuple[float, float]] = []  # of the hosted workers
        self._bytes: list[int] = []
        self._events = -1  # how many there were in the ledger when its bytes were last counted

    def note(
        self,
        step: int,
        losses: Tensor,
        mistakes: int,
        averaging: ModelAveraging | None,
        fired: bool,
    ) -> None:
        """One step. ``losses``: of the active hosted workers."""
        total = float(losses.sum())
        self.losses[0] += total
        self.losses[1] += len(losses)
        if self.stream is not None:
            self._rounds.append((total, mistakes))
            self._bytes.append(self._spent())
        if averaging is None:
            return
        if fired or averaging.estimate is not None:
            self.checks.append((step, averaging.estimate, fired))
        if (settled := averaging.settled) is not None:
            callers, members = int(settled.callers.sum()), int(settled.members.sum())
            self.conversations.append((step, callers, members, settled.whole))

    def _spent(self) -> int:
        """The bytes so far. In most rounds nothing is sent."""
        ledger = self.fleet.ledger
        if len(ledger) == self._events:
            return self._bytes[-1]
        self._events = len(ledger)
        return ledger.bytes()

    def rounds(self) -> list[tuple[float, int, int]]:
        """Of each step: loss and wrong answers of all workers, bytes so far. A collective."""
        sums = self._summed_rounds().tolist()
        return [
            (loss, int(mistakes), spent)
            for (loss, mistakes), spent in zip(sums, self._bytes, strict=True)
        ]

    def drifts(self, step: int) -> list[int]:
        """The steps up to this one that began with a new concept; step 1 is round 0."""
        if self.stream is None:
            return []
        return [t + 1 for t in self.stream.drifts(self.since, step)]

    def _summed_rounds(self) -> Tensor:
        if not self._rounds:
            return torch.zeros(0, 2, dtype=torch.float64)
        return self.fleet.total(torch.tensor(self._rounds, dtype=torch.float64))

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What all workers share; sums over processes. A collective."""
        return {
            "since": self.since,
            "losses": self.fleet.total(torch.tensor(self.losses, dtype=torch.float64)),
            "checks": [list(check) for check in self.checks],
            "conversations": [list(entry) for entry in self.conversations],
            "rounds": self._summed_rounds(),
            "bytes": list(self._bytes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.begin(state["since"])
        self.checks = [(step, estimate, bool(fired)) for step, estimate, fired in state["checks"]]
        self.conversations = [
            (step, callers, members, bool(whole))
            for step, callers, members, whole in state["conversations"]
        ]
        self._bytes = list(state["bytes"])
        # sums over processes: one of them goes on with them
        mine = 1.0 if self.fleet.leader else 0.0
        self.losses = (state["losses"] * mine).tolist()
        self._rounds = [(loss, mistakes) for loss, mistakes in (state["rounds"] * mine).tolist()]
