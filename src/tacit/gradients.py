"""The gradient exchange: the workers' gradients are combined before the local optimizer steps."""

from __future__ import annotations

from torch import Tensor

from tacit.aggregators import Aggregator, Mean
from tacit.fleet import Fleet, Kind
from tacit.replicas import Models
from tacit.setting import Setting


class GradientExchange:
    """Replaces every worker's gradient by the combination of all: synchronous SGD.

    With equal optimizers on all workers the models stay equal, as in PyTorch's
    DistributedDataParallel. ``charged``: False where the exchange stands for something else than
    communication, and is recorded alone.
    """

    def __init__(self, aggregator: Aggregator | None = None, charged: bool = True) -> None:
        self.aggregator = aggregator or Mean()
        self.charged = charged

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        """Begin a run."""
        self.fleet, self.models = fleet, models
        self.aggregator.start(setting)

    def step(self, participants: Tensor) -> None:
        """Between the backward pass and the local optimizer step."""
        gradients = self.models.gradients
        kind: Kind = "gradient" if self.charged else "evaluation"
        gradients[:] = self.aggregator.combine(self.fleet, gradients, kind, participants)
