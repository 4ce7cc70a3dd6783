"""What each of several workers makes of the rows it holds, at once and one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aggregators.listed import RULES, F, N
from tacit.aggregators import Mean, PeerRule
from tacit.aggregators.base import Aggregator
from tacit.errors import UserError
from tacit.rng import torch_stream

RECEIVED = 9


def situation(outlier: float = 3.0) -> tuple[torch.Tensor, list[np.ndarray], list[int]]:
    """Rows of honest workers and liars, and which of them three workers hold; the last got one row
    twice."""
    rows = 5 + torch.randn(N + 2, 40, generator=torch_stream(1, "each"))
    rows[-F:] *= outlier
    held = [
        np.array([0, 1, 2, 3, 4, 5, 6, 11, 12]),
        np.array([0, 2, 3, 5, 7, 8, 9, 11, 12]),
        np.array([1, 2, 3, 4, 6, 8, 10, 11, 11]),
    ]
    return rows, held, [0, 4, 6]


# what bucketing draws depends on the rows it is given; Bulyan needs more of them
@pytest.mark.parametrize("name", [n for n in RULES if "bucketing" not in n and "bulyan" not in n])
@pytest.mark.parametrize("outlier", [3.0, 1e6])
def test_all_at_once_is_one_by_one(name: str, outlier: float) -> None:
    rule = RULES[name].make()
    rows, held, own = situation(outlier)
    before = rows.clone()
    together = rule.each(rows, held, own)
    for mixed, indices, place in zip(together, held, own, strict=True):
        pivot = {"pivot": place} if isinstance(rule, PeerRule) else {}
        alone = rule(rows[torch.from_numpy(indices)], **pivot)
        torch.testing.assert_close(mixed, alone, rtol=2e-5, atol=2e-5)
    assert torch.equal(rows, before)


def test_one_worker_alone() -> None:
    rule = RULES["nna:f={f}"].make()
    rows, held, own = situation()
    every = rule.each(rows, held, own)
    torch.testing.assert_close(rule.each(rows, held[:1], own[:1])[0], every[0])


def test_a_mean_has_no_pivot() -> None:
    rows, held, own = situation()
    made = Mean().each(rows, held, own)
    torch.testing.assert_close(made[1], rows[torch.from_numpy(held[1])].mean(dim=0))


@pytest.mark.parametrize("name", ["nna:f={f}", "trimmed_mean:f={f}", "geometric_median:f={f}"])
def test_bad_rows_count_for_each_worker(name: str) -> None:
    rule: Aggregator = RULES[name].make()
    rows, held, own = situation()
    rows[11], rows[12] = torch.nan, torch.inf
    assert rule.each(rows, held, own).isfinite().all()
    rows[2] = torch.nan
    with pytest.raises(UserError, match="NaN or inf"):
        rule.each(rows, held, own)
