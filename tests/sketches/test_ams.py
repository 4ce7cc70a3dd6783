"""The AMS sketch: what it computes, and how well it estimates a squared norm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.sketches import AMSSketch, squared_norm

# None takes the compiled pass where numba is installed; test_kernel insists on it.
KERNELS = [None, False]
SIZES = [
    (1, 1, 1),
    (7, 1, 1),
    (9, 3, 2),
    (40, 9, 3),
    (5, 3, 8),
    (100, 5, 250),
    (250, 5, 250),
    (1999, 5, 250),
    (2000, 1, 256),
    (3001, 3, 500),
    (1200, 3, 33),
]


def gaussian(*shape: int) -> Tensor:
    numbers = numpy_stream(0, "test", *shape).standard_normal(shape)
    return torch.from_numpy(numbers.astype(np.float32))


def by_definition(sketch: AMSSketch, vector: Tensor) -> np.ndarray:
    """Coordinate by coordinate in float64, from the hash functions' definition."""
    i = np.arange(sketch.d)
    out = np.zeros(sketch.shape)
    buckets, signs = sketch.hashing.buckets(i), sketch.hashing.signs(i)
    for j in range(sketch.rows):
        np.add.at(out[j], buckets[j], signs[j] * vector.double().numpy())
    return out


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("d", "rows", "columns"), SIZES)
def test_is_the_sum_of_its_definition(d: int, rows: int, columns: int, kernel: bool | None) -> None:
    sketch = AMSSketch(d, rows, columns, seed=d, kernel=kernel)
    vector = gaussian(d)
    result = sketch(vector)
    assert result.shape == sketch.shape == (rows, columns)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, by_definition(sketch, vector), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_unit_vector_is_exact(kernel: bool | None) -> None:
    sketch = AMSSketch(1999, 5, 250, seed=2, kernel=kernel)
    for i in (0, 249, 250, 1750, 1998):
        vector = torch.zeros(1999)
        vector[i] = -1.5
        result = sketch(vector)
        assert torch.equal(result.square().sum(1), torch.full((5,), 2.25))
        column = torch.from_numpy(sketch.hashing.buckets([i]))
        sign = torch.from_numpy(sketch.hashing.signs([i]))
        assert torch.equal(result.gather(1, column), -1.5 * sign)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.sampled_from([1, 3, 8, 250]), st.floats(-4, 4), st.floats(-4, 4))
def test_linear(d: int, columns: int, a: float, b: float) -> None:
    x, y = gaussian(2, d)
    for kernel in KERNELS:
        sketch = AMSSketch(d, 3, columns, seed=1, kernel=kernel)
        together, apart = sketch(a * x + b * y), a * sketch(x) + b * sketch(y)
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_the_mean_of_sketches_is_the_sketch_of_the_mean() -> None:
    drifts = gaussian(7, 5000)
    sketch = AMSSketch(5000)
    torch.testing.assert_close(
        sketch.many(drifts).mean(0), sketch(drifts.mean(0)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_a_wider_buffer(kernel: bool | None) -> None:
    buffer = gaussian(4, 2100)
    sketch = AMSSketch(1999, kernel=kernel)
    many = sketch.many(buffer[:, 60:2059])
    assert many.shape == (4, 5, 250)
    for row, vector in zip(many, buffer, strict=True):
        assert torch.equal(row, sketch(vector[60:2059].clone()))
    assert sketch.many(buffer[:0, :1999]).shape == (0, 5, 250)


@pytest.mark.parametrize("kernel", KERNELS)
def test_repeats_itself_bit_for_bit(kernel: bool | None) -> None:
    vector = gaussian(20_000)
    first = AMSSketch(20_000, seed=4, kernel=kernel)
    again = AMSSketch(20_000, seed=4, kernel=kernel)
    other = AMSSketch(20_000, seed=5, kernel=kernel)
    assert torch.equal(first(vector), first(vector))
    assert torch.equal(first(vector), again(vector))
    assert not torch.equal(first(vector), other(vector))


def test_other_layouts_and_types() -> None:
    sketch = AMSSketch(600, 3, 50)
    matrix = gaussian(600, 2)
    expected = sketch(matrix[:, 0].clone())
    torch.testing.assert_close(sketch(matrix[:, 0]), expected)
    torch.testing.assert_close(sketch.many(matrix.T)[0], expected)
    torch.testing.assert_close(sketch(matrix[:, 0].double()), expected)
    torch.testing.assert_close(sketch(matrix[:, 0].bfloat16()), expected, rtol=0.02, atol=0.2)
    torch.testing.assert_close(sketch.many(matrix[:, 0].expand(3, 600))[2], expected)
    watched = matrix[:, 0].clone().requires_grad_()
    assert not sketch(watched).requires_grad


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_not_finite_shows(kernel: bool | None) -> None:
    """And it stays in its own column: block 1 begins right after the last full vector of block 0,
    and column m - 1 of the last block is followed by nothing."""
    sketch = AMSSketch(750, 5, 250, kernel=kernel)
    for bad in (math.inf, math.nan):
        for i in (250, 251, 749):
            vector = gaussian(750).clone()
            vector[i] = bad
            result = sketch(vector)
            assert (~torch.isfinite(result)).sum(1).tolist() == [1] * 5
            assert not math.isfinite(squared_norm(result))
            if bad == math.inf:
                assert squared_norm(result) == math.inf


def test_squared_norm_is_the_median_over_rows() -> None:
    sketch = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    assert squared_norm(sketch).item() == 4
    assert squared_norm(sketch).dtype == torch.float64
    batch = torch.stack([sketch, 2 * sketch]).expand(3, 2, 3, 2)
    assert torch.equal(squared_norm(batch), torch.tensor([4.0, 16.0]).double().expand(3, 2))


def heavy_tailed(d: int) -> Tensor:
    numbers = numpy_stream(1, "test", "student").standard_t(2, d)
    return torch.from_numpy(numbers.astype(np.float32))


def few_large(d: int) -> Tensor:
    """Large entries at the same place of many blocks, where a poor rotation would pile them up."""
    vector = 0.01 * gaussian(d)
    vector[::250] = 3
    return vector


VECTORS = {
    "gaussian": gaussian(4000),
    "student, 2 degrees": heavy_tailed(4000),
    "multiples of m": few_large(4000),
    "constant": torch.ones(4000),
    "alternating": torch.tensor([1.0, -1.0]).repeat(2000),
}


@pytest.fixture(scope="module")
def sketches() -> list[AMSSketch]:
    return [AMSSketch(4000, seed=seed) for seed in range(400)]


def relative_energies(sketches: list[AMSSketch], vectors: Tensor) -> np.ndarray:
    """``(L, seeds, 5)``: row energies over the squared norm, at l = 5, m = 250."""
    many = torch.stack([sketch.many(vectors) for sketch in sketches], dim=1)
    squares = vectors.double().square().sum(1)
    return (many.double().square().sum(-1) / squares[:, None, None]).numpy()


@pytest.fixture(scope="module")
def energies(sketches: list[AMSSketch]) -> dict[str, np.ndarray]:
    """``(400, 5)`` relative row energies of every vector."""
    found = relative_energies(sketches, torch.stack(list(VECTORS.values())))
    return dict(zip(VECTORS, found, strict=True))


@pytest.mark.parametrize("name", VECTORS)
def test_unbiased_with_the_stated_variance(name: str, energies: dict[str, np.ndarray]) -> None:
    """2,000 row energies: their mean is 1 within 4 standard errors. Variance at most 2/m; its
    estimate may exceed that by 4 standard errors of a Gaussian's (sqrt(2/2000) = 3.2 % each)."""
    rows = energies[name].ravel()
    assert abs(rows.mean() - 1) < 4 * math.sqrt(2 / 250 / rows.size)
    assert rows.var() < 2 / 250 * (1 + 4 * math.sqrt(2 / rows.size))


@pytest.mark.parametrize("name", VECTORS)
def test_error_within_the_provable_bound(name: str, energies: dict[str, np.ndarray]) -> None:
    """eps = sqrt(8/m) = 0.179: P(miss) <= 0.104 for l = 5, by Chebyshev. In truth rows are nearly
    Gaussian and the median misses with probability 2e-4, so 400 draws cannot come near the bound
    unless the rows depend on each other or their variance is wrong."""
    f = 2 * (1 / 250 + 1 / (2**31 - 1)) / (8 / 250)
    bound = sum(math.comb(5, k) * f**k * (1 - f) ** (5 - k) for k in (3, 4, 5))
    assert bound == pytest.approx(0.104, abs=0.001)
    misses = abs(np.median(energies[name], axis=1) - 1) > math.sqrt(8 / 250)
    assert misses.mean() <= bound


def test_the_published_eps_misses_as_often_as_stated(sketches: list[AMSSketch]) -> None:
    """eps = 1/sqrt(m): one-sided misses 8-9 %. Given the hash functions, the errors on independent
    Gaussian vectors are independent, so 8 x 400 draws have a standard deviation of 0.5 %; the
    interval is 3.5 of them wide on each side of 8.5 %."""
    found = relative_energies(sketches, gaussian(8, 4000))
    misses = np.median(found, axis=-1) > 1 + 1 / math.sqrt(250)
    assert 0.067 <= misses.mean() <= 0.103


def test_bad_arguments() -> None:
    for rows in (0, 2, 4, -1):
        with pytest.raises(UserError, match="odd number of rows"):
            AMSSketch(10, rows=rows)
    with pytest.raises(UserError, match="d and rows"):
        AMSSketch(0)
    with pytest.raises(UserError, match="columns"):
        AMSSketch(10, columns=0)
    sketch = AMSSketch(10)
    with pytest.raises(UserError, match="flat vector"):
        sketch(torch.ones(2, 10))
    with pytest.raises(UserError, match="10 numbers"):
        sketch(torch.ones(11))
    with pytest.raises(UserError, match="10 numbers"):
        sketch.many(torch.ones(10))
    with pytest.raises(UserError, match="odd rows"):
        squared_norm(torch.ones(4, 250))
    with pytest.raises(UserError, match="odd rows"):
        squared_norm(torch.ones(5))
