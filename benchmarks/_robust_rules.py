"""The rules that ByzFL has, as Tacit and as ByzFL call them, and what they are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tacit.aggregators import (
    ARC,
    CAF,
    MDA,
    NNA,
    NNM,
    SMEA,
    Bucketing,
    CenteredClipping,
    Clipping,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MultiKrum,
    TrimmedMean,
)
from tacit.rng import torch_stream

Function = Callable[[Tensor], Tensor]


class Rule(NamedTuple):
    """``ours(n, f)`` and ``theirs(byzfl, f)`` make a function of the rows. ``differs``: why the two
    need not agree, else empty. ``vectors``: whether it makes new rows, not one vector."""

    ours: Callable[[int, int], Function]
    theirs: Callable[[Any, int], Function]
    differs: str = ""
    vectors: bool = False


def _cloned(make: Callable[[Any, int], Function]) -> Callable[[Any, int], Function]:
    """ByzFL's clipping writes into the caller's rows; Tacit's leaves them as they are."""
    return lambda byzfl, f: lambda rows: make(byzfl, f)(rows.clone())


#: Krum and Multi-Krum: ByzFL takes n - f - 1 neighbours. Its centred clipping keeps its last result
#: and starts at 0: a fresh one for each call.
RULES: dict[str, Rule] = {
    "mean": Rule(lambda n, f: Mean(), lambda b, f: b.Average()),
    "median": Rule(lambda n, f: Median(f), lambda b, f: b.Median()),
    "trimmed_mean": Rule(lambda n, f: TrimmedMean(f), lambda b, f: b.TrMean(f)),
    "meamed": Rule(lambda n, f: Meamed(f), lambda b, f: b.Meamed(f)),
    "geometric_median": Rule(
        lambda n, f: GeometricMedian(f),
        lambda b, f: b.GeometricMedian(),
        differs="3 rounds from 0; here as many as it takes",
    ),
    "krum": Rule(lambda n, f: Krum(f, neighbours=n - f - 1), lambda b, f: b.Krum(f)),
    "multi_krum": Rule(
        lambda n, f: MultiKrum(f, neighbours=n - f - 1), lambda b, f: b.MultiKrum(f)
    ),
    "centered_clipping": Rule(
        lambda n, f: CenteredClipping(100.0, start="zero", f=f),
        lambda b, f: lambda rows: b.CenteredClipping(tau=100.0)(rows),
    ),
    "mda": Rule(lambda n, f: MDA(f), lambda b, f: b.MDA(f)),
    "nna": Rule(lambda n, f: NNA(f), lambda b, f: b.MoNNA(f, idx=0)),
    "caf": Rule(
        lambda n, f: CAF(f), lambda b, f: b.CAF(f), differs="a random power step; here exact"
    ),
    "smea": Rule(
        lambda n, f: SMEA(f), lambda b, f: b.SMEA(f), differs="a random power step; here exact"
    ),
    "nnm": Rule(lambda n, f: NNM(f, Mean()).mixed, lambda b, f: b.NNM(f), vectors=True),
    "bucketing": Rule(
        lambda n, f: Bucketing(Mean(), s=2, f=f).mixed,
        lambda b, f: b.Bucketing(2),
        differs="other random groups",
        vectors=True,
    ),
    "clipping": Rule(
        lambda n, f: Clipping(Mean(), 2.0, f=f).mixed,
        _cloned(lambda b, f: b.Clipping(2.0)),
        vectors=True,
    ),
    "arc": Rule(lambda n, f: ARC(f, Mean()).mixed, _cloned(lambda b, f: b.ARC(f)), vectors=True),
}  # fmt: skip


def bad(name: str, n: int) -> int:
    """f: a fifth of n; of 50, 2 where ByzFL looks at every subset."""
    return 2 if name in ("mda", "smea") and n == 50 else n // 5


def noise(n: int, d: int) -> Tensor:
    """Standard Gaussian rows."""
    return torch.randn(n, d, generator=torch_stream(0, "robust", n, d))


def senders(n: int, f: int, d: int) -> Tensor:
    """A common vector and noise of another size in each row, between 0.8 and 1.2; in the last f, 3
    and more. So which vectors are nearest does not hang on rounding, and there is one best subset
    only. The first row has the smallest noise."""
    draws = torch_stream(1, "robust", n, f, d)
    sizes = torch.cat([torch.linspace(0.8, 1.2, n - f), 3 + 0.5 * torch.arange(f)])
    common = torch.randn(d, generator=draws)
    return common + sizes[:, None] * torch.randn(n, d, generator=draws)


def models(trial: int, n: int, outliers: int, d: int) -> Tensor:
    """A common vector of norm 1 and noise of norm 1e-5, in the last rows 3e-5."""
    draws = torch_stream(2, "robust", trial, n, d)
    sizes = torch.full((n, 1), 1e-5)
    sizes[n - outliers :] *= 3
    common = torch.randn(d, generator=draws)
    return common / common.norm() + sizes * torch.randn(n, d, generator=draws) / d**0.5
