"""The compiled passes against plain torch, and what happens without numba."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from tacit.errors import MissingExtra, UserError
from tacit.rng import torch_stream
from tacit.sketches import AMSSketch, drift_moments, moments


@pytest.fixture
def numba() -> None:
    pytest.importorskip("numba")


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8, 16, 31, 250, 256, 1000])
def test_equal_to_plain(rows: int, columns: int) -> None:
    for d in sorted(
        {1, columns - 1, columns, columns + 1, 3 * columns, 3 * columns + 5, 2011} - {0}
    ):
        vectors = torch.randn((2, d), generator=torch_stream(d, "test"))
        plain = AMSSketch(d, rows, columns, seed=d, kernel=False)
        fast = AMSSketch(d, rows, columns, seed=d, kernel=True)
        scale = float(vectors.norm())  # a column may be a small difference of large numbers
        torch.testing.assert_close(
            fast.many(vectors), plain.many(vectors), rtol=1e-6, atol=2e-6 * scale
        )


@pytest.mark.usefixtures("numba")
def test_long_vectors_keep_their_accuracy() -> None:
    """The worst case for float32 sums: 40,000 blocks of entries of one size and the hash's signs,
    which all add up. Summed in float32 alone they would be off by 1e-4."""
    d = 40_000 * 8 + 3
    sketch = AMSSketch(d, 1, 8, kernel=True)
    coordinates = np.arange(d)
    signs, buckets = sketch.hashing.signs(coordinates)[0], sketch.hashing.buckets(coordinates)[0]
    vector = torch.from_numpy((0.1 * signs).astype(np.float32))
    exact = np.zeros(8)
    np.add.at(exact, buckets, signs * vector.double().numpy())
    np.testing.assert_allclose(sketch(vector)[0], exact, rtol=5e-6)


@pytest.mark.usefixtures("numba")
def test_reads_nothing_outside_its_vector() -> None:
    """Around the vector all is NaN; a sum that used any of it would be NaN too."""
    for d in (1, 7, 250, 251, 257, 750, 1999):
        memory = torch.full((3, d + 40), torch.nan)
        memory[:, 20 : 20 + d] = torch.randn((3, d), generator=torch_stream(d, "test"))
        vectors = memory[:, 20 : 20 + d]
        reference = vectors[0].clone()
        sketch = AMSSketch(d, kernel=True)
        assert torch.isfinite(sketch.many(vectors)).all()
        assert torch.isfinite(moments(vectors, reference, kernel=True)).all()
        assert torch.isfinite(drift_moments(vectors, reference, reference, kernel=True)).all()


@pytest.mark.usefixtures("numba")
def test_insisting_on_rows_it_cannot_read() -> None:
    sketch = AMSSketch(10, kernel=True)
    for vector in (torch.ones(10, dtype=torch.float64), torch.ones(20)[::2]):
        with pytest.raises(UserError, match="kernel=None"):
            sketch(vector)
    assert torch.equal(
        AMSSketch(10)(torch.ones(20)[::2]), AMSSketch(10, kernel=False)(torch.ones(10))
    )


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "tacit.sketches.kernel", raising=False)
    vector = torch.randn(1000, generator=torch_stream(0, "test"))
    expected = AMSSketch(1000, kernel=False)(vector)
    assert torch.equal(AMSSketch(1000)(vector), expected)
    assert torch.equal(moments(vector[None]), moments(vector[None], kernel=False))
    with pytest.raises(MissingExtra, match=r"pip install 'tacit\[speed\]'"):
        AMSSketch(1000, kernel=True)(vector)
