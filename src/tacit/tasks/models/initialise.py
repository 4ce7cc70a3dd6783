"""The initial weights that the reproduced experiments start from: Keras', written in PyTorch, and
Glorot's normal ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

# Standard deviation of a unit normal cut at +-2: Keras divides by it, so that the cut
# distribution has the variance asked for.
CUT_NORMAL_STD = 0.87962566103423978


def glorot_uniform(model: nn.Module) -> None:
    """Keras' default: Glorot-uniform kernels and zero biases, for every conv and linear layer."""
    _initialise(model, nn.init.xavier_uniform_)


def glorot_normal(model: nn.Module) -> None:
    """Glorot-normal kernels and zero biases, for every conv and linear layer (PyTorch's
    ``xavier_normal_``: not cut)."""
    _initialise(model, nn.init.xavier_normal_)


def he_normal(weight: Tensor) -> None:
    """Keras' he_normal: a normal of variance 2 / fan_in, cut at two standard deviations."""
    fan_in = weight[0].numel()
    std = math.sqrt(2.0 / fan_in) / CUT_NORMAL_STD
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def _initialise(model: nn.Module, kernel: Callable[[Tensor], Tensor]) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            kernel(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
