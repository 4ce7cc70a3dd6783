"""Every robust rule once, and what each keeps to."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tacit.aggregators import Robust, aggregator
from tacit.rng import torch_stream

#: Rows, and how many of them may be anything.
N, F = 11, 2


class Rule(NamedTuple):
    """``text``: with ``{f}`` for f. ``moves``, ``scales``: with the rows. ``ordered``: whether the
    order of senders matters. ``mean``: what f = 0 gives. ``weighted``: unequal weights are taken.
    ``agrees``: n - f equal rows give that row. ``reach``: how far f senders move it from the honest
    mean, in honest spreads; None: by something else."""

    text: str
    moves: bool = True
    scales: bool = True
    ordered: bool = False
    mean: bool = False
    weighted: bool = False
    agrees: bool = True
    reach: float | None = 3.0

    def make(self, f: int = F) -> Robust:
        made = aggregator(self.text.format(f=f))
        assert isinstance(made, Robust)
        return made


#: A new rule is tested by a line here.
RULES = {
    rule.text: rule
    for rule in (
        Rule("median:f={f}"),
        Rule("median", reach=5.0),
        Rule("trimmed_mean:f={f}", mean=True),
        Rule("meamed:f={f}", mean=True),
        Rule("geometric_median:f={f}", weighted=True),
        Rule("krum:f={f}"),
        Rule("krum:f={f},neighbours=3"),
        Rule("multi_krum:f={f}", mean=True),
        Rule("multi_krum:f={f},m=2"),
        Rule("bulyan:f={f}", mean=True),
        Rule("mda:f={f}", mean=True),
        Rule("smea:f={f}", mean=True),
        Rule("caf:f={f}", mean=True),
        # it sees one direction: no bound where outliers are of different sizes
        Rule("dnc:f={f}", mean=True, reach=None),
        Rule("cge:f={f}", moves=False, mean=True, agrees=False, reach=None),
        Rule("ctma:f={f},first=median", mean=True),
        Rule("centered_clipping:tau=0.5", scales=False, weighted=True, agrees=False),
        Rule("centered_clipping:tau=0.5,rounds=3,f={f}", scales=False, weighted=True, agrees=False),
        Rule(
            "centered_clipping:tau=2,start=zero",
            moves=False,
            scales=False,
            weighted=True,
            agrees=False,
            reach=None,
        ),
        # of one worker: its own row is row 0
        Rule("nna:f={f}", ordered=True, mean=True),
        Rule("cs_plus:f={f}", ordered=True, mean=True, weighted=True),
        Rule(
            "self_clipping:tau=0.5,rounds=2",
            ordered=True,
            scales=False,
            weighted=True,
            agrees=False,
        ),
        Rule("nnm:f={f},then=trimmed_mean", mean=True),
        Rule("nnm:f={f},then=krum"),
        Rule("nnm:f={f},then=geometric_median"),
        Rule("nnm:f={f},then=caf", mean=True),
        Rule("nnm:f={f},then=dnc", mean=True, reach=None),
        Rule("nnm:f={f},then=centered_clipping(tau=0.5)", scales=False, agrees=False),
        Rule("bucketing:s=2,then=trimmed_mean(f={f})", ordered=True, agrees=False),
        Rule("bucketing:s=2,f={f},then=median", ordered=True, agrees=False),
        Rule("arc:f={f},then=trimmed_mean", moves=False),
        Rule("arc:f={f},then=nnm(then=multi_krum)", moves=False),
        Rule("clipping:tau=50,then=trimmed_mean(f={f})", moves=False, scales=False),
        Rule("clipping:tau=50,then=bulyan(f={f})", moves=False, scales=False),
    )
}


def gaussian(n: int = N, d: int = 37, name: str = "rows", dtype: Any = torch.float32) -> Tensor:
    """Of a common part of norm 5 or so."""
    draws = torch_stream(n, name, d)
    common = torch.randn(d, generator=draws) * 5 / d**0.5
    return (common + torch.randn(n, d, generator=draws) / d**0.5).to(dtype)


def models(n: int, d: int) -> Tensor:
    """Rows that differ by some 1e-5 of their norm, each by another amount."""
    draws = torch_stream(n, "models", d)
    common = torch.randn(d, generator=draws)
    spread = torch.linspace(0.5, 2, n)[:, None] * 1e-5
    return common + spread * torch.randn(n, d, generator=draws)


def squared_distances(rows: Tensor) -> Tensor:
    """In float64, directly."""
    wide = rows.double()
    return torch.stack([(wide - row).square().sum(1) for row in wide])
