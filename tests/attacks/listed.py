"""Every attack once, and what each keeps to."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tacit.aggregators import aggregator
from tacit.attacks import Attack, Sight, attack
from tacit.rng import torch_stream


class Listed(NamedTuple):
    """``ordered``: whether the order of the honest workers matters. ``finite``: the vectors are."""

    text: str
    ordered: bool = False
    finite: bool = True

    def make(self) -> Attack:
        return attack(self.text)


#: A new attack is tested by a line here.
LISTED = {
    listed.text: listed
    for listed in (
        Listed("sign_flip"),
        Listed("foe"),
        Listed("foe:search=true"),
        Listed("alie"),
        Listed("alie:z=1.5"),
        Listed("alie:search=true"),
        Listed("label_flip"),
        Listed("mimic", ordered=True),
        Listed("mimic:worker=1", ordered=True),
        Listed("mimic:learn=true"),
        Listed("gaussian"),
        Listed("gaussian:scale=20"),
        Listed("min_max"),
        Listed("min_sum"),
        Listed("dissensus"),
        Listed("spectral", ordered=True),
        Listed("inf", finite=False),
        Listed("nan", finite=False),
        Listed("huge"),
        Listed("silence", finite=False),
        Listed("inflate"),
        Listed("deflate"),
        Listed("deflate:along=true"),
    )
}


def gaussian(honest: int, d: int, name: str = "honest", dtype: Any = torch.float32) -> Tensor:
    """Rows of a common part of norm 5 or so, and a spread of 1."""
    draws = torch_stream(honest, name, d)
    common = torch.randn(d, generator=draws, dtype=torch.float64) * 5 / d**0.5
    apart = torch.randn(honest, d, generator=draws, dtype=torch.float64) / d**0.5
    return (common + apart).to(dtype)


def seen(honest: Tensor, liars: int = 2, rule: str = "geometric_median", **rest: Any) -> Sight:
    """A sight in which every attack works."""
    known = {"kind": "model", "step": 3, "seed": 7, "peers": True, "poisoned": -honest, **rest}
    return Sight(honest, liars, rule=aggregator(rule), **known)
