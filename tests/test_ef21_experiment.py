"""experiments/ef21_w.py: its engine against plain loops, and against the library's EF21."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tacit
from tacit.compressors import TopK
from tacit.compressors import message as wire
from tacit.memory import theory
from tacit.replicas import Replicas
from tacit.rng import numpy_stream
from tacit.setting import Setting
from tacit.tasks.libsvm import load_libsvm
from tacit.tasks.smooth import LeastSquares, Logistic, Objective
from tacit.tasks.synthetic import least_squares

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))

import ef21_w  # noqa: E402
from _ef21 import Gradients, Lengths, Method, Trace, natural, run  # noqa: E402
from _ef21_problems import Problem  # noqa: E402


def sparse(own_features: bool = False, logistic: bool = True) -> Objective:
    """7 clients, 5 features, 3 rows each and 2 more for the last; some rows are empty."""
    rng = np.random.default_rng(3)
    matrix = (
        rng.standard_normal((23, 5))
        * (rng.random((23, 5)) < 0.4)
        * rng.lognormal(0, 1, 23)[:, None]
    )
    assert not matrix.any(axis=1).all()
    if logistic:
        targets = torch.from_numpy(rng.choice([-1.0, 1.0], 23))
        return Logistic(torch.from_numpy(matrix), targets, 7, 0.1, own_features)
    targets = torch.from_numpy(rng.standard_normal(23))
    return LeastSquares(torch.from_numpy(matrix), targets, 7, 0.1, own_features)


@pytest.mark.parametrize("own_features", [False, True])
@pytest.mark.parametrize("logistic", [False, True])
def test_gradients_are_the_objective_s(own_features, logistic):
    objective = sparse(own_features, logistic)
    x = np.random.default_rng(0).standard_normal(5)
    expected = objective.gradients(torch.from_numpy(x)).numpy()
    gradients = Gradients(objective, own_features)
    np.testing.assert_allclose(gradients(x), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gradients(x, np.ones(23)), expected, rtol=1e-12, atol=1e-14)


def test_minibatches_are_without_replacement_and_unbiased():
    gradients = Gradients(sparse())
    draws = [gradients.minibatch(0.4, np.random.default_rng(seed)) for seed in range(2000)]
    owner = np.repeat(np.arange(7), [3] * 6 + [5])
    for kept in draws[:50]:
        assert [(kept[owner == i] > 0).sum() for i in range(7)] == [2] * 7  # of 3, and of 5
        np.testing.assert_allclose([kept[owner == i].mean() for i in range(7)], 1)
    np.testing.assert_allclose(np.mean(draws, axis=0), 1, atol=0.1)


def by_hand(objective: Objective, method: Method, rounds: int, seed: int) -> list[np.ndarray]:
    """The iterates, client by client, the direction summed anew in each round."""
    n, sizes = objective.n, objective.clients.sizes.tolist()
    starts = np.cumsum([0, *sizes])
    constants = objective.client_smoothness.tolist()
    weights = [1 / n] * n
    if method.weighted:
        weights = [constant / sum(constants) for constant in constants]
    drawn = Gradients(objective)

    def gradient(i: int, x: torch.Tensor, t: int) -> np.ndarray:
        if method.batch == 1:
            return objective.gradients(x)[i].numpy() / (n * weights[i])
        kept = drawn.minibatch(method.batch, numpy_stream(seed, "ef21", "rows", t))
        rows = [r for r in range(starts[i], starts[i + 1]) if kept[r]]
        leaf = x.clone().requires_grad_()
        clients = objective.clients
        losses = objective.loss(clients.matrix[rows] @ leaf, clients.targets[rows])
        (losses.mean() + objective.lam * (leaf**2 / (1 + leaf**2)).sum()).backward()
        return leaf.grad.numpy() / (n * weights[i])

    x = torch.zeros(objective.d).double()
    believed = [gradient(i, x, 0) for i in range(n)]
    path = [x.numpy()]
    for t in range(1, rounds + 1):
        direction = sum(w * g for w, g in zip(weights, believed, strict=True))
        x = x - method.step * torch.from_numpy(direction)
        path.append(x.numpy())
        coins = numpy_stream(seed, "ef21", "here", t).random(n)
        dice = numpy_stream(seed, "ef21", "natural", t).random(n)
        for i in range(n):
            if method.present < 1 and coins[i] >= method.present:
                continue
            change = gradient(i, x, t) - believed[i]
            place = max(range(len(change)), key=lambda j: (abs(change[j]), -j))
            value = change[place]
            if method.values == "natural":
                below = 2.0 ** np.floor(np.log2(abs(value)))
                up = dice[i] < abs(value) / below - 1
                value = np.sign(value) * below * (2 if up else 1)
            believed[i] = believed[i].copy()
            believed[i][place] += value
    return path


@pytest.mark.parametrize(
    "method",
    [
        Method("EF21", 0.05),
        Method("EF21-W", 0.05, weighted=True),
        Method("EF21-W natural", 0.05, weighted=True, values="natural"),
        Method("EF21-PP", 0.05, present=0.5),
        Method("EF21-W-PP", 0.05, weighted=True, present=0.5),
        Method("EF21-SGD", 0.05, batch=0.4),
    ],
    ids=lambda method: method.name,
)
def test_the_engine_follows_a_plain_loop(method):
    objective = sparse()
    trace = run(Gradients(objective), method, 25, seed=5, points=25)
    expected = np.array(by_hand(objective, method, 25, seed=5))
    np.testing.assert_allclose(trace.points, expected, rtol=1e-10, atol=1e-13)
    norms = [float(objective.gradient(torch.from_numpy(x)).square().sum()) for x in expected]
    np.testing.assert_allclose(trace.norms, norms, rtol=1e-9)


def test_without_compression_to_do_it_is_gradient_descent():
    """In one dimension Top-1 sends everything."""
    objective = least_squares(5, 1, 4, 10.0, 20.0)
    trace = run(Gradients(objective), Method("EF21", 0.01), 30, points=30)
    x = 0.0
    for point in trace.points:
        assert point[0] == pytest.approx(x)
        x -= 0.01 * float(objective.gradient(torch.tensor([x]).double()))


def test_weights_matter_only_where_the_compressor_is_not_homogeneous():
    gradients = Gradients(least_squares(40, 8, 8, 10.0, 900.0))
    start = run(gradients, Method("EF21", 0.01), 100)
    for values, grid, same in [("fp32", 0.0, True), ("natural", 0.0, False), ("fp32", 0.1, False)]:
        plain = run(gradients, Method("a", 0.01, False, values, grid), 100)
        weighted = run(gradients, Method("b", 0.01, True, values, grid), 100)
        assert (ef21_w.differ(plain, weighted) < 1e-12) is same
        assert plain.norms[0] == start.norms[0]


def test_bits_are_what_messages_cost():
    objective = least_squares(6, 300, 4, 10.0)
    gradients = Gradients(objective)
    trace = run(gradients, Method("EF21", 0.001), 3)
    assert trace.bits[0] == 0
    assert trace.bits[1] == trace.bits[2] - np.diff(trace.bits)[1] == 6 * Lengths(300, "fp32").whole
    lengths, compressor = Lengths(300, "fp32"), TopK(k=1)
    for j in (0, 7, 299):
        vector = torch.zeros(300)
        vector[j] = -0.3
        message = compressor.encode(vector, "step", 1)
        assert lengths.bits[j] == 8 * len(message)
        kind = wire.Kind(compressor.kind, compressor.code, 300)
        assert lengths.payload[j] == 8 * len(wire.unpack(message, "worker 0", kind)[1])
    assert lengths.bits[300] < lengths.bits[:300].min()  # nothing to say


def test_natural_rounding_is_unbiased_and_to_neighbours():
    values = np.array([1.0, -3.0, 5e-9, 0.0, 1e300])
    draws = np.array([natural(values, np.random.default_rng(seed)) for seed in range(4000)])
    assert set(draws[:, 1]) == {-2.0, -4.0}
    assert set(draws[:, 0]) == {1.0}
    np.testing.assert_allclose(draws.mean(axis=0), values, rtol=0.02)


def test_bits_to_a_norm():
    trace = Trace(
        np.array([8.0, 4.0, 5.0, 1.0]), np.array([0, 10, 20, 30]), np.zeros(4), np.zeros(1)
    )
    assert ef21_w.goals(trace) == pytest.approx([4.0, 2.0, 1.0])
    assert [ef21_w.bits_to(trace, target) for target in (8.0, 4.5, 1.0, 0.5)] == [0, 10, 30, None]


# -- the library's


@pytest.mark.parametrize("weighted", [False, True])
def test_the_engine_is_the_library_s_method(weighted):
    """In float32, message by message; and the same bytes."""
    objective = least_squares(6, 40, 8, 10.0, 60.0)
    n, d, step = objective.n, objective.d, 0.01
    constants = objective.client_smoothness.tolist()
    compressor = TopK(k=1)
    recipe = tacit.ef21_w(compressor, smoothness=constants) if weighted else tacit.ef21(compressor)
    linear = nn.Linear(d, 1, bias=False)
    nn.init.zeros_(linear.weight)
    models, fleet = Replicas(linear, n), tacit.LocalFleet(n)
    assert recipe.gradients is not None
    recipe.gradients.start(fleet, models, Setting(workers=n, d=d))
    rounds = 60
    path, spent = [], []
    for t in range(rounds + 1):
        path.append(models.parameters[0].numpy().copy())
        events = [fleet.ledger[i] for i in range(len(fleet.ledger))]
        spent.append(sum(event.payload for event in events if event.kind == "gradient"))
        models.gradients[:] = objective.gradients(models.parameters[0].double()).float()
        fleet.ledger.step = t + 1
        recipe.gradients.step(torch.ones(n, dtype=torch.bool))
        models.parameters -= step * models.gradients
    trace = run(Gradients(objective), Method("", step, weighted), rounds, points=rounds)
    np.testing.assert_allclose(path, trace.points, rtol=0, atol=2e-6 * np.abs(path).max())
    assert np.abs(path[-1]).max() > 0.1
    # after the first gradients, which the library sends without a header
    assert [8 * (b - spent[1]) for b in spent[1:]] == (trace.bits - trace.bits[1])[1:].tolist()


# -- the step sizes of the specification


def test_the_step_ratio_of_australian():
    folder = os.environ.get("TACIT_DATA")
    if not folder:
        pytest.skip("set TACIT_DATA to a folder that holds libsvm/")
    problem = Problem("australian", Logistic(*load_libsvm("australian", folder), 100), 1)
    found = problem.constants()
    assert found["ratio"] == pytest.approx(5.41, rel=0.01)
    assert found["weighted_rare_ratio"] == pytest.approx(5.41, rel=0.01)
    assert found["rare_ratio"] == pytest.approx(1.00, rel=0.01)
    assert found["new"] == theory.ef21_w_step(found["L"], found["L_AM"], 1 / 14)
