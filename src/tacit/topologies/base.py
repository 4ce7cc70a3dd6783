"""With whom workers talk: the topology."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from tacit.aggregators import Aggregator
from tacit.fleet import Fleet, Kind, Settled
from tacit.setting import Setting
from tacit.triggers import Trigger


class Topology(ABC):
    """Chooses the participants of each round."""

    #: Whether workers may be left out, and then rest, so that each needs an optimizer of its own.
    partial: bool = False
    #: Whether a coordinator decides, model by model, who is averaged: see :class:`Coordinated`.
    coordinated: bool = False

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        self.setting = setting

    @abstractmethod
    def participants(self, round_number: int) -> Tensor:
        """The workers that train and are averaged in round 0, 1, ...: ``(K,)`` bool."""

    @property
    def senders(self) -> int:
        """How many rows are combined into one in a round."""
        return int(self.participants(0).sum())

    def introduce(self, fleet: Fleet, rows: Tensor, kind: Kind) -> None:
        """Where nobody waits for all: let workers get to know each other, once, before they
        exchange rows like these. Collective."""
        del fleet, rows, kind

    def last_word(self, fleet: Fleet, rows: Tensor, kind: Kind) -> None:
        """The hosted worker takes no more steps. ``rows`` ``(1, n)``: its last, for those who do
        and cannot ask for it."""
        del fleet, rows, kind

    def begin_again(self, step: int) -> None:
        """Go on after this step as after a full synchronisation."""
        del step

    def state_dict(self) -> dict[str, Any]:
        """What all processes know."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state

    def coordinator_state(self) -> dict[str, Any]:
        """What the coordinator alone knows."""
        return {}

    def load_coordinator_state(self, state: dict[str, Any]) -> None:
        del state


class Coordinated(Topology):
    """All workers train; once the trigger fires a coordinator asks some of them for their models,
    averages these, and gives the result back to them, or to everybody."""

    coordinated = True

    def participants(self, round_number: int) -> Tensor:
        del round_number
        return torch.ones(self.setting.workers, dtype=torch.bool)

    @abstractmethod
    def meet(
        self,
        fleet: Fleet,
        rows: Tensor,
        reference: Tensor,
        trigger: Trigger,
        aggregator: Aggregator,
        step: int,
    ) -> Settled:
        """One conversation with the coordinator.

        ``rows``: ``(L, n)``, the hosted workers' models and, behind the first d columns, what
        travels with them. ``reference``: ``(d,)``, the last model that was everybody's.
        """
