"""The outer optimizer: any ``torch.optim`` optimizer on the pseudo-gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tacit.optimizers import OptimizerFactory, complete_state


class OuterOptimizer:
    """Moves the global model by a server optimizer step instead of replacing it by the combination.

    The pseudo-gradient is the global model minus the combined model (minus the mean drift), as in
    Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2, and DiLoCo. Every
    process keeps the same optimizer and takes the same step.
    """

    def __init__(self, factory: OptimizerFactory) -> None:
        self.factory = factory
        self._model = nn.Parameter(torch.empty(0))
        self._optimizer: Optimizer | None = None

    def start(self, model: Tensor) -> None:
        """Begin a run at the global model ``(d,)``."""
        self._model = nn.Parameter(model.detach().clone())
        self._optimizer = self.factory([self._model])

    def step(self, reference: Tensor, combined: Tensor) -> Tensor:
        """The new global model ``(d,)`` from the old one and the combined workers' models."""
        assert self._optimizer is not None, "start() comes first"
        self._model.data.copy_(reference)
        self._model.grad = reference - combined
        self._optimizer.step()
        return self._model.detach().clone()

    def state_dict(self) -> dict[str, Any]:
        assert self._optimizer is not None
        return complete_state(self._optimizer)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self._optimizer is not None
        state["state"] = {int(i): entry for i, entry in state["state"].items()}
        self._optimizer.load_state_dict(state)
