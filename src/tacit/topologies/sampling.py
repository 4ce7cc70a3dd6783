"""Who takes part in a round: everyone, or a sampled part of the workers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from tacit import rng
from tacit.errors import UserError
from tacit.setting import Setting


class Topology(ABC):
    """Chooses the participants of each round."""

    #: Whether workers may be left out, so that each needs an optimizer of its own.
    partial: bool = False

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        self.setting = setting

    @abstractmethod
    def participants(self, round_number: int) -> Tensor:
        """The workers that train and are averaged in round 0, 1, ...: ``(K,)`` bool."""


class Everyone(Topology):
    """All workers, always."""

    def participants(self, round_number: int) -> Tensor:
        del round_number
        return torch.ones(self.setting.workers, dtype=torch.bool)


class Sampled(Topology):
    """``ceil(fraction * K)`` workers a round, uniformly at random (FedAvg's C); the others rest."""

    partial = True

    def __init__(self, fraction: float) -> None:
        if not 0 < fraction <= 1:
            raise UserError(f"the sampled fraction must be in (0, 1], got {fraction:g}")
        self.fraction = fraction

    def participants(self, round_number: int) -> Tensor:
        workers = self.setting.workers
        draw = rng.numpy_stream(self.setting.seed, "participants", round_number)
        # 0.07 * 100 is a little more than 7
        count = max(1, math.ceil(self.fraction * workers - 1e-9))
        chosen = draw.choice(workers, count, replace=False)
        mask = torch.zeros(workers, dtype=torch.bool)
        mask[torch.from_numpy(chosen)] = True
        return mask
