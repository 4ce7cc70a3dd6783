"""Median, trimmed mean and Meamed, and the sorting networks under them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tacit.aggregators import Meamed, Median, Robust, TrimmedMean
from tacit.aggregators.network import Plan, between, merge_exchange, nearest
from tacit.aggregators.passes import middle_means

# Few different values, so that there are ties, and values of all sizes.
NUMBERS = st.one_of(
    st.sampled_from([-2.0, -1.0, -0.5, 0.0, 1.0, 3.0]), st.floats(-1e6, 1e6, width=32)
)
ROWS = st.integers(1, 12).flatmap(
    lambda n: hnp.arrays(np.float32, (n, 3), elements=NUMBERS).map(torch.from_numpy)
)
KERNELS = pytest.mark.parametrize("kernel", [None, False], ids=["compiled", "plain"])


def ran(rule: Robust, kernel: bool | None, rows: torch.Tensor) -> list[float]:
    rule.kernel = kernel
    return rule(rows).tolist()


@KERNELS
def test_by_hand(kernel):
    rows = torch.tensor([[1.0, 5.0], [2.0, -7.0], [9.0, 0.0], [4.0, 1.0], [3.0, 2.0]])
    assert ran(Median(), kernel, rows) == [3.0, 1.0]
    assert ran(Median(), kernel, rows[:4]) == [3.0, 0.5]
    assert ran(TrimmedMean(1), kernel, rows) == [3.0, 1.0]
    assert ran(TrimmedMean(2), kernel, rows) == [3.0, 1.0]
    # nearest to 3: 3, 2, 4, 1; nearest to 1: 1, 0, 2, 5
    assert ran(Meamed(1), kernel, rows) == [2.5, 2.0]
    assert ran(Meamed(2), kernel, rows) == [3.0, 1.0]


@KERNELS
def test_of_two_values_as_near_meamed_takes_the_lower(kernel):
    rows = torch.tensor([[0.0], [2.0], [4.0], [6.0], [1e9]])
    assert ran(Meamed(2), kernel, rows) == [4.0]
    rows = torch.tensor([[0.0], [2.0], [4.0], [4.0], [6.0], [8.0]])
    assert ran(Meamed(1), kernel, rows) == [pytest.approx(16 / 5)]


def naive_nearest(values: np.ndarray, count: int) -> float:
    values = values.astype(np.float64)
    median = np.median(values)
    chosen = sorted(values, key=lambda x: (abs(x - median), x))[:count]
    return float(np.mean(chosen))


@KERNELS
@given(rows=ROWS, data=st.data())
def test_as_sorting_every_column_does(kernel, rows, data):
    n = len(rows)
    f = data.draw(st.integers(0, (n - 1) // 2))
    values = rows.double().numpy()
    ordered = np.sort(values, axis=0)
    tight = {"rtol": 1e-6, "atol": 1e-30}
    np.testing.assert_allclose(ran(Median(), kernel, rows), np.median(values, 0), **tight)
    trimmed = ordered[f : n - f].mean(0)
    scale = np.abs(ordered[f : n - f]).max(0) * 1e-6 + 1e-30
    assert (np.abs(ran(TrimmedMean(f), kernel, rows) - trimmed) <= scale).all()
    # nearest to the median are others than the middle ones
    scale = np.abs(values).max(0) * 1e-6 + 1e-30
    expected = [naive_nearest(column, n - f) for column in values.T]
    assert (np.abs(np.array(ran(Meamed(f), kernel, rows)) - expected) <= scale).all()


@given(rows=ROWS, data=st.data())
def test_any_number_of_values_nearest_to_the_median(rows, data):
    count = data.draw(st.integers(1, len(rows)))
    out = torch.empty(3)
    middle_means(rows, nearest(len(rows), count), out)
    values = rows.double().numpy()
    expected = [naive_nearest(column, count) for column in values.T]
    scale = np.abs(values).max(0) * 1e-6 + 1e-30
    assert (np.abs(out.numpy() - expected) <= scale).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 33, 50])
@pytest.mark.parametrize("d", [1, 127, 128, 129, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_and_plain_give_the_same_bits(n, d, dtype):
    pytest.importorskip("numba")
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(n * d)).to(dtype)
    rows[n // 2, d // 2] = torch.nan
    for plan in (between(n, n // 3, n - n // 3), nearest(n, n - n // 3), nearest(n, 1)):
        fast, plain = torch.empty(d, dtype=dtype), torch.empty(d, dtype=dtype)
        middle_means(rows, plan, fast, None, True)
        middle_means(rows, plan, plain, None, False)
        assert torch.equal(fast.nan_to_num(7), plain.nan_to_num(7))


def test_chosen_rows_alone_are_read():
    rows = torch.randn(9, 40)
    rows[[0, 4]] = torch.nan
    chosen = np.array([1, 3, 5, 8])
    for kernel in (None, False):
        out = torch.empty(40)
        middle_means(rows, between(4, 1, 3), out, chosen, kernel)
        expected = rows[torch.from_numpy(chosen)].sort(dim=0).values[1:3].double().mean(0)
        torch.testing.assert_close(out, expected.float())


# -- networks


@pytest.mark.parametrize("n", range(1, 13))
def test_the_network_sorts_all_zeros_and_ones(n):
    """Then it sorts everything (Knuth, 5.3.4, theorem Z)."""
    wires = np.array(list(itertools.product([0, 1], repeat=n))).T.copy()
    for i, j in merge_exchange(n):
        assert i < j
        wires[[i, j]] = np.sort(wires[[i, j]], axis=0)
    assert (np.diff(wires, axis=0) >= 0).all()


def test_comparators_as_published():
    """Knuth, 5.3.4: Batcher's network has 5, 19 and 63 comparators for 4, 8 and 16 values."""
    assert [len(merge_exchange(n)) for n in (1, 2, 4, 8, 16)] == [0, 1, 5, 19, 63]


@pytest.mark.parametrize("n", range(1, 11))
def test_pruned_networks_keep_what_is_needed(n):
    for low in range((n - 1) // 2 + 1):
        for plan in (between(n, low, n - low), nearest(n, n - low), nearest(n, low + 1)):
            assert len(plan.first) <= len(merge_exchange(n))
            wires = np.array(list(itertools.product([0, 1], repeat=n))).T.copy()
            for i, j in zip(plan.first, plan.second, strict=True):
                wires[[i, j]] = np.sort(wires[[i, j]], axis=0)
            expected = np.sort(wires, axis=0)
            assert (
                wires[plan.low : plan.high].sum(0) == expected[plan.low : plan.high].sum(0)
            ).all()
            for rank in ordered(plan):
                assert (wires[rank] == expected[rank]).all()


def ordered(plan: Plan) -> set[int]:
    if plan.begin == plan.end:
        return set()
    pairs = range(plan.begin, plan.end)
    middle = {(plan.n - 1) // 2, plan.n // 2}
    return {*pairs, *(j + plan.count for j in pairs), *middle}


def test_pruning_saves_work():
    assert len(between(50, 0, 50).first) == 0
    assert len(between(50, 24, 26).first) < 0.9 * len(merge_exchange(50))
