"""The estimators of the model variance against its definition (FDA paper, section on variants)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tacit.fleet import LocalFleet
from tacit.rng import torch_stream
from tacit.setting import Setting
from tacit.sketches import squared_norm
from tacit.triggers import Estimator, Exact, Linear, Naive, Sketch


def estimate(estimator: Estimator, drifts: torch.Tensor, reference: torch.Tensor) -> float:
    """The way of a run: states, their mean over a fleet, the estimate."""
    state = estimator.local_state(reference + drifts, reference)
    return estimator.variance(LocalFleet(len(drifts)).mean(state, "monitoring"))


def started(estimator: Estimator, d: int, seed: int = 0) -> Estimator:
    estimator.start(Setting(workers=1, d=d, seed=seed))
    return estimator


def variance(drifts: torch.Tensor) -> float:
    """``1/K sum_k ||u_k - mean u||^2`` in float64."""
    drifts = drifts.double()
    return float((drifts - drifts.mean(dim=0)).square().sum(dim=1).mean())


def mean_square(drifts: torch.Tensor) -> float:
    return float(drifts.double().square().sum(dim=1).mean())


@st.composite
def drifts(draw) -> torch.Tensor:
    """``(K, d)``: any numbers of a size that float32 squares without under- or overflow, often
    with a common part far larger than the rest."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 20)))
    elements = st.floats(-100, 100, width=32).map(lambda v: v if abs(v) > 1e-6 else 0.0)
    own = draw(arrays.arrays(np.float32, shape, elements=elements))
    common = draw(arrays.arrays(np.float32, shape[1], elements=elements))
    return torch.from_numpy(own + common)


@given(drifts(), st.integers(0, 3))
def test_exact_is_the_variance_and_linear_and_naive_are_above_it(u, rounds):
    """Var = exact <= linear <= naive, on the same drifts."""
    zero = torch.zeros(u.shape[1])
    linear = started(Linear(), u.shape[1])
    for number in range(rounds):
        draw = torch_stream(1, "movement", number)
        linear.synchronised(torch.randn(u.shape[1], generator=draw))
    # what float32 messages and reductions can hide
    slack = 4e-6 * mean_square(u) + 1e-9
    exact_value = estimate(Exact(), u, zero)
    linear_value = estimate(linear, u, zero)
    naive_value = estimate(Naive(), u, zero)
    assert exact_value == pytest.approx(variance(u), abs=slack)
    assert naive_value == pytest.approx(mean_square(u), abs=slack)
    assert exact_value >= 0.0
    assert exact_value <= linear_value + slack
    assert linear_value <= naive_value + slack


@given(drifts())
def test_linear_is_tight_where_workers_move_along_xi(u):
    """With xi along the mean drift nothing is lost: linear is the variance."""
    mean = u.mean(dim=0)
    if float(mean.norm()) < 1e-3:
        return
    linear = started(Linear(), u.shape[1])
    linear.synchronised(mean * 17.0)
    slack = 1e-5 * mean_square(u) + 1e-9
    assert estimate(linear, u, torch.zeros(u.shape[1])) == pytest.approx(variance(u), abs=slack)


@given(drifts())
def test_the_sketch_is_what_its_definition_says(u):
    """``mean ||u||^2 - M2(sketch of the mean drift) / (1 + epsilon)``."""
    sketch = started(Sketch(rows=5, columns=16, epsilon=0.2), u.shape[1])
    assert sketch.sketch is not None
    energy = float(squared_norm(sketch.sketch(u.mean(dim=0))))
    expected = mean_square(u) - energy / 1.2
    slack = 1e-4 * mean_square(u) + 1e-9
    value = estimate(sketch, u, torch.zeros(u.shape[1]))
    assert value == pytest.approx(expected, abs=slack)
    if energy <= 1.2 * float(u.mean(dim=0).double().square().sum()):
        assert value >= variance(u) - slack


def test_the_published_epsilon():
    assert Sketch().epsilon == pytest.approx(1 / math.sqrt(250)) == pytest.approx(0.0632, abs=1e-4)
    assert Sketch(columns=500).epsilon == pytest.approx(0.0447, abs=1e-4)
    assert Sketch(epsilon=0.3).epsilon == 0.3


@pytest.mark.parametrize(
    ("make", "size"),
    [(Naive, 4), (Linear, 8), (Sketch, 5004), (lambda: Sketch(3, 500), 6004)],
)
def test_published_state_sizes(make, size):
    estimator = started(make(), 61_706)
    reference = torch.zeros(61_706)
    state = estimator.local_state(torch.ones(2, 61_706), reference)
    fleet = LocalFleet(2)
    fleet.mean(state, "monitoring")
    assert fleet.ledger.sent("monitoring").tolist() == [size, size]


def test_exact_sends_the_drift_and_its_square():
    state = Exact().local_state(torch.tensor([[3.0, 5.0]]), torch.tensor([0.0, 1.0]))
    assert state.tolist() == [[25.0, 3.0, 4.0]]


def test_estimates_are_about_the_drift_not_the_model():
    u = torch.randn(3, 30, generator=torch_stream(0, "u"))
    for estimator in (Exact(), Naive(), Linear(), Sketch(5, 16)):
        started(estimator, 30)
        here = estimate(estimator, u, torch.zeros(30))
        there = estimate(estimator, u, torch.full((30,), 2.0))
        assert there == pytest.approx(here, rel=1e-4)


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_equal_models_have_no_variance_to_the_last_bit(workers):
    """Rounding of the messages must not look like disagreement (theta may be 0)."""
    for step in range(50):
        u = torch.randn(1000, generator=torch_stream(0, "u", step))
        assert estimate(Exact(), u.expand(workers, -1), torch.zeros(1000)) == 0.0


def test_one_worker_alone():
    """It never disagrees, but only exact can tell."""
    u = torch.randn(1, 1000, generator=torch_stream(0, "u"))
    assert estimate(Exact(), u, torch.zeros(1000)) == 0.0
    for estimator in (Naive(), Linear(), Sketch()):
        assert estimate(started(estimator, 1000), u, torch.zeros(1000)) > 0.0


def test_exact_sees_a_small_disagreement_beside_a_large_common_movement():
    common = torch.randn(1000, generator=torch_stream(0, "common"))
    own = 0.01 * torch.randn(4, 1000, generator=torch_stream(0, "own"))
    assert estimate(Exact(), common + own, torch.zeros(1000)) == pytest.approx(
        variance(own), rel=0.05
    )


# -- xi of the linear estimator


def test_the_first_xi_is_random_and_everywhere_the_same():
    first, again, other = (started(Linear(), 500, seed) for seed in (0, 0, 1))
    assert torch.equal(first.xi, again.xi)
    assert not torch.equal(first.xi, other.xi)
    assert float(first.xi.norm()) == pytest.approx(1.0, rel=1e-6)
    # in round 1 it sees about 1/d of a common movement: linear behaves like naive
    u = torch.randn(500, generator=torch_stream(0, "u")).expand(3, -1)
    zero = torch.zeros(500)
    assert estimate(first, u, zero) > 0.9 * estimate(Naive(), u, zero)


def test_xi_is_the_direction_of_the_last_global_movement():
    linear = started(Linear(), 3)
    linear.synchronised(torch.tensor([0.0, 3.0, 4.0]))
    assert linear.xi.tolist() == pytest.approx([0.0, 0.6, 0.8])
    linear.synchronised(torch.tensor([-2.0, 0.0, 0.0]))
    assert linear.xi.tolist() == [-1.0, 0.0, 0.0]


def test_without_movement_xi_stays():
    linear = started(Linear(), 3)
    linear.synchronised(torch.tensor([0.0, 3.0, 4.0]))
    linear.synchronised(torch.zeros(3))
    assert linear.xi.tolist() == pytest.approx([0.0, 0.6, 0.8])


def test_xi_is_constant_within_a_round():
    linear = started(Linear(), 20)
    xi = linear.xi.clone()
    for step in range(3):
        u = torch.randn(2, 20, generator=torch_stream(0, "u", step))
        estimate(linear, u, torch.zeros(20))
    assert torch.equal(linear.xi, xi)
