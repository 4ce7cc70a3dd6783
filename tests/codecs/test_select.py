"""Selections: the exact one against a stable sort, the sampled one against its policy."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.codecs import add_at, sampled_top_k, select, take, take_top_k, top_k
from tacit.errors import MissingExtra, UserError
from tacit.rng import numpy_stream

KERNELS = [None, False]


def expected(x: np.ndarray, k: int) -> np.ndarray:
    """The k largest magnitudes, of equal ones the first: a stable sort says so."""
    return np.sort(np.argsort(-np.abs(x.astype(np.float64)), kind="stable")[:k])


def vector(n: int, kind: str) -> np.ndarray:
    rng = numpy_stream(n, kind)
    x = rng.standard_normal(n)
    if kind == "heavy":
        x = x * np.exp(2 * rng.standard_normal(n))
    elif kind == "ties":
        x = np.round(2 * x)
    elif kind == "sparse":
        x[rng.random(n) < 0.9995] = 0
    elif kind == "constant":
        x = np.full(n, -0.25)
    elif kind == "zero":
        x = np.zeros(n)
    elif kind == "one column":  # where only one residue of the positions is large
        x[np.arange(n) % 13 != 0] *= 1e-6
    elif kind == "subnormal":
        x *= 1e-43
    return x.astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "kind",
    ["normal", "heavy", "ties", "sparse", "constant", "zero", "column", "subnormal"],
)
@pytest.mark.parametrize("n", [1, 33, 40_000, 150_001])
def test_exactly_the_largest(n: int, kind: str, kernel: bool | None) -> None:
    x = vector(n, "one column" if kind == "column" else kind)
    for k in sorted({0, 1, n // 1000, n // 50, n // 3, n - 1, n}):
        found = top_k(x, k, kernel=kernel)
        assert found.dtype == np.int64
        assert np.array_equal(found, expected(x, k)), k


@given(
    st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=99), st.integers(0, 99), st.booleans()
)
def test_exactly_the_largest_of_anything(numbers: list[float], k: int, plain: bool) -> None:
    x = np.array(numbers, dtype=np.float32)
    k = min(k, len(x))
    assert np.array_equal(top_k(x, k, kernel=False if plain else None), expected(x, k))


def test_the_set_of_torch() -> None:
    x = torch.from_numpy(vector(200_000, "heavy"))
    assert np.array_equal(top_k(x, 200), x.abs().topk(200).indices.sort().values.numpy())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_sample_does_not_change_the_result(kernel: bool | None) -> None:
    x = vector(150_000, "heavy")
    for offset in (0, 1, 5, 123_456):
        assert np.array_equal(top_k(x, 500, offset=offset, kernel=kernel), expected(x, 500))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sample_that_misleads(kernel: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All large entries are where the sample looks, so its first threshold is much too high."""
    n, k = 150_000, 1500
    thresholds = []
    plain = select._survivors

    def recorded(*arguments: object) -> object:
        thresholds.append(arguments[1])
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(select, "_survivors", recorded)
    x = vector(n, "normal")
    stride = n // max(select._SAMPLE, select._HITS * n // k) | 1
    x[n // 3 % stride :: stride][:250] *= 1000
    assert np.array_equal(top_k(x, k, kernel=kernel), expected(x, k))
    assert len(thresholds) == 2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n", [50, 100_000])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_place(
    bad: float, n: int, kernel: bool | None
) -> None:
    x = vector(n, "normal")
    x[[n - 3, n - 2]] = bad
    with pytest.raises(UserError, match=f"at {n - 3}; only finite"):
        top_k(x, 5, kernel=kernel)
    with pytest.raises(UserError, match="only finite"):
        sampled_top_k(x, 5, 5 / n, numpy_stream(0, "sample"), kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n", [100, 100_000])
def test_taking_and_clearing(n: int, kernel: bool | None) -> None:
    x = torch.from_numpy(vector(n, "heavy"))
    before = x.clone()
    k = n // 20
    positions, values = take_top_k(x, k, kernel=kernel)
    assert torch.equal(x, before)
    assert np.array_equal(values, before.numpy()[positions])
    assert np.array_equal(take(x, positions, kernel=kernel), values)
    assert np.array_equal(take(x, positions, clear=True, kernel=kernel), values)
    assert not x.numpy()[positions].any()
    rest = np.delete(before.numpy(), positions)
    assert np.array_equal(np.delete(x.numpy(), positions), rest)
    add_at(x, positions, values, kernel=kernel)
    assert torch.equal(x, before)
    take_top_k(x, k, clear=True, kernel=kernel)
    assert int((x == 0).sum()) == k
    for wrong in ([-1], [n]):
        with pytest.raises(IndexError):
            take(x, np.array(wrong), clear=True, kernel=kernel)
        with pytest.raises(IndexError):
            add_at(x, np.array(wrong), np.ones(1, np.float32), kernel=kernel)
    with pytest.raises(UserError, match="2 values for 1"):
        add_at(x, np.array([0]), np.ones(2, np.float32), kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["normal", "heavy", "column"])
@pytest.mark.parametrize("n", [36_864, 147_456])
def test_the_sampled_policy_sends_about_k(n: int, kind: str, kernel: bool | None) -> None:
    x = vector(n, "one column" if kind == "column" else kind)
    k = -(-n // 1000)
    best = set(expected(x, k))
    for seed in range(20):
        found = sampled_top_k(x, k, 0.001, numpy_stream(seed, "sample"), kernel=kernel)
        assert np.all(np.diff(found) > 0)
        assert 0.8 * k <= len(found) <= k
        assert set(found) <= best  # a threshold, and among the candidates the largest


def test_the_sampled_policy_draws_its_start_and_only_that() -> None:
    x = vector(100_000, "heavy")
    runs = [
        sampled_top_k(x, 100, 0.001, numpy_stream(seed, "sample"), kernel=kernel).tolist()
        for seed in (0, *range(20))
        for kernel in KERNELS
    ]
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert any(run != runs[0] for run in runs[4:])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_sampled_policy_at_its_edges(kernel: bool | None) -> None:
    rng = numpy_stream(0, "sample")
    short = vector(1500, "normal")  # no more than 2 / density: exact
    assert np.array_equal(sampled_top_k(short, 2, 0.001, rng, kernel=kernel), expected(short, 2))
    assert len(sampled_top_k(short, 0, 0.001, rng, kernel=kernel)) == 0
    zero = np.zeros(50_000, np.float32)
    assert len(sampled_top_k(zero, 50, 0.001, rng, kernel=kernel)) == 0
    few = zero.copy()
    few[[7, 40_000]] = 1e-45, -3
    assert sampled_top_k(few, 50, 0.001, rng, kernel=kernel).tolist() == [7, 40_000]
    ties = np.full(50_000, 0.5, np.float32)
    assert sampled_top_k(ties, 50, 0.001, rng, kernel=kernel).tolist() == list(range(50))
    dense = vector(5000, "normal")
    assert 4000 <= len(sampled_top_k(dense, 5000, 1.0, rng, kernel=kernel)) <= 5000
    raised = sampled_top_k(short, 300, 0.2, rng, resample=False, kernel=kernel)
    assert 0 < len(raised) <= 300


def test_misuse_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones(8, np.float32)
    for k in (-1, 9):
        with pytest.raises(UserError, match=r"\[0, 8\]"):
            top_k(x, k)
    for wrong in (x[::2], x.reshape(2, 4), x.astype(np.float64)):
        with pytest.raises(UserError, match="contiguous float32"):
            top_k(wrong, 1)
    for density, ratio in ((0.0, 0.01), (1.5, 0.01), (0.1, 0.0)):
        with pytest.raises(UserError, match="density"):
            sampled_top_k(x, 1, density, numpy_stream(0, "x"), ratio=ratio)
    with pytest.raises(UserError, match="use the CPU"):
        take_top_k(torch.ones(8, device="meta"), 1, clear=True)
    monkeypatch.setitem(sys.modules, "tacit.codecs.scan", None)
    large = vector(100_000, "normal")
    assert np.array_equal(top_k(large, 1000), expected(large, 1000))
    with pytest.raises(MissingExtra, match="speed"):
        top_k(large, 100, kernel=True)
