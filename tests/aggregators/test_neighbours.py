"""Rules that choose senders by distances: Krum, Bulyan, MDA, CGE, NNA, CTMA."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.aggregators import CGE, CTMA, MDA, NNA, Bulyan, Krum, Median, MultiKrum, aggregator
from tacit.aggregators.passes import squared_distances, squared_to
from tacit.aggregators.points import Points
from tacit.aggregators.subsets import least_diameter
from tacit.errors import UserError
from tacit.rng import numpy_stream

from .listed import gaussian, models
from .listed import squared_distances as reference_distances

SEEDS = st.integers(0, 10_000)


def some_rows(seed: int, n: int, d: int = 4) -> torch.Tensor:
    return torch.from_numpy(numpy_stream(seed, "rows").standard_normal((n, d)))


def krum_order(values: np.ndarray, neighbours: int) -> list[int]:
    """One sender after the other, from the definition."""
    scores = []
    for i, x in enumerate(values):
        others = sorted(float(((x - y) ** 2).sum()) for j, y in enumerate(values) if j != i)
        scores.append((sum(others[:neighbours]), others[neighbours:], i))
    return [i for _, _, i in sorted(scores)]


def test_krum_by_hand():
    # n - f - 2 = 2 neighbours: sums of squares 5, 2, 5, 13, 5000..., so the second
    rows = torch.tensor([[0.0], [1.0], [2.0], [4.0], [100.0]])
    assert Krum(1)(rows).tolist() == [1.0]
    assert MultiKrum(1, m=2)(rows).tolist() == [1.5]  # of the two 5s the third, whose next is 4
    assert MultiKrum(1)(rows).tolist() == [1.75]
    assert Krum(1, neighbours=1)(rows).tolist() == [1.0]  # three 1s; next neighbours 4, 1, 4


def test_with_equal_scores_the_next_neighbour_decides():
    # pairs (0, 1) and (1, 2) are the nearest: 1, 1, 1; of all the second has the nearest second
    rows = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    assert Krum(0, neighbours=1)(rows).tolist() == [1.0]
    assert Krum(0, neighbours=1)(rows.flip(0)).tolist() == [1.0]


@settings(max_examples=25)
@given(seed=SEEDS, f=st.integers(0, 3), more=st.integers(0, 4), m=st.integers(1, 4))
def test_krum_as_defined(seed, f, more, m):
    n = 2 * f + 3 + more
    rows = some_rows(seed, n)
    order = krum_order(rows.numpy(), n - f - 2)
    torch.testing.assert_close(Krum(f)(rows), rows[order[0]])
    m = min(m, n - f)
    torch.testing.assert_close(MultiKrum(f, m=m)(rows), rows[order[:m]].mean(0))
    torch.testing.assert_close(MultiKrum(f)(rows), rows[order[: n - f]].mean(0))


@settings(max_examples=25)
@given(seed=SEEDS, f=st.integers(0, 2), more=st.integers(0, 3))
def test_bulyan_as_defined(seed, f, more):
    n = 4 * f + 3 + more
    values = some_rows(seed, n).numpy()
    left, chosen = list(range(n)), []
    while len(chosen) < n - 2 * f:
        best = krum_order(values[left], max(1, len(left) - f - 2))[0]
        chosen.append(left.pop(best))
    kept = np.sort(values[chosen], axis=0)
    expected = []
    for column in kept.T:
        median = np.median(column)
        near = sorted(column, key=lambda x: (abs(x - median), x))[: n - 4 * f]
        expected.append(np.mean(near))
    np.testing.assert_allclose(Bulyan(f)(torch.from_numpy(values)), expected, rtol=1e-9)


# -- MDA


def test_mda_by_hand():
    rows = torch.tensor([[0.0], [3.0], [4.0], [6.0], [50.0]])
    assert MDA(1)(rows).tolist() == [3.25]  # without 50: diameter 6
    assert MDA(2)(rows).tolist() == [pytest.approx(13 / 3)]  # 3, 4, 6: diameter 3


def enumerated(squared: np.ndarray, size: int) -> tuple[float, float]:
    """Of the best subset: its diameter and its sum of squared distances."""
    subsets = itertools.combinations(range(len(squared)), size)
    found = (
        (float(squared[np.ix_(s, s)].max()), float(squared[np.ix_(s, s)].sum())) for s in subsets
    )
    return min(found)


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(3, 11), data=st.data())
def test_mda_finds_the_least_diameter_of_all_subsets(seed, n, data):
    f = data.draw(st.integers(0, (n - 1) // 2))
    squared = reference_distances(some_rows(seed, n, d=2)).numpy()
    kept = least_diameter(squared, f)
    assert len(set(kept.tolist())) == n - f
    inside = squared[np.ix_(kept, kept)]
    diameter, total = enumerated(squared, n - f)
    assert inside.max() == diameter
    assert inside.sum() == pytest.approx(total)


@settings(max_examples=20)
@given(seed=SEEDS, f=st.integers(1, 3))
def test_mda_of_distances_with_many_ties(seed, f):
    rows = torch.from_numpy(numpy_stream(seed, "grid").integers(0, 3, (9, 2)).astype(np.float64))
    squared = reference_distances(rows).numpy()
    kept = least_diameter(squared, f)
    assert len(set(kept.tolist())) == 9 - f
    assert squared[np.ix_(kept, kept)].max() == enumerated(squared, 9 - f)[0]


# -- nearest to something


def test_nna_by_hand():
    rows = torch.tensor([[0.0], [10.0], [1.0], [3.0], [-2.0]])
    assert NNA(2)(rows).tolist() == [pytest.approx(-1 / 3)]
    assert NNA(2)(rows, pivot=1).tolist() == [pytest.approx(14 / 3)]
    assert NNA(1)(rows, pivot=3).tolist() == [0.5]
    assert CGE(1)(rows).tolist() == [0.5]
    assert CGE(3)(torch.cat([rows, rows[:2]])).tolist() == [pytest.approx(-0.25)]


@settings(max_examples=25)
@given(seed=SEEDS, n=st.integers(1, 12), data=st.data())
def test_nearest_as_defined(seed, n, data):
    f, pivot = data.draw(st.integers(0, (n - 1) // 2)), data.draw(st.integers(0, n - 1))
    rows = some_rows(seed, n)

    def mean_of_nearest(point: torch.Tensor) -> torch.Tensor:
        order = sorted(range(n), key=lambda i: float((rows[i] - point).norm()))
        return rows[order[: n - f]].mean(0)

    torch.testing.assert_close(NNA(f)(rows, pivot=pivot), mean_of_nearest(rows[pivot]))
    torch.testing.assert_close(CGE(f)(rows), mean_of_nearest(torch.zeros(4)))
    first = rows.sort(dim=0).values[(n - 1) // 2 : n // 2 + 1].mean(0)
    torch.testing.assert_close(CTMA(f, Median())(rows), mean_of_nearest(first))


@settings(max_examples=40)
@given(seed=SEEDS, f=st.integers(1, 4), more=st.integers(1, 8), far=st.floats(0, 20))
def test_nna_moves_a_worker_no_farther_than_its_peers_are(seed, f, more, far):
    """Each bad vector that is kept is no farther than the honest one in whose place it is."""
    honest = some_rows(seed, f + more)
    bad = honest[:1] + far * some_rows(seed + 1, f)
    found = NNA(f)(torch.cat([honest, bad]))
    farthest = float((honest - honest[0]).norm(dim=1).max())
    moved = float((found - honest.mean(0)).norm())
    assert moved <= 2 * f / len(honest) * farthest * (1 + 1e-9)


def test_the_own_row_is_kept_and_must_be_finite():
    rows = torch.zeros(7, 3)
    rows[6] = 1
    assert NNA(3)(rows, pivot=6).tolist() == [0.25] * 3
    rows[6] = torch.nan
    with pytest.raises(UserError, match=r"own row \(row 6\) holds NaN"):
        NNA(3)(rows, pivot=6)
    for pivot in (-1, 7):
        with pytest.raises(UserError, match="no own row"):
            NNA(3)(rows, pivot=pivot)
    weights = torch.tensor([0.0, 1, 1, 1, 1, 1, 0])
    rows = gaussian(7)
    assert torch.equal(NNA(2)(rows, weights, pivot=3), NNA(2)(rows[1:6], pivot=2))
    with pytest.raises(UserError, match="weight 0"):
        NNA(2)(rows, weights, pivot=6)


# -- distances


@pytest.mark.parametrize("kernel", [None, False])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_distances(n, kernel):
    for d in (1, 15, 1024, 2500):
        rows = gaussian(n, d)
        found = torch.from_numpy(squared_distances(rows, kernel))
        torch.testing.assert_close(found, reference_distances(rows), rtol=3e-7, atol=0)
        to = torch.from_numpy(squared_to(rows, rows[n // 2], kernel))
        torch.testing.assert_close(to, found[n // 2], rtol=3e-7, atol=0)


def test_a_pair_meets_the_same_instructions_wherever_its_rows_lie():
    rows = gaussian(11, 1500)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    found = squared_distances(rows)
    assert (squared_distances(rows[order]) == found[np.ix_(order, order)]).all()
    assert (squared_to(rows[order], rows[5]) == squared_to(rows, rows[5])[order]).all()


def test_huge_tiny_and_bad_rows():
    rows = gaussian(6, 50)
    rows[1], rows[4, 7] = 1e25 * rows[1], -torch.inf
    found = Points(rows, 1)
    assert found.bad.tolist() == [False] * 4 + [True, False]
    good = [0, 1, 2, 3, 5]
    expected = reference_distances(rows[good])
    torch.testing.assert_close(
        torch.from_numpy(found.squared[np.ix_(good, good)]), expected, rtol=3e-7, atol=0
    )
    assert np.isinf(np.delete(found.squared[4], 4)).all()
    rows[5, 3] = torch.nan
    assert np.isinf(np.delete(Points(rows, 2).squared[5], 5)).all()
    assert np.isinf(found.norms[4])
    tiny = gaussian(6, 50) * 1e-22
    torch.testing.assert_close(
        torch.from_numpy(Points(tiny, 0).squared), reference_distances(tiny), rtol=3e-7, atol=0
    )
    wide = gaussian(6, 50).double()
    wide[2] *= 1e200  # its square is no float64
    assert Points(wide, 1).bad.tolist() == [False, False, True, False, False, False]


def test_neighbours_of_nearly_equal_models_are_those_of_float64():
    """26 models of which 5 lie three times as far out: from inner products in float32 some of those
    would be taken for neighbours."""
    rows = models(26, 431_080)
    away = (rows.double() - rows[0].double()).numpy()
    inner = away @ away.T
    wide = np.diagonal(inner)[:, None] + np.diagonal(inner) - 2 * inner
    np.fill_diagonal(wide, 0)
    np.testing.assert_allclose(Points(rows, 5).squared, wide, rtol=1e-6)
    for pivot in (0, 13, 25):
        kept = np.sort(np.argsort(wide[pivot], kind="stable")[:21])
        expected = rows[kept].double().mean(0)
        found = NNA(5)(rows, pivot=pivot)
        assert float((found - expected).norm() / expected.norm()) < 1e-7
    order = np.argsort(np.sort(wide, axis=1)[:, 1:20].sum(1), kind="stable")
    assert np.array_equal(MultiKrum(5).best(Points(rows, 5), 21), order[:21])
    mix = aggregator("nnm:f=5,then=mean").mix(Points(rows, 5)).mix
    assert np.array_equal(
        np.sort(np.argsort(wide, axis=1)[:, :21]), [np.flatnonzero(r) for r in mix]
    )
