"""Estimators of the model variance: what each worker sends, and what follows from the mean.

On the same drifts, ``Var = exact <= linear <= naive``: these never miss a crossing at a check. The
sketch misses with a small probability and is tighter than linear where workers drift together in
directions that the last round did not show.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from tacit import rng
from tacit.setting import Setting
from tacit.sketches import AMSSketch, squared_norm
from tacit.sketches.moments import drift_moments

#: A few times the relative rounding error of float32.
_RESOLUTION = 2.0**-21


class Estimator(ABC):
    """Turns drifts into local states, and the mean state into a variance."""

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        del setting

    @abstractmethod
    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        """``(L, d)`` models and the ``(d,)`` reference to ``(L, s)`` float32 states."""

    @abstractmethod
    def variance(self, mean_state: Tensor) -> float:
        """The estimate from the mean state ``(s,)``."""

    def synchronised(self, movement: Tensor) -> None:
        """The global model moved by ``movement`` ``(d,)``."""
        del movement

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state


class Exact(Estimator):
    """The variance itself: every worker sends its whole drift. An oracle to compare with."""

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        squares = drift_moments(parameters, reference).to(torch.float32)
        return torch.cat([squares, parameters - reference], dim=1)

    def variance(self, mean_state: Tensor) -> float:
        drift = mean_state[1:]
        common = float(torch.linalg.vector_norm(drift, dtype=torch.float64)) ** 2
        # A difference of nearly equal numbers when workers move together: what is left below the
        # rounding of the float32 messages is none.
        variance = float(mean_state[0]) - common
        return variance if variance > _RESOLUTION * common else 0.0


class Naive(Estimator):
    """``mean_k ||u_k||^2``: one number, blind to common movement."""

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        return drift_moments(parameters, reference).to(torch.float32)

    def variance(self, mean_state: Tensor) -> float:
        return float(mean_state[0])


class Linear(Estimator):
    """LinearFDA: ``mean_k ||u_k||^2 - (mean_k <xi, u_k>)^2`` with ``||xi|| = 1``: two numbers.

    ``xi`` is the direction of the last global movement, which every worker knows; before the first
    synchronisation, a random direction that all workers draw alike.
    """

    def __init__(self) -> None:
        self.xi = torch.empty(0)

    def start(self, setting: Setting) -> None:
        generator = rng.torch_stream(setting.seed, "xi")
        self.xi = torch.randn(setting.d, generator=generator).to(setting.device)
        self.xi /= torch.linalg.vector_norm(self.xi)

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        return drift_moments(parameters, reference, self.xi).to(torch.float32)

    def variance(self, mean_state: Tensor) -> float:
        square, along = mean_state.tolist()
        return float(square - along * along)

    def synchronised(self, movement: Tensor) -> None:
        length = torch.linalg.vector_norm(movement)
        if length > 0:
            self.xi = movement / length

    def state_dict(self) -> dict[str, Any]:
        return {"xi": self.xi}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.xi = state["xi"].to(self.xi.device)


class Sketch(Estimator):
    """SketchFDA: ``mean_k ||u_k||^2 - M2(mean_k sketch(u_k)) / (1 + epsilon)``.

    ``rows``, ``columns``: size of the AMS sketch, 5 and 250 as published: 5004 bytes a worker and
    check. ``epsilon``: 1/sqrt(columns) as published; M2 overestimates by more with a probability
    of 8 to 9 % there, and the estimate is then below the variance.
    """

    def __init__(self, rows: int = 5, columns: int = 250, epsilon: float | None = None) -> None:
        self.rows = rows
        self.columns = columns
        self.epsilon = 1 / math.sqrt(columns) if epsilon is None else epsilon
        self.sketch: AMSSketch | None = None

    def start(self, setting: Setting) -> None:
        self.sketch = AMSSketch(setting.d, self.rows, self.columns, setting.seed)

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        assert self.sketch is not None, "start() comes first"
        states = parameters.new_empty(len(parameters), 1 + self.rows * self.columns)
        states[:, :1] = drift_moments(parameters, reference)
        drift = torch.empty_like(reference)
        for state, row in zip(states, parameters, strict=True):
            state[1:] = self.sketch(torch.sub(row, reference, out=drift)).flatten()
        return states

    def variance(self, mean_state: Tensor) -> float:
        table = mean_state[1:].view(self.rows, self.columns)
        return float(mean_state[0]) - float(squared_norm(table)) / (1 + self.epsilon)
