"""EF21-W: EF21 whose workers weigh as much as their losses are curved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.fleet import Fleet
from tacit.memory.ef21 import EF21, Start
from tacit.replicas import Models
from tacit.setting import Setting


class EF21W(EF21):
    """EF21-W (Richtárik, Gasanov, Burlachenko, ICLR 2024): with weights ``w_i = L_i / sum L_j``,
    worker i sends ``C(g_i/(K w_i) - h_i)``, and all step with ``h = sum w_i h_i``.

    ``smoothness``: the constants ``L_i``, one a worker, known before. Without, each worker takes
    the largest ``||change of g_i|| / ||change of x||`` of its first ``estimate`` steps, which are
    plain EF21's; a lower bound of ``L_i`` along the path, from stochastic gradients a rough one.
    Then they tell each other (8 bytes), and go on with the weights.

    With a compressor that is homogeneous, the models are those of plain EF21; what differs is the
    step that the theory allows, see :mod:`tacit.memory.theory`.
    """

    def __init__(
        self,
        smoothness: Sequence[float] | None = None,
        estimate: int = 10,
        momentum: float | None = None,
        start: Start = "whole",
    ) -> None:
        super().__init__(momentum, start)
        if smoothness is not None:
            smoothness = tuple(float(constant) for constant in smoothness)
            if not smoothness or not all(0 < constant < math.inf for constant in smoothness):
                raise UserError(f"smoothness constants must be above 0 and finite: {smoothness}")
        if estimate < 1:
            raise UserError(f"smoothness is estimated in 1 or more steps, not {estimate}")
        self.smoothness, self.estimate = smoothness, estimate

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        super().start(fleet, models, setting)
        K = setting.workers
        self._begin_looking()
        if self.smoothness is not None:
            if len(self.smoothness) != K:
                raise UserError(f"{len(self.smoothness)} smoothness constants for {K} workers")
            self._use(torch.tensor(self.smoothness, dtype=torch.float64))
            return

    def _begin_looking(self) -> None:
        K = self.setting.workers
        self._weights = torch.full((K,), 1 / K, dtype=torch.float64)
        self._steps = 0
        hosted = len(self.models.parameters)
        self._largest = torch.zeros(hosted, 1, dtype=torch.float64)
        self._seen = torch.zeros(hosted, 1)
        few = self._zeros() if self.smoothness is None else torch.empty(hosted, 0)
        self._last_model, self._last_gradient = few, few.clone()

    def weights(self) -> Tensor:
        return self._weights

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        if self.smoothness is None and self._steps < self.estimate:
            self._look(row, vector)
        return super().outgoing(row, vector)

    def scaled(self, row: int, vector: Tensor) -> Tensor:
        worker = self.fleet.hosted.start + row
        return vector / float(self.setting.workers * self._weights[worker])

    def direction(self, combined: Tensor) -> Tensor:
        direction = super().direction(combined)
        self._steps += 1
        if self.smoothness is None and self._steps == self.estimate:
            self._use(self.fleet.gather_rows(self._largest, "control").flatten())
        return direction

    def _look(self, row: int, gradient: Tensor) -> None:
        model = self.models.parameters[row]
        moved = float((model - self._last_model[row]).norm())
        if self._seen[row] and moved > 0:
            changed = float((gradient - self._last_gradient[row]).norm())
            self._largest[row] = max(float(self._largest[row]), changed / moved)
        self._last_model[row], self._last_gradient[row] = model, gradient
        self._seen[row] = 1

    def _use(self, constants: Tensor) -> None:
        """Weights from these constants, ``(K,)``. What has been sent is kept in the new units."""
        before = self._weights
        if constants.max() > 0:
            # one that was never seen to curve must not weigh nothing: its share is divided by
            constants = constants.clamp_min(1e-3 * float(constants.mean()))
            self._weights = constants / constants.sum()
        hosted = self.fleet.hosted
        change = (before / self._weights)[hosted.start : hosted.stop, None]
        self._believed *= change.to(self._believed)

    # -- state

    def take_over(self, means: dict[str, Tensor]) -> None:
        if self.smoothness is None:
            self._begin_looking()  # the weights were those of other workers
        super().take_over(means)
        weights = self._weights[self.fleet.hosted.start : self.fleet.hosted.stop]
        self._believed /= (self.setting.workers * weights)[:, None].to(self._believed)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weights": self._weights, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._steps = state["steps"]
        if len(state["weights"]) == self.setting.workers:
            self._weights = state["weights"].clone()

    def worker_state(self, row: int) -> dict[str, Any]:
        own = super().worker_state(row)
        if self.smoothness is None:
            own |= {name: tensor[row].clone() for name, tensor in self._looked().items()}
        return own

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        super().load_worker_state(row, state)
        if self.smoothness is None:
            for name, tensor in self._looked().items():
                tensor[row] = state[name].to(tensor.device)

    def _looked(self) -> dict[str, Tensor]:
        return {
            "largest": self._largest,
            "seen": self._seen,
            "last model": self._last_model,
            "last gradient": self._last_gradient,
        }
