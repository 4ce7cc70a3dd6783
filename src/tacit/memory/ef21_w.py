"""EF21-W: EF21 whose workers weigh as much as their losses are curved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from tacit.compressors.base import check_whole
from tacit.errors import UserError, check_number
from tacit.fleet import Fleet
from tacit.memory.base import norm
from tacit.memory.ef21 import EF21, Start
from tacit.replicas import Models
from tacit.setting import Setting

#: Between the largest and the smallest constant: messages are divided by their shares.
_RANGE = 1e12


class EF21W(EF21):
    """EF21-W (Richtárik, Gasanov, Burlachenko, ICLR 2024): with weights ``w_i = L_i / sum L_j``,
    worker i sends ``C(g_i/(K w_i) - h_i)``, and all step with ``h = sum w_i h_i``.

    ``smoothness``: the constants ``L_i``, one a worker, known before. Without, each worker takes
    the largest ``||change of g_i|| / ||change of x||`` of its first ``estimate`` steps, which are
    plain EF21's; a lower bound of ``L_i`` along the path, from stochastic gradients a rough one.
    Then they tell each other (8 bytes), and go on with the weights. Who has seen no change gets the
    mean of the others' constants, and nobody less than a thousandth of the mean.

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
            if not isinstance(smoothness, Iterable):
                raise UserError(f"smoothness has a constant for each worker, not {smoothness!r}")
            what = "a smoothness constant"
            smoothness = tuple(float(check_number(what, c, "(0, inf)")) for c in smoothness)
            _check_range(smoothness)
        self.smoothness = smoothness
        # the first step has nothing to compare with
        self.estimate = check_whole("estimate", estimate, least=2)

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

    def scale(self, row: int) -> float:
        worker = self.fleet.hosted.start + row
        return float(self.setting.workers * self._weights[worker])

    def direction(self, combined: Tensor) -> Tensor:
        direction = super().direction(combined)
        self._steps += 1
        if self.smoothness is None and self._steps == self.estimate:
            measured = self.fleet.gather_rows(self._largest, "control").flatten()
            if measured.max() > 0:
                self._use(_filled(measured))
        return direction

    def _look(self, row: int, gradient: Tensor) -> None:
        model = self.models.parameters[row]
        change = self._outgoing[row]  # is not in use yet
        moved = norm(torch.sub(model, self._last_model[row], out=change)) if self._seen[row] else 0
        if moved > 0:
            changed = norm(torch.sub(gradient, self._last_gradient[row], out=change))
            self._largest[row] = max(float(self._largest[row]), changed / moved)
        self._last_model[row], self._last_gradient[row] = model, gradient
        self._seen[row] = 1

    def _use(self, constants: Tensor) -> None:
        """Weights from these constants, ``(K,)``. What has been sent is kept in the new units."""
        constants = constants / constants.max()  # whose sum is finite
        before, self._weights = self._weights, constants / constants.sum()
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


def _filled(measured: Tensor) -> Tensor:
    """Constants to go on with. The shares are divided by, so none may be too small."""
    mean = float(measured[measured > 0].mean())
    known = torch.where(measured > 0, measured, mean)
    return known.clamp_min(1e-3 * float(known.mean()))


def _check_range(smoothness: tuple[float, ...]) -> None:
    if not smoothness:
        raise UserError("smoothness has a constant for each worker, above 0 and finite")
    if max(smoothness) > _RANGE * min(smoothness):
        raise UserError(
            f"smoothness constants from {min(smoothness):g} to {max(smoothness):g} are too far "
            f"apart for float32 messages; at most by a factor of {_RANGE:g}"
        )
