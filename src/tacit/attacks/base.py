"""What Byzantine workers send: the attack, and what it may know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tacit.aggregators import Aggregator
from tacit.errors import UserError
from tacit.fleet import Kind
from tacit.setting import Setting


@dataclass(frozen=True)
class Sight:
    """What the liars know when they speak: everything.

    ``honest``: what the H honest workers are about to send, ``(H, d)`` float32 or float64, finite.
    ``liars``: f, 1 or more. ``rule``: what receivers do with the n = H + f vectors. ``peers``: each
    honest worker applies the rule by itself, one with a pivot to its own row; else a server does,
    once. ``poisoned``: ``(H, d)``, what the honest workers would send had their last gradient been
    that of the labels C - 1 - y, C the number of classes.
    """

    honest: Tensor
    liars: int
    kind: Kind
    step: int
    seed: int = 0
    rule: Aggregator | None = None
    peers: bool = False
    poisoned: Tensor | None = None

    def __post_init__(self) -> None:
        if self.honest.dim() != 2 or not len(self.honest) or self.liars < 1:
            raise UserError(
                f"an attack takes honest rows (H, d) and 1 or more liars, not shape "
                f"{tuple(self.honest.shape)} and {self.liars}"
            )

    @property
    def n(self) -> int:
        """Honest workers and liars."""
        return len(self.honest) + self.liars


class Attack(ABC):
    """Turns what the liars know into what they send: one vector, the same from all of them."""

    #: ``Sight.poisoned`` must be given.
    needs_poisoned = False
    #: The result is ``(H, d)``: row i is what all liars tell honest worker i.
    per_victim = False
    #: The liars send nothing. The result is NaN then: what is missing is not finite either.
    silent = False

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        del setting

    @abstractmethod
    def __call__(self, sight: Sight) -> Tensor:
        """``(d,)``, or ``(H, d)`` where it is per victim; of the type and on the device of the
        honest rows, which it never changes."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
