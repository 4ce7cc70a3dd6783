"""What a checkpoint holds of a model exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tacit.aggregators import OuterOptimizer
from tacit.compression import Compression
from tacit.fleet import Fleet
from tacit.late import Late, late_of, settled_state
from tacit.replicas import Models
from tacit.topologies import Topology
from tacit.triggers import Trigger


class SavedAveraging:
    """The state of ``ModelAveraging``: what all workers share, and what belongs to each."""

    fleet: Fleet
    models: Models
    trigger: Trigger
    topology: Topology
    outer: OuterOptimizer | None
    compression: Compression | None
    lag: int
    overlap: int
    reference: Tensor
    rounds: int
    participants: Tensor
    _check: Late | None
    _travelling: Late | None
    _left: Tensor | None

    def state_dict(self) -> dict[str, Any]:
        """What all workers share. What belongs to one worker is in :meth:`worker_state`."""
        checked = self._state_size() if self.lag else 0
        travels = self.reference.numel() if self.overlap else 0
        return {
            "reference": self.reference,
            "rounds": self.rounds,
            "check": settled_state(self._check, checked),
            "travelling": settled_state(self._travelling, travels),
            "trigger": self.trigger.state_dict(),
            "topology": self.topology.state_dict(),
            "outer": self.outer.state_dict() if self.outer is not None else None,
            "compression": self.compression.state_dict() if self.compression is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.reference.device
        self.reference = state["reference"].to(device)
        self.rounds = state["rounds"]
        self.participants = self.topology.participants(self.rounds)
        self._check = late_of(state["check"], device)
        self._travelling = late_of(state["travelling"], device)
        self.trigger.load_state_dict(state["trigger"])
        self.topology.load_state_dict(state["topology"])
        if self.outer is not None:
            self.outer.load_state_dict(state["outer"])
        if self.compression is not None:
            self.compression.load_state_dict(state["compression"])

    def begin_again(self, reference: Tensor, step: int) -> None:
        """Go on after this step as after a synchronisation at this model ``(d,)``, whatever was on
        its way."""
        self.reference = reference
        self._check = self._travelling = self._left = None
        self.topology.begin_again(step)

    def worker_state(self, row: int) -> dict[str, Any]:
        """What belongs to the worker in this row: its model as it left, if models travel; and what
        the coordinator knows, which lives beside worker 0."""
        state: dict[str, Any] = {}
        if self.overlap:
            left = self.models.parameters if self._left is None else self._left
            state["left"] = left[row].clone()
        if row + self.fleet.hosted.start == 0:
            state["coordinator"] = self.topology.coordinator_state()
        if self.compression is not None:
            state["compression"] = self.compression.worker_state(row)
        return state

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        if self._travelling is not None:
            if self._left is None:
                self._left = torch.zeros_like(self.models.parameters)
            self._left[row] = state["left"]
        if "coordinator" in state:
            self.topology.load_coordinator_state(state["coordinator"])
        if self.compression is not None:
            self.compression.load_worker_state(row, state["compression"])

    def take_over(self, shared: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:
        """Go on from the state of another number of workers; :meth:`begin_again` says where."""
        self.load_state_dict(shared)
        if self.compression is not None:
            states = [worker["compression"] for worker in workers]
            self.compression.take_over(shared["compression"], states)

    def _state_size(self) -> int:
        if not self.trigger.monitors:
            return 0
        return self.trigger.local_state(self.models.parameters, self.reference).shape[1]
