from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.tasks import SGD, convolution, perceptron
from tacit import rng
from tacit.aggregators import OuterOptimizer, WeightedMean
from tacit.averaging import ModelAveraging, consensus
from tacit.errors import UserError
from tacit.fleet import LocalFleet
from tacit.optimizers import LocalOptimizer
from tacit.replicas import Replicas
from tacit.rng import torch_stream
from tacit.setting import Setting
from tacit.topologies import Sampled
from tacit.triggers import Every, Exact, Linear, ModelVariance, Naive, Trigger

K = 4


class Scripted(Trigger):
    """Fires on the checks it is told to; remembers what it saw."""

    monitors = True
    threshold = 0.5

    def __init__(self, *fires: bool, every: int = 1) -> None:
        self.answers = list(fires)
        self.period = every
        self.seen: list[Tensor] = []
        self.movements: list[Tensor] = []

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        self.seen.append(parameters.clone())
        return torch.full((len(parameters), 2), float(self.answers.pop(0)))

    def estimate(self, mean_state: Tensor) -> float:
        return float(mean_state[0])

    def synchronised(self, movement: Tensor) -> None:
        self.movements.append(movement)


def started(
    averaging: ModelAveraging, model=perceptron, optimizer=SGD, **setting: Any
) -> ModelAveraging:
    with rng.scoped(0, "model"):
        replicas = Replicas(model(), K)
    local = LocalOptimizer(replicas, optimizer, together=not averaging.topology.partial)
    averaging.start(LocalFleet(K), replicas, local, Setting(K, replicas.d, **setting))
    return averaging


def train(averaging: ModelAveraging, step: int) -> Tensor:
    """Move every worker's model somewhere else; where they were before the exchange."""
    replicas = averaging.models
    draw = torch_stream(0, "local", step)
    replicas.parameters.add_(torch.randn(K, replicas.d, generator=draw), alpha=0.1)
    averaging.fleet.ledger.step = step
    return replicas.parameters.clone()


def run(averaging: ModelAveraging, steps: range) -> list[int]:
    fired = []
    for step in steps:
        train(averaging, step)
        if averaging.step(step):
            fired.append(step)
    return fired


def events(averaging: ModelAveraging) -> list[tuple[int, str, int]]:
    return [(e.step, e.kind, e.payload) for e in averaging.fleet.ledger]


# -- Algorithm 1


def test_a_synchronisation_replaces_all_models_by_their_mean():
    averaging = started(ModelAveraging(Scripted(False, True)))
    start = averaging.reference.clone()
    first = train(averaging, 1)
    assert not averaging.step(1)
    assert torch.equal(averaging.models.parameters, first)
    assert torch.equal(averaging.reference, start)
    second = train(averaging, 2)
    assert averaging.step(2)
    mean = second.mean(dim=0)
    torch.testing.assert_close(averaging.models.parameters, mean.expand(K, -1))
    torch.testing.assert_close(averaging.reference, mean)
    (movement,) = averaging.trigger.movements
    torch.testing.assert_close(movement, mean - start)
    assert averaging.rounds == 1


def test_every_check_is_charged_and_every_exchange():
    averaging = started(ModelAveraging(Scripted(False, True, False)))
    run(averaging, range(1, 4))
    size = 4 * averaging.models.d
    assert events(averaging) == [
        (1, "monitoring", 8),
        (2, "monitoring", 8),
        (2, "model", size),
        (3, "monitoring", 8),
    ]
    assert not any(event.overlap for event in averaging.fleet.ledger)


def test_the_estimate_is_that_of_the_last_step_or_none():
    averaging = started(ModelAveraging(Scripted(False, True, every=2)))
    seen = []
    for step in range(1, 5):
        train(averaging, step)
        averaging.step(step)
        seen.append(averaging.estimate)
    assert seen == [None, 0.0, None, 1.0]


def test_checks_every_b_steps():
    averaging = started(ModelAveraging(Scripted(False, True, True, every=3)))
    assert run(averaging, range(1, 12)) == [6, 9]
    assert [step for step, kind, _ in events(averaging) if kind == "monitoring"] == [3, 6, 9]


def test_a_counting_trigger_sends_models_alone():
    averaging = started(ModelAveraging(Every(2)))
    assert run(averaging, range(1, 6)) == [2, 4]
    assert {kind for _, kind, _ in events(averaging)} == {"model"}
    assert averaging.estimate is None


@given(
    st.integers(0, 10**6),
    st.sampled_from([Exact, Linear, Naive]),
    st.floats(0.01, 3.0),
)
def test_the_variance_is_within_theta_after_every_check_that_did_not_synchronise(
    seed, estimator, theta
):
    averaging = started(ModelAveraging(ModelVariance(theta, estimator())), seed=seed)
    parameters = averaging.models.parameters
    for step in range(1, 13):
        draw = torch_stream(seed, "local", step)
        common = torch.randn(averaging.models.d, generator=draw)
        own = torch.randn(K, averaging.models.d, generator=draw)
        parameters.add_(0.3 * common + 0.05 * (1 + seed % 3) * own)
        reference = averaging.reference.double()
        drift = parameters.double() - reference
        before = float((drift - drift.mean(0)).square().sum(1).mean())
        slack = 1e-6 * float(drift.square().sum(1).mean())
        if averaging.step(step):
            assert not (parameters - parameters[0]).any()
            if estimator is Exact:
                assert before > theta - slack
        else:
            assert before <= theta + slack


# -- lag


def test_with_lag_1_the_decision_comes_one_step_later():
    averaging = started(ModelAveraging(Scripted(False, True, False, False), lag=1))
    states = []
    fired = []
    for step in range(1, 6):
        states.append(train(averaging, step))
        fired.append(averaging.step(step))
    # The check of step 2 says yes; step 3 synchronises the models of step 3, and checks nothing.
    assert fired == [False, False, True, False, False]
    checked = [step for step, kind, _ in events(averaging) if kind == "monitoring"]
    assert checked == [1, 2, 4, 5]
    for seen, step in zip(averaging.trigger.seen, checked, strict=True):
        assert torch.equal(seen, states[step - 1])
    assert all(e.overlap == (e.kind == "monitoring") for e in averaging.fleet.ledger)
    torch.testing.assert_close(averaging.reference, states[2].mean(dim=0))


def test_with_lag_1_the_estimate_is_the_late_one():
    averaging = started(ModelAveraging(Scripted(False, True, False), lag=1))
    seen = []
    for step in range(1, 5):
        train(averaging, step)
        averaging.step(step)
        seen.append(averaging.estimate)
    assert seen == [None, 0.0, 1.0, None]


def test_lag_1_with_checks_every_2_steps():
    averaging = started(ModelAveraging(Scripted(True, False, True, every=2), lag=1))
    assert run(averaging, range(1, 8)) == [3, 7]
    assert [s for s, kind, _ in events(averaging) if kind == "monitoring"] == [2, 4, 6]


def test_a_pending_decision_survives_a_checkpoint():
    def fresh() -> ModelAveraging:
        return started(ModelAveraging(ModelVariance(0.5, Linear()), lag=1))

    whole = fresh()
    expected = run(whole, range(1, 12))
    assert 2 < len(expected) < 10
    for stop in range(1, 11):
        first, second = fresh(), fresh()
        fired = run(first, range(1, stop + 1))
        state = copy.deepcopy(first.state_dict())
        first.step(stop + 1)  # saving has not disturbed it; going on does not disturb the copy
        second.load_state_dict(state)
        second.models.parameters.copy_(_after(fresh(), stop))
        fired += run(second, range(stop + 1, 12))
        assert fired == expected
        assert torch.equal(second.models.parameters, whole.models.parameters)
        assert torch.equal(second.reference, whole.reference)
        assert second.rounds == whole.rounds


def _after(averaging: ModelAveraging, steps: int) -> Tensor:
    run(averaging, range(1, steps + 1))
    return averaging.models.parameters


# -- participants


def test_only_participants_are_averaged_and_charged_and_all_get_the_model():
    averaging = started(ModelAveraging(Scripted(False, True), topology=Sampled(0.5)))
    who = averaging.participants.clone()
    assert who.sum() == 2
    train(averaging, 1)
    averaging.step(1)
    averaging.models.parameters[~who] = torch.nan  # not read
    trained = train(averaging, 2)
    assert averaging.step(2)
    mean = trained[who].mean(dim=0)
    torch.testing.assert_close(averaging.models.parameters, mean.expand(K, -1))
    ledger, size = averaging.fleet.ledger, 4 * averaging.models.d
    assert ledger.sent("model").tolist() == [size * int(p) for p in who]
    assert ledger.sent("monitoring").tolist() == [2 * 8 * int(p) for p in who]
    assert torch.equal(averaging.participants, averaging.topology.participants(1))


def test_a_restored_round_has_its_participants():
    first, second = (
        started(ModelAveraging(Every(1), topology=Sampled(0.5)), seed=1) for _ in range(2)
    )
    run(first, range(1, 4))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.participants, first.participants)
    assert torch.equal(second.participants, first.topology.participants(3))


def test_weights_by_samples():
    samples = torch.tensor([1, 2, 3, 4])
    averaging = started(ModelAveraging(Every(1), WeightedMean()), samples=samples)
    trained = train(averaging, 1)
    averaging.step(1)
    expected = (trained * samples[:, None]).sum(dim=0) / 10
    torch.testing.assert_close(averaging.reference, expected)


# -- the outer optimizer


def test_an_outer_step_starts_from_the_last_global_model():
    outer = OuterOptimizer(partial(torch.optim.SGD, lr=0.5))
    averaging = started(ModelAveraging(Every(1), outer=outer))
    start = averaging.reference.clone()
    trained = train(averaging, 1)
    averaging.step(1)
    expected = start + 0.5 * (trained.mean(dim=0) - start)
    torch.testing.assert_close(averaging.reference, expected)
    assert torch.equal(averaging.models.parameters, averaging.reference.expand(K, -1))


# -- buffers and optimizer state


def trained_convolution(**settings: Any) -> ModelAveraging:
    """After one real local step of every worker, before the exchange."""
    optimizer = partial(torch.optim.Adam, lr=0.01)
    averaging = started(ModelAveraging(Every(1), **settings), convolution, optimizer)
    for row in range(K):
        module = averaging.models.bind(row).train()
        draw = torch_stream(0, "x", row)
        module(torch.randn(5, 1, 6, 6, generator=draw)).square().sum().backward()
    averaging.optimizer.step(list(range(K)))
    return averaging


def test_buffers_and_optimizer_state_stay_local_unless_asked():
    averaging = trained_convolution()
    buffers = averaging.models.buffers.clone()
    moments = [t.clone() for t in averaging.optimizer.rows()]
    averaging.step(1)
    assert torch.equal(averaging.models.buffers, buffers)
    for before, after in zip(moments, averaging.optimizer.rows(), strict=True):
        assert torch.equal(before, after)
    assert [payload for _, _, payload in events(averaging)] == [4 * averaging.models.d]


def test_averaged_buffers_travel_and_are_charged():
    averaging = trained_convolution(buffers="average")
    before = averaging.models.buffers.clone()
    averaging.step(1)
    expected = before.mean(dim=0).expand(K, -1)
    torch.testing.assert_close(averaging.models.buffers, expected)
    assert (before - expected).abs().max() > 1e-3
    assert events(averaging) == [(0, "model", 4 * averaging.models.d), (0, "model", 4 * 6)]
    # the counters of batches do not
    assert [c["1.num_batches_tracked"].item() for c in averaging.models.counters] == [1] * K


def test_averaged_optimizer_state_travels_and_is_charged():
    averaging = trained_convolution(optimizer_state="average")
    before = [t.clone() for t in averaging.optimizer.rows()]
    averaging.step(1)
    after = averaging.optimizer.rows()
    assert len(after) == 2
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old.mean(dim=0).expand(K, -1))
        assert (old - new).abs().max() > 0
    size = 4 * averaging.models.d
    assert events(averaging) == [(0, "model", size)] * 3  # the model and two moments


def test_optimizer_state_is_averaged_where_each_worker_has_an_optimizer_too():
    averaging = trained_convolution(optimizer_state="average")
    apart = ModelAveraging(Every(1), optimizer_state="average")
    with rng.scoped(0, "model"):
        replicas = Replicas(convolution(), K)
    local = LocalOptimizer(replicas, partial(torch.optim.Adam, lr=0.01), together=False)
    apart.start(LocalFleet(K), replicas, local, Setting(K, replicas.d))
    replicas.gradients.copy_(averaging.models.gradients)
    local.step(list(range(K)))
    averaging.step(1)
    apart.step(1)
    for one, other in zip(_columns(averaging), _columns(apart), strict=True):
        torch.testing.assert_close(one, other)
    assert apart.fleet.ledger.bytes() == averaging.fleet.ledger.bytes()


def _columns(averaging: ModelAveraging) -> list[list[float]]:
    """The state as sets of numbers: its order differs between the two ways to keep it."""
    rows = torch.cat(averaging.optimizer.rows(), dim=1)
    return [sorted(row.tolist()) for row in rows]


def test_nothing_is_charged_for_state_that_does_not_exist():
    averaging = started(ModelAveraging(Every(1), buffers="average", optimizer_state="average"))
    train(averaging, 1)
    averaging.step(1)
    assert events(averaging) == [(1, "model", 4 * averaging.models.d)]


# -- looking


def test_consensus_is_the_mean_and_is_not_charged():
    averaging = started(ModelAveraging(Every(9)))
    trained = train(averaging, 1)
    rows = averaging.models.parameters
    torch.testing.assert_close(consensus(averaging.fleet, rows), trained.mean(dim=0))
    who = torch.tensor([True, False, False, True])
    torch.testing.assert_close(consensus(averaging.fleet, rows, who), trained[[0, 3]].mean(dim=0))
    ledger = averaging.fleet.ledger
    assert ledger.bytes() == 0
    assert ledger.bytes("evaluation") == (4 + 2) * 2 * 4 * averaging.models.d


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"buffers": "sometimes"}, "buffers must be local or average, not 'sometimes'"),
        ({"optimizer_state": "reset"}, "optimizer_state must be local or average"),
        ({"lag": -1}, "lag 0 or more steps, not -1"),
        ({"overlap": -2}, "travel 0 or more steps, not -2"),
        ({"overlap": 2, "topology": Sampled(0.5)}, "overlap needs every worker"),
        (
            {"optimizer_state": "average", "topology": Sampled(0.5)},
            "needs every worker in every round",
        ),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(UserError, match=message):
        ModelAveraging(Every(1), **settings)


# -- overlap


def test_models_travel_while_workers_learn():
    averaging = started(ModelAveraging(Every(4), overlap=2))
    start = averaging.reference.clone()
    before: list[Tensor] = []
    after: list[Tensor] = []
    fired = []
    for step in range(1, 8):
        before.append(train(averaging, step))
        fired.append(averaging.step(step))
        after.append(averaging.models.parameters.clone())
    # they leave after step 4 and arrive after step 6
    assert fired == [False] * 5 + [True, False]
    mean = before[3].mean(dim=0)
    assert torch.equal(after[4], before[4])
    torch.testing.assert_close(after[5], mean + (before[5] - before[3]))
    torch.testing.assert_close(averaging.reference, mean)
    assert not torch.equal(averaging.reference, start)
    # the mean of the workers' models is what it would have been without the exchange
    torch.testing.assert_close(after[5].mean(0), before[5].mean(0))
    assert [(e.step, e.kind, e.overlap) for e in averaging.fleet.ledger] == [(4, "model", 2)]


def test_nothing_is_checked_while_models_travel():
    averaging = started(ModelAveraging(Scripted(True, True, False), overlap=3))
    assert run(averaging, range(1, 10)) == [4, 8]
    assert [s for s, kind, _ in events(averaging) if kind == "monitoring"] == [1, 5, 9]


def test_a_long_lag_spaces_the_checks():
    averaging = started(ModelAveraging(Scripted(False, True, False), lag=3))
    assert run(averaging, range(1, 9)) == [7]
    assert [s for s, kind, _ in events(averaging) if kind == "monitoring"] == [1, 4, 8]


VARIANTS = st.builds(
    ModelAveraging,
    st.one_of(
        st.builds(Every, st.integers(1, 7)),
        st.builds(ModelVariance, st.floats(0.05, 2.0), st.builds(Linear), st.integers(1, 4)),
    ),
    lag=st.integers(0, 4),
    overlap=st.integers(0, 5),
    buffers=st.sampled_from(["local", "average"]),
)


class Counting(LocalFleet):
    """Remembers at which steps something left, roll calls included, and how wide it was."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.left: list[tuple[int, int]] = []

    def mean_later(self, rows, kind, weights=None, overlap=0):
        self.left.append((self.ledger.step, rows.shape[1]))
        return super().mean_later(rows, kind, weights, overlap)

    def roll_call(self):
        self.left.append((self.ledger.step, 0))


@given(VARIANTS, st.integers(0, 10**6))
def test_the_next_message_is_foreseen(averaging, seed):
    started(averaging, model=convolution, seed=seed)
    averaging.fleet = fleet = Counting(K)
    for step in range(1, 25):
        foreseen, width = averaging.next_message(step - 1)
        train(averaging, step)
        fleet.ledger.step, fleet.left = step, []
        averaging.step(step)
        if fleet.left:
            assert (foreseen, width) == fleet.left[0]
        else:
            assert foreseen > step


@given(VARIANTS, st.integers(1, 20), st.integers(0, 10**6))
def test_what_travels_survives_a_checkpoint(averaging, stop, seed):
    other = started(copy.deepcopy(averaging), model=convolution, seed=seed)
    whole = started(averaging, model=convolution, seed=seed)
    for step in range(1, stop + 1):
        train(whole, step)
        whole.step(step)
    other.load_state_dict(copy.deepcopy(whole.state_dict()))
    for row in range(K):
        other.load_worker_state(row, whole.worker_state(row))
    other.models.parameters.copy_(whole.models.parameters)
    other.models.buffers.copy_(whole.models.buffers)
    assert run(whole, range(stop + 1, 26)) == run(other, range(stop + 1, 26))
    assert torch.equal(whole.models.parameters, other.models.parameters)
    assert torch.equal(whole.models.buffers, other.models.buffers)
