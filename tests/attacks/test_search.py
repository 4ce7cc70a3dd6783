"""The line search."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.attacks import maximise


def tries(function: Callable[[float], float], **options: float) -> tuple[float, list[float]]:
    tried: list[float] = []

    def recorded(x: float) -> float:
        tried.append(x)
        return function(x)

    return maximise(recorded, **options), tried


def test_by_hand():
    best, tried = tries(lambda x: -((x - 2.5) ** 2))
    # expansion: 1 and 3 are better, 7 is not; contraction: 4 shrinks to 3.2, 2.56, 2.048, ...
    assert tried[:7] == pytest.approx([0, 1, 3, 7, 3.8, 1.24, 3.288])
    assert best == pytest.approx(2.5, abs=0.2)


def test_it_stays_at_zero_or_above():
    best, tried = tries(lambda x: -x)
    assert best == 0
    # 0.2 - 0.64 is negative, and so is halfway back, -0.12: halfway again
    assert tried[:4] == pytest.approx([0, 1, 0.2, 0.04])
    assert min(tried) >= 0


def test_fifteen_successes():
    assert maximise(lambda x: x) == 2**15 - 1
    assert maximise(lambda x: x, evaluations=4, start=2, delta=0.5) == 2 + 0.5 + 1 + 2


def test_equal_is_not_better():
    assert maximise(lambda x: 4.0) == 0
    assert maximise(lambda x: min(x, 3.0)) == 3


def test_nan_is_not_better():
    assert maximise(lambda x: math.nan) == 0
    assert maximise(lambda x: x if x < 2 else math.nan) < 2


@pytest.mark.parametrize("peak", [0.05, 0.3, 1.5, 4.0, 11.0, 50.0])
def test_near_a_single_peak(peak: float) -> None:
    found = maximise(lambda x: -abs(x - peak))
    assert found == pytest.approx(peak, rel=0.3, abs=0.1)


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=40, max_size=40),
    evaluations=st.integers(1, 40),
)
def test_the_best_of_so_many_tries(values: list[float], evaluations: int) -> None:
    """Of any function, here of one that does not even know x."""
    given_out: dict[float, float] = {}
    left = iter(values)

    def function(x: float) -> float:
        assert x >= 0
        return given_out.setdefault(x, next(left))

    best = maximise(function, evaluations)
    assert len(list(left)) == 40 - evaluations
    assert given_out[best] == max(given_out.values())
