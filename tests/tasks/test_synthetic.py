from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.tasks.synthetic import CONDITION, draw_holders, draw_smoothness, least_squares


@given(
    clients=st.integers(2, 200),
    mean=st.floats(0.1, 1e4),
    share=st.floats(0, 0.98),
    seed=st.integers(0, 50),
)
def test_smoothness_has_exactly_the_mean_and_variance_asked_for(clients, mean, share, seed):
    variance = share * (clients - 1) * mean**2
    drawn = draw_smoothness(clients, mean, variance, seed)
    assert drawn.shape == (clients,)
    assert (drawn >= 0).all()
    assert drawn.mean() == pytest.approx(mean)
    assert drawn.var() == pytest.approx(variance, rel=1e-6, abs=1e-9 * mean**2)


def test_the_same_clients_stay_the_roughest() -> None:
    orders = [draw_smoothness(50, 10.0, variance).argsort() for variance in (1.0, 100.0, 1000.0)]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] == orders[2]).all()


@pytest.mark.parametrize("lam", [0.0, 2.0])
@pytest.mark.parametrize("rare", [1.0, 0.3])
def test_clients_have_the_eigenvalues_asked_for(rare: float, lam: float) -> None:
    f = least_squares(40, 30, 12, mean=5.0, variance=200.0, rare=rare, lam=lam)
    smoothness = f.client_smoothness.numpy() - 2 * lam
    assert smoothness.mean() == pytest.approx(5.0)
    assert smoothness.var() == pytest.approx(200.0)
    np.testing.assert_allclose(smoothness, draw_smoothness(40, 5.0, 200.0), rtol=1e-9)
    block = f.clients.matrix[:12]
    grid = torch.linalg.eigvalsh(block @ block.T) * 2 / 12
    rank = min(12, int(f.clients.supports[0].sum()))
    expected = np.linspace(smoothness[0] / CONDITION, smoothness[0], rank)
    np.testing.assert_allclose(grid[-rank:].numpy(), expected, rtol=1e-8)
    assert f.smoothness < f.mean_smoothness


def test_half_everywhere_solves_it_but_for_the_noise() -> None:
    f = least_squares(50, 10, 10)
    at = torch.full((10,), 0.5, dtype=torch.float64)
    # the noise is 2 U[-1, 1] sqrt(m / 2) in each row: its square has the mean (4 / 3) (m / 2)
    assert f.value(at) == pytest.approx(4 / 3 * 5, rel=0.2)


def test_rare_features_have_their_share_of_the_clients() -> None:
    f = least_squares(20, 100, 5, rare=0.15, lam=0.1)
    assert (f.clients.supports.sum(0) == 3).all()
    assert f.sharing == math.ceil(0.15 * 20)
    assert f.shared_smoothness < 0.3 * f.mean_smoothness
    x = torch.ones(100, dtype=torch.float64)
    assert ((f.gradients(x) != 0) <= f.clients.supports).all()
    assert least_squares(20, 100, 5, rare=1.0).sharing == 20


@given(st.integers(1, 12), st.integers(1, 40), st.floats(0.01, 1.0), st.integers(0, 5))
def test_no_client_is_left_without_a_feature(clients, features, rare, seed) -> None:
    count = math.ceil(rare * clients - 1e-9)
    try:
        holders = draw_holders(clients, features, rare, seed)
    except UserError:
        assert count * features < 4 * clients
        return
    assert (holders.sum(axis=0) == count).all()
    assert holders.any(axis=1).all()


def test_same_seed_same_problem() -> None:
    one, same = least_squares(variance=9.0, seed=3), least_squares(variance=9.0, seed=3)
    other = least_squares(variance=9.0, seed=4)
    assert torch.equal(one.clients.matrix, same.clients.matrix)
    assert torch.equal(one.clients.targets, same.clients.targets)
    assert not torch.equal(one.clients.matrix, other.clients.matrix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clients": 0}, "number of clients is 0"),
        ({"rows": 0}, "number of rows is 0"),
        ({"rare": 0.0}, "rare is 0.0"),
        ({"rare": math.nan}, "rare is nan"),
        ({"mean": -1.0}, "mean must be above 0"),
        ({"variance": math.inf}, "variance at least 0"),
        ({"clients": 4, "variance": 400.0}, r"cannot have variance 400; use at most 297, or more"),
        ({"clients": 1, "variance": 1.0}, "cannot have variance 1"),
        ({"clients": 50, "features": 3, "rare": 0.02}, "leave a client without any"),
    ],
)
def test_bad_options_say_what_is_wrong(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        least_squares(**options)
