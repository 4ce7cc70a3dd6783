from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tacit.errors import UserError
from tacit.rng import scoped
from tacit.tasks.libsvm import load_libsvm
from tacit.tasks.smooth import LeastSquares, Logistic, Objective


def textbook(objective: Objective, x: Tensor) -> Tensor:
    """The f_i, (n,), row by row as the definition says."""
    matrix, targets, n = objective.clients.matrix, objective.clients.targets, objective.n
    each, values = len(matrix) // n, []
    for client in range(n):
        rows = slice(client * each, (client + 1) * each if client < n - 1 else len(matrix))
        a, b = matrix[rows], targets[rows]
        if isinstance(objective, Logistic):
            fit = torch.log(1 + torch.exp(-b * (a @ x))).mean()
        else:
            fit = (a @ x - b).square().mean()
        own = (a != 0).any(0) if objective._counted is not None else torch.ones(len(x)) == 1
        values.append(fit + objective.lam * (x**2 / (1 + x**2))[own].sum())
    return torch.stack(values)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Objective, Tensor]:
    n, d = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    m = n * draw(st.integers(1, 4)) + draw(st.integers(0, n - 1))
    with scoped(draw(st.integers(0, 99)), "problem"):
        matrix = torch.randn(m, d, dtype=torch.float64) * (torch.rand(m, d) < 0.5)
        targets = torch.randint(2, (m,)) * 2.0 - 1.0
        x = torch.randn(d, dtype=torch.float64)
    kind = draw(st.sampled_from([Logistic, LeastSquares]))
    lam, own = draw(st.sampled_from([0.0, 0.3])), draw(st.booleans())
    return kind(matrix, targets, n, lam, own), x


@given(problems())
def test_values_and_gradients_are_those_of_the_definition(problem) -> None:
    f, x = problem
    torch.testing.assert_close(f.values(x), textbook(f, x))
    slopes = torch.func.jacrev(lambda at: textbook(f, at))(x)
    gradients = f.gradients(x)
    assert gradients.dtype == torch.float64
    torch.testing.assert_close(gradients, slopes)
    torch.testing.assert_close(f.gradient(x), slopes.mean(0))
    assert f.value(x) == pytest.approx(float(textbook(f, x).mean()))


@given(problems())
def test_constants_are_the_largest_curvature_and_attained_at_zero(problem) -> None:
    f, x = problem
    hessians = torch.func.jacrev(torch.func.jacrev(lambda at: textbook(f, at)))
    for point in (torch.zeros_like(x), x):
        each = torch.linalg.eigvalsh(hessians(point)).abs().amax(1)
        together = torch.linalg.eigvalsh(hessians(point).mean(0)).abs().max()
        assert (each <= f.client_smoothness + 1e-9).all()
        assert together <= f.smoothness + 1e-9
        if point is not x:
            assert float(together) == pytest.approx(f.smoothness, abs=1e-9)
            if f._counted is None:
                torch.testing.assert_close(each, f.client_smoothness, rtol=1e-9, atol=1e-9)


@given(problems())
def test_constants_keep_their_order(problem) -> None:
    f, _ = problem
    tolerance = 1 + 1e-9
    assert f.smoothness <= f.mean_smoothness * tolerance
    assert f.mean_smoothness <= f.quadratic_smoothness * tolerance
    assert f.shared_smoothness <= f.mean_smoothness * tolerance
    assert 0 <= f.sharing <= f.n


@given(problems())
def test_own_features_keep_gradients_on_their_support(problem) -> None:
    f, x = problem
    if f._counted is not None:
        assert (f.gradients(x)[~f.clients.supports] == 0).all()


def test_remainder_goes_to_the_last_client() -> None:
    f = LeastSquares(torch.ones(11, 1), torch.arange(11.0), 4)
    assert f.clients.sizes.tolist() == [2, 2, 2, 5]
    assert f.gradients(torch.zeros(1, dtype=torch.float64))[:, 0].tolist() == [-1, -5, -9, -16]
    assert f.clients.weights.sum() == pytest.approx(1.0)


def test_gradient_descent_with_step_one_over_l_descends() -> None:
    with scoped(0, "data"):
        matrix, targets = torch.randn(60, 5), torch.randint(2, (60,)) * 2.0 - 1.0
    for f in (Logistic(matrix, targets, 7), LeastSquares(matrix, targets, 7, lam=0.1)):
        x = torch.zeros(5, dtype=torch.float64)
        before = f.value(x)
        for _ in range(20):
            slope = f.gradient(x)
            after = f.value(x - slope / f.smoothness)
            assert after <= before - float(slope.square().sum()) / (2 * f.smoothness) + 1e-12
            x, before = x - slope / f.smoothness, after


def test_large_margins_do_not_overflow() -> None:
    f = Logistic(torch.tensor([[1e6], [-1e6]]), torch.tensor([1.0, 1.0]), 2)
    x = torch.ones(1, dtype=torch.float64)
    assert f.values(x).tolist() == pytest.approx([0.5e-3, 1e6])
    assert f.gradients(x)[:, 0].tolist() == pytest.approx([0.5e-3, 1e6])


@pytest.mark.parametrize(
    ("matrix", "targets", "clients", "message"),
    [
        (torch.ones(4, 2), torch.ones(3), 2, r"matrix \(4, 2\) and targets \(3,\) do not fit"),
        (torch.ones(4), torch.ones(4), 2, "do not fit"),
        (torch.ones(4, 2), torch.ones(4), 0, "4 rows cannot be dealt to 0 clients"),
        (torch.ones(4, 2), torch.ones(4), 5, "4 rows cannot be dealt to 5 clients"),
        (torch.ones(4, 2) / 0, torch.ones(4), 2, "not finite"),
        (torch.ones(4, 2), torch.tensor([1.0, 0, 1, 1]), 2, r"must be -1 and \+1"),
    ],
)
def test_bad_problems_say_what_is_wrong(matrix, targets, clients, message) -> None:
    with pytest.raises(UserError, match=message):
        Logistic(matrix, targets, clients)
    with pytest.raises(UserError, match="lam is nan"):
        LeastSquares(torch.ones(4, 2), torch.ones(4), 2, math.nan)


#: Top-1, lam = 1e-3: clients, L_QM / L_AM, variance of the L_i, gain of EF21-W's step.
MEASURED = {
    "australian": (100, 5.57, 1.9e15, 5.41),
    "w8a": (1000, 1.26, 0.97, 1.26),
    "mushrooms": (1000, 1.007, 0.19, 1.007),
    "phishing": (1000, 1.002, 1.2e-4, 1.002),
    "a9a": (1000, 1.001, 4.5e-3, 1.001),
    "splice": (100, 1.001, 20.0, 1.001),
}


def gain(f: Objective, smoothness: float) -> float:
    """EF21's step for Top-1 with ``smoothness`` in place of L_QM, over that with L_QM."""
    xi = (1 + math.sqrt(1 - 1 / f.d)) * f.d - 1
    return (f.smoothness + f.quadratic_smoothness * xi) / (f.smoothness + smoothness * xi)


@pytest.mark.parametrize("name", MEASURED)
def test_smoothness_of_the_libsvm_sets(name: str, real_data: str) -> None:
    clients, ratio, variance, weighted = MEASURED[name]
    digits = 2 if ratio > 1.1 else 3
    matrix, labels = load_libsvm(name, real_data)
    f = Logistic(matrix, labels, clients, lam=1e-3)
    mean, quadratic = f.mean_smoothness, f.quadratic_smoothness
    assert round(quadratic / mean, digits) == ratio
    assert quadratic**2 - mean**2 == pytest.approx(variance, rel=0.03)
    assert round(gain(f, mean), digits) == weighted
    if name == "w8a":
        assert gain(f, f.shared_smoothness) == pytest.approx(1.43, abs=0.006)
    if name == "australian":
        by_norm = matrix.norm(dim=1).argsort(stable=True)[:600]  # as measured: no remainder
        f = Logistic(matrix[by_norm], labels[by_norm], clients)
        assert round(f.quadratic_smoothness / f.mean_smoothness, 2) == 2.17
        low, high = matrix.aminmax(dim=0)
        f = Logistic((matrix - low) / (high - low), labels, clients)
        assert round(f.quadratic_smoothness / f.mean_smoothness, 2) == 1.03
