"""What a method is made of."""

from __future__ import annotations

from dataclasses import dataclass

from tacit.averaging import ModelAveraging
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
