"""The invariants of partial balancing (Kamp et al. 2018), over random runs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tacit
from helpers.tasks import SGD, mlp_task
from tacit.averaging import ModelAveraging
from tacit.errors import PeerError, TrainingDiverged, UserError
from tacit.fleet import LocalFleet
from tacit.rng import torch_stream
from tacit.setting import Setting
from tacit.topologies import Balancing, Drawn
from tacit.topologies.augmentation import AUGMENTATIONS
from tacit.topologies.balancing import Weights
from tacit.triggers import Every, LocalCondition

D = 7


class Rows:
    """Models without a module."""

    def __init__(self, workers: int) -> None:
        self.parameters = torch.zeros(workers, D)
        self.gradients = torch.zeros(workers, D)
        self.buffers = torch.zeros(workers, 0)


def started(
    delta: float, workers: int, topology: Any, samples: list[int] | None = None, every: int = 1
) -> ModelAveraging:
    averaging = ModelAveraging(LocalCondition(delta, every), topology=topology)
    rates = torch.tensor(samples) if samples else None
    setting = Setting(workers, D, seed=5, rates=rates)
    averaging.start(LocalFleet(workers), Rows(workers), None, setting)  # type: ignore[arg-type]
    return averaging


def learn(averaging: ModelAveraging, step: int, seed: int) -> Tensor:
    """Every worker goes somewhere, some further than others, and all a little in one direction."""
    rows = averaging.models.parameters
    draw = torch_stream(seed, "learn", step)
    reach = torch.rand(len(rows), 1, generator=draw) ** 3
    rows += reach * torch.randn(len(rows), D, generator=draw)
    rows += 0.2 * torch.randn(D, generator=draw)
    averaging.fleet.ledger.step = step
    return rows.clone()


def squares(rows: Tensor, point: Tensor) -> Tensor:
    return (rows.double() - point.double()).square().sum(dim=1)


@settings(max_examples=60)
@given(
    workers=st.integers(1, 9),
    delta=st.sampled_from([0.0, 0.05, 0.5, 3.0, 30.0]),
    augmentation=st.sampled_from(sorted(AUGMENTATIONS)),
    counter=st.booleans(),
    weights=st.sampled_from(["equal", "rates"]),
    seed=st.integers(0, 1000),
)
def test_invariants(
    workers: int, delta: float, augmentation: str, counter: bool, weights: Weights, seed: int
) -> None:
    rates = [1 + (3 * k + seed) % 4 for k in range(workers)]
    averaging = started(delta, workers, Balancing(augmentation, counter, weights), rates)
    share = torch.tensor(rates if weights == "rates" else [1] * workers).double()
    share /= share.sum()
    calls = 0
    for step in range(1, 9):
        before = learn(averaging, step, seed)
        reference = averaging.reference.clone()
        far = squares(before, reference) > delta
        bytes_before = averaging.fleet.ledger.bytes("model")
        fired = averaging.step(step)
        after, settled = averaging.models.parameters, averaging.settled
        if settled is None:
            assert not far.any()
            assert torch.equal(after, before)
            assert averaging.fleet.ledger.bytes("model") == bytes_before  # nobody calls: no model
            continue
        assert settled.callers.tolist() == far.tolist()
        assert set(np.flatnonzero(far)) <= set(np.flatnonzero(settled.members))
        members = torch.from_numpy(settled.members)
        assert torch.equal(after[~members], before[~members])
        assert settled.combination is not None
        assert torch.equal(after[members], settled.combination.expand(int(members.sum()), -1))
        calls += int(far.sum())
        # 1. the (weighted) mean of all models stays as it is
        tolerance = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(share @ after.double(), share @ before.double(), **tolerance)
        # 2. every model is within delta of the reference, and so the divergence is at most delta
        mean = share @ after.double()
        slack = 1e-4 * (1 + delta)
        assert squares(after, averaging.reference).max() <= delta + slack
        assert share @ squares(after, mean) <= delta + slack
        assert fired == settled.whole == bool(members.all())
        if fired:  # 3. a full synchronisation: one model, the new reference
            assert squares(after, averaging.reference).max() == 0
            assert float(share @ squares(after, mean)) < 1e-9 * (1 + float(mean.square().sum()))
            calls = 0
        else:
            assert torch.equal(averaging.reference, reference)
            if counter:
                assert calls < workers  # as many calls as workers: everyone


def test_all_means_that_every_violation_is_a_full_synchronisation():
    averaging = started(1.0, 4, Balancing("all", counter=False))
    averaging.models.parameters[0] += 2.0
    averaging.models.parameters[1] -= 2.0  # these two would balance each other
    assert averaging.step(1)
    assert averaging.settled is not None
    assert averaging.settled.members.all()


def run(recipe: tacit.Recipe, steps: int = 12, workers: int = 4, **options: Any) -> Tensor:
    task = mlp_task(optimizer=SGD)
    simulation = tacit.Simulation(task, recipe, LocalFleet(workers), seed=3, **options)
    for _ in range(steps):
        simulation.step()
    return simulation.replicas.parameters.clone()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("period", [1, 3])
def test_with_delta_0_it_is_periodic_averaging(augmentation, period):
    dynamic = run(tacit.dynamic_averaging(0.0, every=period, augmentation=augmentation))
    assert torch.equal(dynamic, run(tacit.periodic(period)))


def test_with_delta_infinite_nobody_talks():
    recipe = tacit.dynamic_averaging(float("inf"), every=1)
    assert torch.equal(run(recipe), run(tacit.no_sync()))
    assert recipe.averaging is not None
    spent = recipe.averaging.fleet.ledger.by_kind()
    assert spent.pop("monitoring") == 12 * 4 * 2 * 4  # a flag to and fro
    assert not any(spent.values())


@pytest.mark.parametrize("make", [tacit.continuous, lambda: tacit.dynamic_averaging(0.0, every=1)])
def test_continuous_averaging_is_serial_learning_with_all_samples(make):
    """With plain SGD and mean losses: the mean of the steps is the step with the mean gradient."""
    torch.testing.assert_close(run(make()), run(tacit.serial()), rtol=1e-5, atol=1e-6)


def test_one_learner_alone_calls_and_gets_its_own_model_back():
    averaging = started(0.01, 1, Balancing())
    before = learn(averaging, 1, seed=1)
    assert averaging.step(1)
    assert torch.equal(averaging.models.parameters, before)


def test_the_counter_forces_a_full_synchronisation():
    """Two far out on opposite sides balance each other, until they have called 4 times."""
    sizes = []
    for counter in (True, False):
        averaging = started(1.0, 5, Balancing("one", counter))
        for step in range(1, 5):
            averaging.models.parameters[0] += 2.0
            averaging.models.parameters[1] -= 2.0
            averaging.step(step)
            assert averaging.settled is not None
            sizes.append(int(averaging.settled.members.sum()))
    assert sizes == [2, 2, 5, 2, 2, 2, 2, 2]  # 2 and 2 calls, and the third two make more than 5


def test_samples_since_the_last_time_weigh():
    averaging = started(1.0, 3, Balancing("all", weights="samples"), samples=[1, 2, 5])
    rows = averaging.models.parameters
    rows[:] = torch.tensor([[2.0], [0.0], [0.0]]).expand(3, D)
    averaging.step(4)
    assert float(rows[0, 0]) == pytest.approx(2 * 4 / (4 + 8 + 20))
    # 0 and 1 far out on opposite sides, so weighed that they balance: 2 has not taken part
    averaging.topology._strategy = AUGMENTATIONS["one"]  # from now on
    base = float(rows[0, 0])
    rows[0] = base + 4.0
    rows[1] = base - 2.0
    averaging.step(6)
    assert averaging.settled.members.tolist() == [True, True, False]
    assert float(rows[0, 0]) == pytest.approx(base, abs=1e-5)
    rows[:] = rows + 9.0
    averaging.step(7)  # 1 and 1 step, and 3
    expected = (1 * base + 2 * base + 15 * base) / 18 + 9.0
    assert float(rows[0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_refused_and_named(bad):
    averaging = started(1.0, 4, Balancing())
    averaging.models.parameters[2, 3] = bad
    before = averaging.models.parameters.clone()
    with pytest.raises(PeerError, match="worker 2 sent a model that is not finite at step 1"):
        averaging.step(1)
    torch.testing.assert_close(averaging.models.parameters, before, equal_nan=True)


@given(seed=st.integers(0, 30), augmentation=st.sampled_from(sorted(AUGMENTATIONS)))
@settings(max_examples=20)
def test_a_restored_coordinator_goes_on_as_before(seed: int, augmentation: str) -> None:
    def advance(averaging: ModelAveraging, steps: range) -> Tensor:
        for step in steps:
            learn(averaging, step, seed)
            averaging.step(step)
        return averaging.models.parameters

    whole = started(2.0, 6, Balancing(augmentation, weights="samples"))
    expected = advance(whole, range(1, 9))
    first = started(2.0, 6, Balancing(augmentation, weights="samples"))
    advance(first, range(1, 5))
    shared, own = copy.deepcopy((first.state_dict(), first.worker_state(0)))
    assert "coordinator" not in first.worker_state(1)
    second = started(2.0, 6, Balancing(augmentation, weights="samples"))
    second.models.parameters[:] = first.models.parameters
    second.load_state_dict(shared)
    second.load_worker_state(0, own)
    assert torch.equal(advance(second, range(5, 9)), expected)


def test_after_a_take_over_samples_are_counted_anew():
    averaging = started(1.0, 3, Balancing("all", weights="samples"))
    averaging.load_state_dict({**averaging.state_dict(), "reference": torch.zeros(D)})
    averaging.begin_again(torch.zeros(D), 1000)
    rows = averaging.models.parameters
    rows[:] = torch.tensor([[2.0], [-1.0], [2.0]]).expand(3, D)
    averaging.step(1010)  # 10 steps of each: the plain mean, not 1010
    assert averaging.topology._weights(1020).tolist() == [10.0, 10.0, 10.0]
    torch.testing.assert_close(rows, torch.ones(3, D))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_statistics_that_are_not_finite_are_refused_too(bad):
    averaging = started(1.0, 3, Balancing("all"))
    averaging.buffers = "average"
    averaging.models.buffers = torch.zeros(3, 2)
    averaging.models.buffers[1, 1] = bad
    averaging.models.parameters[0] += 3.0
    with pytest.raises(PeerError, match="worker 1 sent a model that is not finite"):
        averaging.step(1)


def test_a_mean_that_is_not_finite_stops_the_run():
    averaging = ModelAveraging(LocalCondition(1.0, 1))  # everyone, without a coordinator
    averaging.start(LocalFleet(3), Rows(3), None, Setting(3, D))  # type: ignore[arg-type]
    averaging.models.parameters[1, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match=r"models is not finite at step 0: worker 1 sent"):
        averaging.step(4)


# -- FedAvg among workers that never rest


def drawn(fraction: float, to: Any, workers: int = 5) -> ModelAveraging:
    averaging = ModelAveraging(Every(1), topology=Drawn(fraction, to))
    averaging.start(
        LocalFleet(workers),
        Rows(workers),
        None,
        Setting(workers, D, seed=5),  # type: ignore[arg-type]
    )
    return averaging


@pytest.mark.parametrize("to", ["drawn", "everyone"])
def test_a_drawn_part_is_averaged(to):
    averaging, taken = drawn(0.5, to), set()
    for step in range(1, 20):
        before = learn(averaging, step, 1)
        averaging.step(step)
        after = averaging.models.parameters
        members = torch.from_numpy(averaging.settled.members)
        assert members.sum() == 3  # of 2.5
        taken.add(tuple(members.tolist()))
        receivers = members | torch.tensor(to == "everyone")
        mean = before[members].mean(0)
        torch.testing.assert_close(after[receivers], mean.expand(int(receivers.sum()), -1))
        assert torch.equal(after[~receivers], before[~receivers])
    assert len(taken) > 4
    downloads = averaging.fleet.ledger.received("model").sum()
    assert downloads == 19 * 4 * D * (5 if to == "everyone" else 3)


def test_with_all_drawn_it_is_periodic_averaging():
    assert torch.equal(run(tacit.fedavg(1.0, period=3)), run(tacit.periodic(3)))


# -- what is refused


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Balancing(weights="heavy"), "weights are equal, rates, samples, not 'heavy'"),
        (lambda: Balancing("two"), "unknown augmentation 'two'"),
        (lambda: Drawn(0.0), "fraction must be in"),
        (lambda: Drawn(0.5, "nobody"), "the mean goes to drawn or everyone, not 'nobody'"),
        (lambda: LocalCondition(-1.0), "delta must be a number, at least 0, got -1"),
        (lambda: LocalCondition(float("nan")), "delta must be"),
        (lambda: LocalCondition(1.0, 0), "time between checks must be at least 1 step"),
        (lambda: LocalCondition(1.0, 2.5), "time between checks .* a whole number, got 2.5"),
        (lambda: Balancing(counter="no"), "counter is true or false, not 'no'"),
        (lambda: tacit.fedavg(0.5, period=3, lr=0.1), "epochs and lr belong to rounds of epochs"),
        (
            lambda: ModelAveraging(LocalCondition(1.0), topology=Balancing(), lag=1),
            "lag needs every worker",
        ),
        (
            lambda: ModelAveraging(Every(2), topology=Balancing(), overlap=1),
            "overlap needs every worker",
        ),
        (
            lambda: ModelAveraging(Every(2), topology=Drawn(0.5), optimizer_state="average"),
            "optimizer_state='average' needs every worker",
        ),
    ],
)
def test_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
