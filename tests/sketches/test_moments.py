"""Squared norms and inner products in one pass, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.rng import torch_stream
from tacit.sketches import drift_moments, moments

KERNELS = [None, False]
SIZES = [1, 3, 1023, 1024, 1025, 5000, 140_000]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_stream(0, "test", *shape))


def exact(u: Tensor, xi: Tensor) -> Tensor:
    u, xi = u.double(), xi.double()
    return torch.stack([u.square().sum(1), u @ xi], dim=1)


def assert_accurate(result: Tensor, u: Tensor, xi: Tensor) -> None:
    """Errors relative to ``||u||^2`` and ``||u|| ||xi||``, each below 1e-6."""
    norm = u.double().norm(dim=1)
    scale = torch.stack([norm * norm, norm * xi.double().norm()], dim=1)
    assert result.dtype == torch.float64
    assert result.shape == scale.shape
    assert ((result - exact(u, xi)).abs() <= 1e-6 * scale).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d", SIZES)
def test_moments(d: int, kernel: bool | None) -> None:
    u, xi = normal(3, d + 9)[:, 4 : d + 4], normal(d)
    both = moments(u, xi, kernel=kernel)
    assert_accurate(both, u, xi)
    assert torch.equal(moments(u, kernel=kernel), both[:, :1])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("d", SIZES)
def test_drift_moments(d: int, kernel: bool | None) -> None:
    params, reference, xi = normal(3, d + 9)[:, 4 : d + 4], normal(d), normal(d) / d**0.5
    both = drift_moments(params, reference, xi, kernel=kernel)
    assert_accurate(both, params - reference, xi)
    assert torch.equal(both, moments(params - reference, xi, kernel=kernel))
    assert torch.equal(drift_moments(params, reference, kernel=kernel), both[:, :1])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1e-4])
def test_equal_entries(value: float, kernel: bool | None) -> None:
    """The worst case for float32 sums: every rounding error has the same sign."""
    u = torch.full((1, 300_000), value)
    assert_accurate(moments(u, u[0], kernel=kernel), u, u[0])


@pytest.mark.parametrize("kernel", KERNELS)
def test_edges(kernel: bool | None) -> None:
    assert moments(torch.ones(0, 5), torch.ones(5), kernel=kernel).shape == (0, 2)
    assert moments(torch.ones(2, 1), torch.ones(1), kernel=kernel).tolist() == [[1, 1]] * 2
    u = torch.ones(2, 5)
    u[1, 3] = torch.nan
    assert torch.isnan(moments(u, kernel=kernel)).flatten().tolist() == [False, True]
    u[1, 3] = torch.inf
    assert moments(u, kernel=kernel).flatten().tolist() == [5, torch.inf]
    assert not moments(u.requires_grad_(), torch.ones(5), kernel=kernel).requires_grad


def test_other_layouts_and_types() -> None:
    u, xi = normal(700, 3).T, normal(1400)[::2]
    assert_accurate(moments(u, xi), u, xi)
    assert_accurate(moments(normal(700).expand(2, 700), xi), normal(700).expand(2, 700), xi)
    wide = u.double()
    torch.testing.assert_close(moments(wide, xi.double()), exact(u, xi), rtol=1e-12, atol=1e-12)
    half = u.bfloat16()
    assert_accurate(moments(half, xi.bfloat16()), half, xi.bfloat16())


def test_bad_shapes() -> None:
    for u in (torch.ones(5), torch.ones(2, 0), torch.ones(1, 2, 5)):
        with pytest.raises(UserError, match=r"rows of shape \(L, d\)"):
            moments(u)
    with pytest.raises(UserError, match=r"xi must have shape \(5,\)"):
        moments(torch.ones(2, 5), torch.ones(4))
    with pytest.raises(UserError, match=r"reference must have shape \(5,\)"):
        drift_moments(torch.ones(2, 5), torch.ones(2, 5))
