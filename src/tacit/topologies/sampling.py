"""Who takes part in a round: everyone, or a sampled part of the workers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit import rng
from tacit.errors import UserError
from tacit.setting import Setting
from tacit.topologies.base import Topology


class Everyone(Topology):
    """All workers, always."""

    def participants(self, round_number: int) -> Tensor:
        del round_number
        return torch.ones(self.setting.workers, dtype=torch.bool)


class Sampled(Topology):
    """``ceil(fraction * K)`` workers a round, uniformly at random (FedAvg's C); the others rest."""

    partial = True

    def __init__(self, fraction: float) -> None:
        self.fraction = check_fraction(fraction)

    def participants(self, round_number: int) -> Tensor:
        chosen = draw_workers(self.setting, self.fraction, "participants", round_number)
        mask = torch.zeros(self.setting.workers, dtype=torch.bool)
        mask[torch.from_numpy(chosen)] = True
        return mask


def check_fraction(fraction: float) -> float:
    """Raises UserError for what is no part of the workers."""
    if not 0 < fraction <= 1:
        raise UserError(f"the sampled fraction must be in (0, 1], got {fraction:g}")
    return fraction


def draw_workers(setting: Setting, fraction: float, *name: rng.Name) -> npt.NDArray[np.int64]:
    """``ceil(fraction * K)`` workers, from the stream of this name."""
    draw = rng.numpy_stream(setting.seed, *name)
    return draw.choice(setting.workers, drawn_workers(setting, fraction), replace=False)


def drawn_workers(setting: Setting, fraction: float) -> int:
    """``ceil(fraction * K)``."""
    # 0.07 * 100 is a little more than 7
    return max(1, math.ceil(fraction * setting.workers - 1e-9))
