"""The gradient exchange: the workers' gradients are combined before the local optimizer steps."""

from __future__ import annotations

from torch import Tensor

from tacit.aggregators import Aggregator, Mean
from tacit.fleet import Fleet
from tacit.replicas import Models
from tacit.setting import Setting


class GradientExchange:
    """Replaces every worker's gradient by the combination of all: synchronous SGD.

    With equal optimizers on all workers the models stay equal, as in PyTorch's
    DistributedDataParallel.
    """

    def __init__(self, aggregator: Aggregator | None = None) -> None:
        self.aggregator = aggregator or Mean()

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        """Begin a run."""
        self.fleet, self.models = fleet, models
        self.aggregator.start(setting)

    def step(self, participants: Tensor) -> None:
        """Between the backward pass and the local optimizer step."""
        gradients = self.models.gradients
        gradients[:] = self.aggregator.combine(self.fleet, gradients, "gradient", participants)
