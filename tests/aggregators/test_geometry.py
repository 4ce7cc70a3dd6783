"""Geometric median, clipping, filters and the rules before rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.aggregators import (
    ARC,
    CAF,
    NNM,
    SMEA,
    Bucketing,
    CenteredClipping,
    Clipping,
    CSPlus,
    DnC,
    GeometricMedian,
    Mean,
    Robust,
    SelfClipping,
    aggregator,
)
from tacit.aggregators.points import Points
from tacit.errors import UserError
from tacit.rng import numpy_stream

from .listed import gaussian

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=25)


def some_rows(seed: int, n: int, d: int = 4) -> torch.Tensor:
    return torch.from_numpy(numpy_stream(seed, "rows").standard_normal((n, d))) + 1


# -- geometric median


def test_geometric_median_by_hand():
    corner = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    torch.testing.assert_close(GeometricMedian()(corner), torch.ones(2))
    # of a triangle with an angle of more than 120 degrees: that corner
    flat = torch.tensor([[0.0, 0.0], [-5.0, 1.0], [5.0, 1.0]])
    torch.testing.assert_close(GeometricMedian()(flat), torch.zeros(2), atol=1e-4, rtol=0)
    weights = torch.tensor([1.0, 1, 3])
    torch.testing.assert_close(GeometricMedian()(flat, weights), flat[2], atol=1e-4, rtol=0)


@few
@given(seed=SEEDS, n=st.integers(3, 12), power=st.sampled_from([0, 2, 8, 30]))
def test_the_pulls_on_the_geometric_median_balance(seed, n, power):
    rows = some_rows(seed, n)
    rows[:1] *= 10.0**power
    found = GeometricMedian()(rows)
    pulls = rows - found
    lengths = pulls.norm(dim=1, keepdim=True)
    if float(lengths.min()) > 1e-3:
        assert float((pulls / lengths).sum(0).norm()) < 1e-3
    else:  # at a vector: the others pull no more than that one holds
        others = lengths[:, 0] > 1e-3
        assert float((pulls[others] / lengths[others]).sum(0).norm()) < 1 + 1e-3


def test_geometric_median_refuses():
    for options in ({"nu": 0.0}, {"nu": 2.0}, {"tolerance": 0.0}):
        with pytest.raises(UserError, match="between 0 and 1"):
            GeometricMedian(**options)


# -- clipping


def clipped(rows: torch.Tensor, centre: torch.Tensor, tau: float) -> torch.Tensor:
    away = rows - centre
    return away * (tau / away.norm(dim=1, keepdim=True)).clamp(max=1)


@few
@given(seed=SEEDS, n=st.integers(1, 9), tau=st.floats(0.01, 5), rounds=st.integers(1, 4))
def test_clipping_as_defined(seed, n, tau, rounds):
    rows = some_rows(seed, n)
    starts = {
        CenteredClipping(tau, rounds, "zero"): torch.zeros(4).double(),
        CenteredClipping(tau, rounds): rows.sort(dim=0).values[(n - 1) // 2 : n // 2 + 1].mean(0),
        SelfClipping(tau, rounds): rows[0],
    }
    for rule, centre in starts.items():
        expected = centre
        for _ in range(rounds):
            expected = expected + clipped(rows, expected, tau).mean(0)
        torch.testing.assert_close(rule(rows), expected)


def test_no_sender_moves_a_clipped_mean_by_more_than_tau():
    rows = gaussian(10, 20)
    before = CenteredClipping(0.5, start="zero")(rows)
    for value in (3e38, -3e38, torch.nan, torch.inf):
        rows[3] = value
        moved = CenteredClipping(0.5, start="zero")(rows) - before
        assert float(moved.norm()) <= 2 * 0.5 / 10 + 1e-6
    rows[3] = torch.nan
    assert CenteredClipping(float("inf"), start="zero")(rows).isfinite().all()


def test_cs_plus_by_hand():
    rows = torch.tensor([[0.0], [1.0], [-2.0], [4.0], [9.0]])
    # 5 - 2 f = 3 vectors lie within 2: 0, 1, -2, 2, 2
    assert CSPlus(1)(rows).tolist() == [pytest.approx(0.6)]
    assert CSPlus(2)(rows).tolist() == [0.0]  # only its own within 0
    assert CSPlus(0)(rows).tolist() == [pytest.approx(2.4)]
    # weights 0.1, 0.2, 0.3, 0.2, 0.2: 1 - 2 x 0.3 = 0.4 reaches to 1
    weights = torch.tensor([1.0, 2, 3, 2, 2])
    assert CSPlus(1)(rows, weights).tolist() == [pytest.approx(0.2 - 0.3 + 0.2 + 0.2)]


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
def test_radii_that_are_none(tau):
    for make in (CenteredClipping, SelfClipping, lambda tau: Clipping(Mean(), tau)):
        with pytest.raises(UserError, match="tau > 0"):
            make(tau)
    with pytest.raises(UserError, match="median or zero"):
        CenteredClipping(start="mean")


# -- filters


def covariance_top(values: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """In the space of the vectors, not of the senders."""
    mean = weights @ values / weights.sum()
    away = values - mean
    top, vectors = np.linalg.eigh((weights[:, None] * away).T @ away / weights.sum())
    return float(top[-1]), mean, (away @ vectors[:, -1]) ** 2


@few
@given(seed=SEEDS, f=st.integers(0, 3), more=st.integers(1, 6), far=st.floats(0, 50))
def test_caf_as_defined(seed, f, more, far):
    values = some_rows(seed, 2 * f + more, d=5).numpy()
    values[:f] += far
    left = np.ones(len(values))
    best, expected = np.inf, values.mean(0)
    while left.sum() > len(values) - 2 * f:
        top, mean, projections = covariance_top(values, left)
        if top < best:
            best, expected = top, mean
        left = left * (1 - projections / projections[left > 0].max())
        left = left.clip(0)
    np.testing.assert_allclose(CAF(f)(torch.from_numpy(values)), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "f"), [(33, 7), (50, 10)])
def test_caf_drops_equal_vectors_in_the_same_round(n, f):
    """Though their projections, as computed, may differ by rounding."""
    for seed in range(15):
        rows = some_rows(seed, n, d=100)
        rows[-f:] = rows.mean(0) + rows[0]
        assert (CAF(f).shares(Points(rows, f))[-f:] == 0).all()


@few
@given(seed=SEEDS, n=st.integers(3, 9), data=st.data())
def test_smea_as_defined(seed, n, data):
    f = data.draw(st.integers(0, (n - 1) // 2))
    values = some_rows(seed, n).numpy()
    subsets = [list(s) for s in itertools.combinations(range(n), n - f)]
    tops = [covariance_top(values[s], np.ones(len(s)))[0] for s in subsets]
    if n - f > 1:
        best = subsets[int(np.argmin(tops))]
        np.testing.assert_allclose(SMEA(f)(torch.from_numpy(values)), values[best].mean(0))


def test_smea_refuses_too_many_subsets():
    with pytest.raises(
        UserError, match=r"smea with f=10 of 50 rows would look at 1.03e\+10 subsets"
    ):
        SMEA(10).check(50)
    SMEA(4).check(20)


@few
@given(seed=SEEDS, f=st.integers(0, 3), more=st.integers(1, 6))
def test_dnc_as_defined(seed, f, more):
    """Of fewer numbers than it looks at, there is one draw: all."""
    values = some_rows(seed, 2 * f + more, d=7).numpy()
    _, _, projections = covariance_top(values, np.ones(len(values)))
    kept = np.argsort(projections)[: len(values) - f]
    np.testing.assert_allclose(DnC(f)(torch.from_numpy(values)), values[kept].mean(0))


def test_dnc_looks_at_some_coordinates_and_keeps_those_always_kept():
    rows = gaussian(12, 400)
    rows[:3] += 1
    rule = DnC(3, dimensions=50)
    torch.testing.assert_close(rule(rows), rows[3:].mean(0))
    # where nothing stands out, several draws keep fewer than one does
    kept = [int((DnC(3, rounds, 50).shares(Points(rows[3:], 3)) > 0).sum()) for rounds in (1, 5)]
    assert kept[0] == 6
    assert 1 <= kept[1] < 6
    for options in ({"rounds": 0}, {"dimensions": 0}):
        with pytest.raises(UserError, match=">= 1"):
            DnC(1, **options)


# -- before other rules


def plain_nnm(rows: torch.Tensor, f: int) -> torch.Tensor:
    distances = torch.stack([(rows - row).norm(dim=1) for row in rows])
    return torch.stack([rows[row.argsort()[: len(rows) - f]].mean(0) for row in distances])


def plain_arc(rows: torch.Tensor, f: int) -> torch.Tensor:
    n, norms = len(rows), rows.norm(dim=1)
    limit = norms.sort(descending=True).values[int(2 * f / n * (n - f))]
    return rows * (limit / norms).clamp(max=1)[:, None]


THEN = ["trimmed_mean:f={f}", "krum:f={f}", "geometric_median", "caf:f={f}", "mean",
        "dnc:f={f}", "centered_clipping:tau=0.1", "ctma:f={f},first=median"]  # fmt: skip


@pytest.mark.parametrize("kernel", [None, False])
@pytest.mark.parametrize("then", THEN)
def test_a_rule_after_another_sees_the_mixed_vectors(then, kernel):
    f, rows = 2, some_rows(1, 9, d=600)
    inner = aggregator(then.format(f=f))
    if isinstance(inner, Robust):
        inner.kernel = kernel
    for rule, plain in (
        (NNM(f, inner), plain_nnm(rows, f)),
        (ARC(f, inner), plain_arc(rows, f)),
        (Clipping(inner, tau=30.0), clipped(rows, torch.zeros(600), 30.0)),
        (NNM(f, ARC(f, inner)), plain_arc(plain_nnm(rows, f), f)),
        (ARC(f, NNM(f, inner)), plain_nnm(plain_arc(rows, f), f)),
    ):
        rule.kernel = kernel
        torch.testing.assert_close(rule(rows), inner(plain), rtol=1e-9, atol=1e-9)
        if not isinstance(rule.then, (NNM, ARC)):
            torch.testing.assert_close(rule.mixed(rows), plain)


def test_nnm_by_hand():
    rows = torch.tensor([[0.0], [1.0], [3.0], [10.0], [11.0]])
    mixed = NNM(2, Mean()).mixed(rows).flatten().tolist()
    assert mixed == pytest.approx([4 / 3, 4 / 3, 4 / 3, 8.0, 8.0])
    # norms of the mixed: the three smallest are equal
    assert NNM(2, aggregator("cge:f=2"))(rows).tolist() == [pytest.approx(4 / 3)]


@few
@given(seed=SEEDS, n=st.integers(1, 12), s=st.integers(1, 5))
def test_buckets_hold_everybody_once(seed, n, s):
    rule = Bucketing(Mean(), s, seed=seed)
    mix = rule.mix(Points(some_rows(seed, n), 0)).mix
    assert ((mix > 0).sum(0) == 1).all()
    sizes = (mix > 0).sum(1)
    assert (sizes[:-1] == s).all()
    assert 1 <= sizes[-1] <= s
    np.testing.assert_allclose(mix.sum(1), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "rule",
    [Bucketing(Mean(), 3), ARC(2, Mean()), Clipping(Mean(), 5.0)],
    ids=lambda rule: rule.name,
)
def test_new_vectors_compiled_and_plain_agree_and_the_rows_stay(rule, dtype):
    wide = gaussian(11, 20_100, dtype=dtype)
    rows = torch.cat([torch.zeros(11, 3, dtype=dtype), wide], dim=1)[:, 3:]  # not aligned
    rows[4, 17] = torch.inf
    before, found = rows.clone(), []
    rule.f = 1
    for rule.kernel in (None, False):
        found.append(rule.mixed(rows))
        assert torch.equal(rows, before)
        assert torch.equal(rule.mixed(before).nan_to_num(), found[-1].nan_to_num())
    assert found[0].dtype == dtype
    torch.testing.assert_close(*found, rtol=1e-6, atol=0, equal_nan=True)


def test_a_bad_sender_spoils_what_it_is_part_of():
    rows = gaussian(9, 5)
    rows[4] = torch.nan
    mixed = NNM(1, aggregator("median")).mixed(rows)
    assert mixed.isnan().all(1).tolist() == [k == 4 for k in range(9)]
    torch.testing.assert_close(
        mixed[[k for k in range(9) if k != 4]], rows[rows.isfinite().all(1)].mean(0).expand(8, -1)
    )
    groups = Bucketing(aggregator("median"), 2).mixed(rows)
    assert groups.isnan().all(1).sum() == 1
    with pytest.raises(UserError, match="1 of 9 rows hold NaN"):
        Clipping(Mean())(rows)
    with pytest.raises(UserError, match="1 of 9 rows hold NaN"):
        NNM(1, Mean())(rows)


def test_what_may_not_come_after():
    for then in (aggregator("weighted_mean"), aggregator("nna:f=1")):
        with pytest.raises(UserError):
            NNM(1, then)
    with pytest.raises(UserError, match="groups of 1 or more"):
        Bucketing(Mean(), 0)
    with pytest.raises(UserError, match=r"bucketing makes 4 vectors of 8: trimmed_mean with f=2"):
        aggregator("bucketing:f=2,then=trimmed_mean").check(8)
