"""A gradient exchange with SGD after it, without models: gradients are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators import Aggregator
from tacit.compression import Compression
from tacit.compressors import Compressor, as_compressor
from tacit.fleet import LocalFleet
from tacit.gradients import GradientExchange
from tacit.memory import Heard, Memory
from tacit.rng import torch_stream
from tacit.schedule import Densities
from tacit.setting import Setting
from tacit.topologies import Topology

#: Of a step (1, 2, ...) and the models ``(K, d)``: everybody's gradient, ``(K, d)``.
Gradients = Callable[[int, Tensor], Tensor]


@dataclass
class Rows:
    """Models as an exchange sees them."""

    parameters: Tensor
    gradients: Tensor
    buffers: Tensor


class Rig:
    """K workers that start at the same model, ``first`` ``(d,)``."""

    def __init__(
        self,
        memory: Memory | None,
        compressor: str | Compressor,
        first: Tensor,
        workers: int = 1,
        lr: float = 0.1,
        download: str | Compressor | None = None,
        densities: Densities | None = None,
        aggregator: Aggregator | None = None,
        topology: Topology | None = None,
        fleet: LocalFleet | None = None,
        heard: Heard | None = None,
        **setting: Any,
    ) -> None:
        made = as_compressor(compressor)
        assert made is not None
        self.compression = Compression(made, memory, as_compressor(download), densities, heard)
        self.memory = self.compression.memory
        self.exchange = GradientExchange(aggregator, self.compression, topology)
        self.fleet = fleet or LocalFleet(workers)
        rows = first.repeat(workers, 1)
        self.rows = Rows(rows, torch.zeros_like(rows), torch.zeros(workers, 0))
        self.optimizer = torch.optim.SGD([self.rows.parameters], lr=lr)
        self.exchange.check(self.optimizer)
        self.setting = Setting(workers, len(first), **setting)
        self.exchange.start(self.fleet, self.rows, self.setting)
        self.present = torch.ones(workers, dtype=torch.bool)
        self.steps = 0

    def step(self, gradients: Tensor) -> Tensor:
        """One step from everybody's gradients ``(K, d)``; the direction of it, ``(d,)``."""
        self.steps += 1
        self.fleet.ledger.step = self.steps
        self.rows.gradients[:] = gradients
        self.exchange.step(self.present)
        assert torch.equal(self.rows.gradients[0], self.rows.gradients[-1])
        self.rows.parameters.grad = self.rows.gradients
        self.optimizer.step()
        return self.rows.gradients[0].clone()

    def run(self, gradients: Gradients | Tensor, steps: int) -> Tensor:
        """So many steps; the model after them, ``(d,)``. A tensor: ``(T, K, d)``, by step."""
        for _ in range(steps):
            if isinstance(gradients, Tensor):
                self.step(gradients[self.steps])
            else:
                self.step(gradients(self.steps + 1, self.rows.parameters))
        return self.model

    @property
    def model(self) -> Tensor:
        return self.rows.parameters[0].clone()

    def states(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What all share, and each worker's."""
        return self.exchange.state_dict(), [
            self.exchange.worker_state(row) for row in range(len(self.rows.parameters))
        ]

    def load(self, shared: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:
        self.exchange.load_state_dict(shared)
        for row, state in enumerate(workers):
            self.exchange.load_worker_state(row, state)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_stream(seed, "rig", *shape))


def sgd(first: Tensor, gradients: Tensor, lr: float = 0.1, **options: Any) -> Tensor:
    """``torch.optim.SGD`` on a sequence of gradients ``(T, d)``, in double precision."""
    model = first.double().clone()
    optimizer = torch.optim.SGD([model], lr=lr, **options)
    for gradient in gradients.double():
        model.grad = gradient
        optimizer.step()
    return model.float()


def equal(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors and arrays to the bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)
