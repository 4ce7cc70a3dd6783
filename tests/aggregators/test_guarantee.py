"""What is found of kappa, alpha and lambda: against bounds, and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tacit.aggregators import (
    CAF,
    MDA,
    NNA,
    NNM,
    SMEA,
    Aggregator,
    CSPlus,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MultiKrum,
    Robust,
    SelfClipping,
    TrimmedMean,
)
from tacit.aggregators.guarantees import kappa, quoted, reduction
from tacit.aggregators.robust import equal_shares
from tacit.errors import UserError

#: Fewer inputs than the default, for speed.
SMALL = {"draws": 1, "steps": 30, "dimensions": (1, 3)}


def rules(f: int) -> dict[str, Robust]:
    return {
        "median": Median(f),
        "trimmed_mean": TrimmedMean(f),
        "meamed": Meamed(f),
        "geometric_median": GeometricMedian(f),
        "krum": Krum(f),
        "multi_krum": MultiKrum(f),
        "mda": MDA(f),
        "smea": SMEA(f),
        "caf": CAF(f),
        "nnm, median": NNM(f, Median(f)),
        "nnm, krum": NNM(f, Krum(f)),
    }


@pytest.mark.parametrize("name", list(rules(1)))
@pytest.mark.parametrize(("n", "f"), [(7, 2), (12, 3), (16, 3)])
def test_kappa_lies_between_its_bounds(name, n, f):
    found = kappa(rules(f)[name], n, f, **SMALL)
    # f senders say 1, all others 0: the rule must say 0
    assert found.line == pytest.approx(f / (n - 2 * f), rel=1e-12)
    assert found.lower == f / (n - 2 * f)
    assert found.found >= found.lower * (1 - 1e-12)
    assert found.found == max(found.families.values())
    assert found.families[found.family] == pytest.approx(found.found, rel=1e-8)
    if found.quoted is not None:
        assert found.found <= found.quoted


class Constant(Aggregator):
    def __call__(self, rows, weights=None):
        return torch.zeros(rows.shape[1], dtype=rows.dtype)


class Last(Aggregator):
    """Believes a bad one."""

    def __call__(self, rows, weights=None):
        return rows[-1].clone()


def test_rules_without_a_bound_are_found_out():
    mean = kappa(Mean(), 10, 2, **SMALL)
    assert mean.line == math.inf  # n - f vectors are 0, the mean is not
    assert mean.found == math.inf
    assert mean.quoted is None
    assert kappa(Last(), 10, 2, **SMALL).found == math.inf
    # of two clusters the sets around the far one are far from 0, whatever their variance
    assert kappa(Constant(), 10, 2, **SMALL).found > 1


def ratio(rule: Aggregator, rows: np.ndarray, f: int) -> float:
    """By definition, over all sets."""
    n, out = len(rows), rule(torch.from_numpy(rows)).numpy()
    worst = 0.0
    for chosen in itertools.combinations(range(n), n - f):
        some = rows[list(chosen)]
        mean = some.mean(0)
        worst = max(worst, float(((out - mean) ** 2).sum() / ((some - mean) ** 2).sum(1).mean()))
    return worst


@pytest.mark.parametrize("name", ["median", "krum", "caf"])
def test_the_reported_input_has_the_reported_ratio(name):
    found = kappa(rules(2)[name], 8, 2, seed=3, **SMALL)
    assert ratio(rules(2)[name], found.rows, 2) == pytest.approx(found.found, rel=1e-6)


def test_kappa_is_a_function_of_the_seed():
    first, second = (kappa(Median(3), 16, 3, seed=5, **SMALL) for _ in range(2))
    assert first.families == second.families
    assert (first.rows == second.rows).all()
    other = kappa(Median(3), 16, 3, seed=6, **SMALL)
    assert other.families != first.families


def test_quoted_bounds_by_hand():
    assert quoted(TrimmedMean(2), 10, 2) == pytest.approx(6 / 3 * 4 / 3)
    assert quoted(Krum(2), 10, 2) == pytest.approx(6 * 4 / 3)
    assert quoted(Median(), 10, 2) == pytest.approx(4 * 16 / 9)
    assert quoted(GeometricMedian(), 10, 2) == pytest.approx(4 * 16 / 9)
    assert quoted(NNM(2, TrimmedMean(2)), 10, 2) == pytest.approx(2 * (1 + 8 / 3))
    assert quoted(MultiKrum(2), 10, 2) is None
    assert quoted(TrimmedMean(3), 10, 2) is None  # quoted for what it trims
    assert quoted(NNM(2, MDA(2)), 10, 2) is None


@pytest.mark.parametrize(
    ("rule", "n", "f", "words"),
    [
        (NNA(2), 10, 2, "among peers"),
        (Median(), 4, 2, "1 <= f < n / 2"),
        (Median(), 4, 0, "1 <= f < n / 2"),
        (TrimmedMean(1), 10, 2, "stands 1 of 10"),
        (Krum(4), 10, 4, "at least 11 rows"),
    ],
)
def test_kappa_refuses(rule, n, f, words):
    with pytest.raises(UserError, match=words):
        kappa(rule, n, f)


# -- among peers


@pytest.mark.parametrize(("n", "f"), [(7, 2), (12, 2), (24, 2), (16, 5)])
def test_nna_keeps_its_invariant(n, f):
    found = reduction(NNA(f), n, f, draws=60)
    assert found.invariant is not None
    assert 0.5 < found.invariant <= 1 + 1e-9  # the attacks come near to it
    assert found.alpha == max(alpha for alpha, _ in found.families.values())
    assert found.bias == max(bias for _, bias in found.families.values())
    assert found.families[found.alpha_family][0] == found.alpha
    assert found.families[found.bias_family][1] == found.bias


def test_mixing_contracts_with_few_liars_and_not_where_most_may_lie():
    many = reduction(NNA(1), 13, 1, draws=90)
    assert many.quoted == pytest.approx(9.88 / 11.88)
    assert many.alpha < many.quoted
    few = reduction(NNA(2), 7, 2, draws=90)
    assert few.quoted is None
    assert few.alpha > 1


class Keep(CSPlus):
    """Everybody keeps its own."""

    def shares(self, points):
        return equal_shares(points.n, np.array([points.pivot]))


class Believe(CSPlus):
    """Everybody believes what comes second: a bad one."""

    def shares(self, points):
        return equal_shares(points.n, np.array([1]))


def test_reduction_of_rules_known_by_hand():
    keep = reduction(Keep(2), 12, 2, draws=45)
    assert keep.alpha == pytest.approx(1)
    assert keep.bias == pytest.approx(0, abs=1e-20)
    assert keep.invariant is None
    assert keep.quoted is None
    assert reduction(Believe(2), 12, 2, draws=45).bias > 100


@pytest.mark.parametrize("rule", [TrimmedMean(2), GeometricMedian(2), Median(), SelfClipping(1.0)])
def test_reduction_of_rules_that_are_not_nna(rule):
    found = reduction(rule, 24, 2, draws=45)
    assert 0 < found.alpha < 1.5
    assert 0 < found.bias < 1
    assert found.invariant is None
    assert found.quoted is None


def test_reduction_is_a_function_of_the_seed():
    first, second, other = (reduction(CSPlus(2), 12, 2, draws=45, seed=s) for s in (1, 1, 2))
    assert first == second
    assert first.families != other.families


def test_reduction_refuses():
    with pytest.raises(UserError, match="at least 5 rows, not 4"):
        reduction(NNA(2), 6, 2)
    with pytest.raises(UserError, match="stands 1"):
        reduction(NNA(1), 12, 2)
    for f, draws in ((0, 10), (2, 0)):
        with pytest.raises(UserError, match="f >= 1 and draws >= 1"):
            reduction(NNA(2), 12, f, draws=draws)
