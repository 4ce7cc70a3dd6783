"""When workers talk: the trigger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from tacit.setting import Setting


class Trigger(ABC):
    """Decides, after each local step, whether the models are to be averaged.

    A trigger is *due* at some steps. If it *monitors*, every worker then sends a small local state;
    the states are averaged over the fleet and :meth:`fires` decides on the mean. If it does not,
    being due is the decision and nothing is sent.
    """

    monitors: bool = False
    #: What :meth:`estimate` is compared with, for reports; None where there is no such number.
    threshold: float | None = None

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        del setting

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether to look at the workers after local step ``step`` (1, 2, ...)."""

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

    def synchronised(self, movement: Tensor) -> None:
        """The models were averaged; ``movement`` is new minus old global model, ``(d,)``."""
        del movement

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
