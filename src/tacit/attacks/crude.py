"""Attacks that look at nothing: noise, what is no number, what is too large, and silence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tacit import rng
from tacit.attacks.base import Attack, Sight
from tacit.errors import check_number


class Gaussian(Attack):
    """Normal noise around 0 of standard deviation ``scale``, the same from all liars; it follows
    from the seed, the kind and the step (Blanchard et al., "Machine Learning with Adversaries",
    NeurIPS 2017)."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = check_number("scale", scale, "(0, inf)")

    def __call__(self, sight: Sight) -> Tensor:
        draws = rng.torch_stream(sight.seed, "gaussian", sight.kind, sight.step)
        noise = torch.randn(sight.honest.shape[1], generator=draws)
        return noise.mul_(self.scale).to(sight.honest)


class _Constant(Attack):
    value: float

    def __call__(self, sight: Sight) -> Tensor:
        return sight.honest.new_full((sight.honest.shape[1],), self.value)


class Inf(_Constant):
    """Infinity in every entry."""

    value = math.inf


class NaN(_Constant):
    """NaN in every entry."""

    value = math.nan


class Huge(_Constant):
    """1e30 in every entry: finite, but its square is beyond float32."""

    value = 1e30


class Silence(_Constant):
    """Nothing at all, which counts as NaN where a message is waited for."""

    value = math.nan
    silent = True
