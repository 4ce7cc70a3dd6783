"""Triggers that only count: every H steps, every E epochs, never."""

from __future__ import annotations

import math

from tacit.errors import UserError
from tacit.setting import Setting
from tacit.triggers.base import Trigger, check_steps

#: More steps than any run has.
_NEVER = 1 << 50


class Every(Trigger):
    """Average after every ``steps`` local steps (1: after each)."""

    def __init__(self, steps: int = 1) -> None:
        self.period = check_steps("the period", steps)


class EveryEpochs(Trigger):
    """Average after ``epochs`` passes over the workers' data, in whole steps (at least 1)."""

    def __init__(self, epochs: float = 1.0) -> None:
        if not (epochs > 0 and math.isfinite(epochs)):
            raise UserError(f"local epochs must be a finite number above 0, got {epochs:g}")
        self.epochs = epochs

    def start(self, setting: Setting) -> None:
        if setting.steps_per_epoch is None:
            raise UserError("this recipe averages every few epochs; say how many steps one has")
        self.period = max(1, round(self.epochs * setting.steps_per_epoch))


class Never(Trigger):
    """Nobody ever talks."""

    def due(self, step: int) -> bool:
        del step
        return False

    def next_due(self, step: int) -> int:
        del step
        return _NEVER  # the same to everybody: workers that wait for it together have met
