"""When workers talk: the trigger."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tacit.aggregators import Aggregator, Mean
from tacit.errors import UserError
from tacit.setting import Setting


def check_steps(what: str, steps: int) -> int:
    """Raises UserError for what is no number of steps."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError(f"{what} must be at least 1 step, a whole number, got {steps}")
    return steps


class Trigger:
    """Decides, after each local step, whether the models are to be averaged.

    A trigger is *due* after every ``period`` steps. If it *monitors*, every worker then sends a
    small local state; the states are combined over the fleet, by default averaged, and
    :meth:`fires` decides on the result. If it does not, being due is the decision and nothing is
    sent.
    """

    monitors: bool = False
    period: int = 1
    #: How the workers' states are combined: the mean, or what liars cannot move far.
    decision: Aggregator = Mean()
    #: What :meth:`estimate` is compared with, for reports; None where there is no such number.
    threshold: float | None = None

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        del setting

    def due(self, step: int) -> bool:
        """Whether to look at the workers after local step ``step`` (1, 2, ...)."""
        return step % self.period == 0

    def next_due(self, step: int) -> int:
        """The first step after ``step`` that is due."""
        return (step // self.period + 1) * self.period

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        """What the hosted workers send: ``(L, s)`` float32, from their models ``(L, d)`` and the
        model at the last synchronisation ``(d,)``."""
        raise TypeError(f"{type(self).__name__} does not monitor")

    def estimate(self, mean_state: Tensor) -> float:
        """The number the decision is about, from the mean state ``(s,)``."""
        raise TypeError(f"{type(self).__name__} does not monitor")

    def fires(self, estimate: float) -> bool:
        """Whether this estimate calls for a synchronisation."""
        return self.threshold is not None and estimate > self.threshold

    def calls(self, parameters: Tensor, reference: Tensor) -> Tensor:
        """Which hosted workers want an average, once it fires: ``(L,)`` bool. By default all."""
        del reference
        return torch.ones(len(parameters), dtype=torch.bool, device=parameters.device)

    def accepts(self, mean: Tensor, reference: Tensor) -> bool:
        """Whether a part of the workers can go on from their mean ``(d,)`` without the others."""
        del mean, reference
        return False

    def synchronised(self, movement: Tensor) -> None:
        """The models were averaged; ``movement`` is new minus old global model, ``(d,)``."""
        del movement

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
