"""Every compressor once, and vectors that are hard for some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tacit.compressors import (
    QSGD,
    Compressor,
    Natural,
    PerTensor,
    RandomK,
    TopK,
    Uniform,
    chain,
    compressor,
)
from tacit.rng import torch_stream


class Plugin(NamedTuple):
    """``make``: a new one. ``random``: whether two draws differ. ``longest``: bytes of the message
    for n numbers, at most."""

    make: Callable[[], Compressor]
    random: bool
    longest: Callable[[int], float]


def _text(text: str, longest: Callable[[int], float], random: bool = False) -> tuple[str, Plugin]:
    return text, Plugin(lambda: compressor(text), random, longest)


def _entries(n: int, density: float) -> int:
    return max(1, int(n * density + 0.999))


#: Header, the lengths of parts and their first bytes.
FRONT = 24

#: A new compressor is tested by a line here. Uniform positions take 4.8 bits at a density of 10 %.
PLUGINS = dict(
    [
        _text("identity", lambda n: FRONT + 4 * n),
        _text("identity:values=fp16", lambda n: FRONT + 2 * n),
        _text("identity:values=bf16", lambda n: FRONT + 2 * n),
        _text("uniform", lambda n: FRONT + n, random=True),
        _text("uniform:bits=4", lambda n: FRONT + n / 2, random=True),
        _text("uniform:bits=2,chunk=16", lambda n: FRONT + n / 4 + n / 4 + 4, random=True),
        _text("uniform:rounding=nearest", lambda n: FRONT + n),
        _text("uniform:bits=4,rounding=nearest,chunk=8", lambda n: FRONT + n / 2 + n / 2 + 4),
        _text("uniform:bits=2,rounding=nearest,chunk=8", lambda n: FRONT + n / 4 + n / 2 + 4),
        _text("sign", lambda n: FRONT + n / 8),
        _text("sign:chunk=32", lambda n: FRONT + n / 8 + n / 8 + 4),
        _text("natural", lambda n: FRONT + 9 * n / 8 + n / 8, random=True),
        _text("qsgd", lambda n: FRONT + 4 + n, random=True),
        _text("qsgd:levels=2,bucket=32", lambda n: FRONT + n / 2 + n / 8 + 4, random=True),
        _text("topk:density=0.1", lambda n: FRONT + 4.7 * _entries(n, 0.1)),
        _text("topk:k=3", lambda n: FRONT + 12 + 6),
        _text("topk:density=0.5,values=int8", lambda n: FRONT + n / 2 + n / 8),
        _text("topk:density=0.1,values=int2", lambda n: FRONT + _entries(n, 0.1) * 0.9),
        _text("topk:density=0.1,values=sign", lambda n: FRONT + _entries(n, 0.1) * 0.8),
        _text("sampled_topk:density=0.1", lambda n: FRONT + 4.7 * _entries(n, 0.1), random=True),
        _text("block_topk:k=4,block=16", lambda n: FRONT + n + 4 + n / 8),
        _text("block_topk:k=4,block=16,values=fp16", lambda n: FRONT + n / 2 + 4 + n / 8),
        _text("randomk:density=0.1", lambda n: FRONT + 4 * _entries(n, 0.1), random=True),
        _text("randomk:k=5,scaled=true,shared=false", lambda n: FRONT + 20, random=True),
        _text("randomk:density=0.5,scaled=true,values=int8", lambda n: FRONT + n / 2, random=True),
        _text("randomk:density=0.1,values=sign", lambda n: FRONT + n / 64, random=True),
        _text("threshold:t=0.7", lambda n: FRONT + 4 * n + n / 8),
        _text("lowrank:warm=false", lambda n: FRONT + 8 * n**0.5 + 12, random=True),
        _text("lowrank:rank=3", lambda n: FRONT + 24 * n**0.5 + 24, random=True),
        _text("lowrank:rank=2,values=bf16", lambda n: FRONT + 8 * n**0.5 + 24, random=True),
        (
            "topk then natural",
            Plugin(lambda: chain(TopK(density=0.2), Natural()), True, lambda n: FRONT + n / 2),
        ),
        (
            "topk then qsgd",
            Plugin(lambda: chain(TopK(density=0.2), QSGD(64)), True, lambda n: FRONT + n / 2),
        ),
        (
            "randomk then uniform",
            Plugin(
                lambda: chain(RandomK(density=0.5, scaled=True), Uniform(4)),
                True,
                lambda n: FRONT + n / 4,
            ),
        ),
        # of one tensor, before it is told of others
        (
            "topk of each tensor",
            Plugin(
                lambda: PerTensor(TopK(density=0.1)),
                False,
                lambda n: FRONT + 6 + 4.7 * _entries(n, 0.1),
            ),
        ),
    ]
)


def gaussian(n: int) -> Tensor:
    return torch.randn(n, generator=torch_stream(n, "vector"))


def vectors(n: int) -> dict[str, Tensor]:
    """Of ``n >= 1`` numbers: what a constant must hold for. No subnormal numbers."""
    draws = torch_stream(n, "vectors")
    noise = torch.randn(n, generator=draws)
    first = torch.zeros(n)
    first[0] = 1

    def beside(value: float) -> Tensor:
        """One entry 1, where the scale is, and the others ``value``."""
        return torch.where(first > 0, first, torch.full((n,), value))

    return {
        "gaussian": noise,
        "heavy": noise / torch.rand(n, generator=draws) ** 3,
        "equal": torch.ones(n),
        "alternating": torch.ones(n) * (1 - 2 * (torch.arange(n) % 2)),
        "one": 1e3 * first,
        "one among small ones": beside(1e-3),
        # Where nearest rounding, then random rounding, is worst: int8, then int4.
        "half a level of 255": beside(1 / 254),
        "half a level of 15": beside(1 / 14),
        "below a level of 15": beside(uniform_worst(n, 15)),
        "below a level of 255": beside(uniform_worst(n, 255)),
        "four thirds": 4 / 3 * 2.0 ** torch.randint(-20, 20, (n,), generator=draws),
        "ramp": torch.linspace(-1, 2, n),
        "tiny": 1e-30 * noise,
        "large": 1e17 * noise,
        "zeros": torch.zeros(n),
    }


def uniform_worst(n: int, levels: int) -> float:
    """The entry that random rounding serves worst, beside one at the scale and n - 2 like it: it
    makes ``(n - 1) x (step - x) / (1 + (n - 1) x^2)`` largest."""
    step = 2 / (levels - 1)
    grid = torch.linspace(0, step, 2001, dtype=torch.float64)
    worst = (n - 1) * grid * (step - grid) / (1 + (n - 1) * grid**2)
    return float(grid[worst.argmax()])


def error(decoded: Tensor, vector: Tensor) -> float:
    """``||decoded - vector||^2 / ||vector||^2``; 0 for zeros that stay zeros."""
    wrong = float((decoded.double() - vector.double()).square().sum())
    norm = float(vector.double().square().sum())
    return wrong / norm if norm else wrong
