"""What a method may know about the run it is part of."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Setting:
    """``workers``: K. ``d``: number of trainable parameters. ``steps_per_epoch``: local steps in
    which all workers together see as many samples as there are; None: not known. ``samples``: how
    many samples each worker has, ``rates``: how many it learns from in a step, both ``(K,)`` and
    equal if not given. ``shapes``: of the parameters, in the order of the flat vector ``(d,)``; one
    vector if not given."""

    workers: int
    d: int
    seed: int = 0
    steps_per_epoch: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    samples: Tensor | None = None
    rates: Tensor | None = None
    shapes: tuple[tuple[int, ...], ...] = ()

    def sample_counts(self) -> Tensor:
        """Samples of each worker, ``(K,)`` float64."""
        return self._or_equal(self.samples)

    def sample_rates(self) -> Tensor:
        """Samples of each worker's step, ``(K,)`` float64."""
        return self._or_equal(self.rates)

    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.shapes or ((self.d,),)

    def _or_equal(self, numbers: Tensor | None) -> Tensor:
        if numbers is None:
            return torch.ones(self.workers, dtype=torch.float64)
        return numbers.to(torch.float64)
