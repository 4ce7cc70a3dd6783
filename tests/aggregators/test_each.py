"""What each of several workers makes of the rows it holds, at once and one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from aggregators.listed import RULES, F, N
from tacit.aggregators import Mean, Median, PeerRule, Robust, aggregator
from tacit.aggregators.base import Aggregator
from tacit.aggregators.points import Points
from tacit.errors import TrainingDiverged, UserError
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


def make(name: str) -> Robust:
    return RULES[name].make(1 if "bulyan" in name else F)  # it needs 4 f + 3 rows


every = pytest.mark.parametrize("name", RULES)


@every
@pytest.mark.parametrize("outlier", [3.0, 1e6])
def test_all_at_once_is_one_by_one(name: str, outlier: float) -> None:
    rule = make(name)
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


@every
def test_what_is_drawn_follows_from_the_rows_held(name: str) -> None:
    """Not from those of others, nor from how many workers share a process."""
    rule = make(name)
    rows, held, own = situation()
    before = rule.each(rows, held[:2], own[:2])
    rows[10] += 1  # neither holds it
    torch.testing.assert_close(rule.each(rows, held[:2], own[:2]), before)
    alone = rule.each(rows[held[0]], [np.arange(RECEIVED)], own[:1])
    torch.testing.assert_close(alone, before[:1], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("text", ["dnc:f=2,dimensions=5", "nnm:f=2,then=dnc(dimensions=5)"])
def test_columns_are_drawn_alike(text: str) -> None:
    rule = aggregator(text)
    rows, held, own = situation(1.0)
    together = rule.each(rows, held, own)
    for mixed, indices in zip(together, held, strict=True):
        torch.testing.assert_close(mixed, rule(rows[torch.from_numpy(indices)]))


def refused(rule: Aggregator, *given: Any) -> list[str]:
    """What it says where all workers are in one process, and where each is in its own."""
    said = []
    for several in (slice(None), slice(2, 3)):
        with pytest.raises(UserError) as raised:
            rule.each(given[0], *(what[several] for what in given[1:]))
        said.append(str(raised.value))
        assert "\n" not in said[-1]
    return said


@every
def test_too_many_bad_rows_are_named_alike(name: str) -> None:
    rule = make(name)
    rows, held, own = situation()
    rows[11], rows[12] = torch.nan, torch.inf
    if "bulyan" not in name:
        assert rule.each(rows, held, own).isfinite().all()
    rows[[2, 4, 6]] = torch.nan
    if isinstance(rule, PeerRule):
        own = [0, 0, 0]
    # median and bucketing without f stand four of nine: here there are five
    together, alone = refused(rule, rows, [held[2]] * 3, own)
    assert together == alone
    assert "5 of 9 rows hold NaN or inf or overflow (workers 2, 4, 6, 11)" in together
    senders = [np.array([1, 2, 3, 4, 6, 8, 10, 31, 32])] * 3
    together, alone = refused(rule, rows, [held[2]] * 3, own, senders)
    assert together == alone
    assert "(workers 2, 4, 6, 31, 32)" in together


@every
def test_bad_in_one_column_each_is_bad_too(name: str) -> None:
    """Rules of single coordinates would not notice, were they not to look."""
    rule = make(name)
    rows, held, _ = situation()
    for column, row in enumerate([2, 3, 4, 6, 8]):
        rows[row, column] = torch.nan
    together, alone = refused(rule, rows, [held[2]] * 3, [0, 0, 0])
    assert together == alone
    assert "(workers 2, 3, 4, 6, 8)" in together


@pytest.mark.parametrize("name", ["nna:f={f}", "self_clipping:tau=0.5,rounds=2", "cs_plus:f={f}"])
def test_an_own_row_that_is_bad_is_named(name: str) -> None:
    rows, held, own = situation()
    rows[6] = torch.nan
    own[2] = 4  # where the third worker holds row 6
    together, alone = refused(make(name), rows, held, own)
    assert together == alone
    assert "the own row (worker 6) holds NaN or inf" in together


@every
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.int(), "takes rows (n, d) in float32 or float64"),
        (lambda rows: rows[:, 0], "takes rows (n, d) in float32 or float64"),
        (lambda rows: rows.half(), "takes rows (n, d) in float32 or float64"),
    ],
)
def test_no_rows_are_refused_alike(name: str, change: Any, message: str) -> None:
    rows, held, own = situation()
    together, alone = refused(make(name), change(rows), held, own)
    assert together == alone
    assert message in together


@pytest.mark.parametrize("name", ["nna:f={f}", "multi_krum:f={f}", "nnm:f={f},then=trimmed_mean"])
def test_too_few_rows_are_refused_alike(name: str) -> None:
    rows, held, _ = situation()
    together, alone = refused(make(name), rows, [indices[:4] for indices in held], [0, 0, 0])
    assert together == alone
    assert "rows, not 4" in together


def test_what_is_too_large_is_refused_alike() -> None:
    """Finite rows, and what is made of them is not."""

    class Doubled(Median):
        def reduce(self, points: Points) -> torch.Tensor:
            return 2 * super().reduce(points)

    rows, held, own = situation()
    rows[:] = 3e38
    together, alone = refused(Doubled(2), rows, held, own)
    assert together == alone == "doubled: the rows are too large for torch.float32; scale them"


def test_a_mean_says_who_sent_nan() -> None:
    rows, held, own = situation()
    rows[[3, 12], 5] = torch.nan
    with pytest.raises(TrainingDiverged, match=r"not finite: workers 3, 12 sent NaN or inf; lower"):
        Mean().each(rows, held, own)
    with pytest.raises(TrainingDiverged, match=r"not finite: workers 31, 40 sent"):
        Mean().each(rows, held[:1], own[:1], [np.array([0, 1, 2, 31, 4, 5, 6, 7, 40])])
    assert Mean().each(rows, [np.array([0, 1, 2])], [0]).isfinite().all()

    class Sum(Aggregator):
        def __call__(self, rows: torch.Tensor, weights: object = None) -> torch.Tensor:
            return rows.sum(dim=0)

    rows[:] = 3e38
    with pytest.raises(TrainingDiverged, match="the numbers are too large"):
        Sum().each(rows, held, own)
