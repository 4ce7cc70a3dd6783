"""What a method is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tacit.averaging import ModelAveraging
from tacit.errors import UserError
from tacit.gradients import GradientExchange
from tacit.optimizers import OptimizerFactory


@dataclass
class Recipe:
    """A method: what it exchanges, and where in the step.

    ``optimizer``: the local optimizer, where it is part of the method; else the task's is used.
    """

    name: str
    gradients: GradientExchange | None = None
    averaging: ModelAveraging | None = None
    optimizer: OptimizerFactory | None = None

    def check_saved(self, shared: Mapping[str, Any]) -> None:
        """Raise UserError where the checkpoint with this shared state is of another recipe."""
        saved = shared.get("recipe", self.name)
        if saved != self.name:
            raise UserError(
                f"this checkpoint is of recipe {saved}, not of {self.name}; go on with {saved}, or "
                "start in another folder"
            )
