"""A variance trigger whose states are combined by a robust rule: what liars cannot do to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tacit
from helpers.tasks import mlp_task
from tacit.aggregators import Aggregator, Mean, aggregator
from tacit.attacks import Liars
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import LocalFleet
from tacit.rng import torch_stream
from tacit.setting import Setting
from tacit.sketches.moments import drift_moments
from tacit.triggers import Estimator, Exact, Linear, ModelVariance, Naive, Sketch

D = 6
ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "linear": Linear,
    "naive": Naive,
    "exact": Exact,
    "sketch": lambda: Sketch(3, 8),
}
DECISIONS = ("trimmed_mean:f={f}", "median:f={f}", "median")
#: Of squares of what was combined, relative. What is combined is not rounded beyond what was sent:
#: a mean of float32 numbers is made in float64.
ROUNDING = 1e-6

SIZES = st.integers(1, 3).flatmap(lambda f: st.tuples(st.just(f), st.integers(f + 1, f + 4)))
NUMBERS = st.one_of(
    st.floats(-10, 10, width=32),
    st.floats(width=32),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3.4e38, 0.0, -1.0]),
)


class Case:
    """Honest drifts and what liars say, as hypothesis likes them."""

    def __init__(self, data: st.DataObject, name: str, decision: str) -> None:
        self.f, self.honest = data.draw(SIZES)
        self.estimator = ESTIMATORS[name]()
        rule = aggregator(decision.format(f=self.f))
        self.trigger = ModelVariance(1.0, self.estimator, decision=rule)
        self.trigger.start(Setting(self.f + self.honest, D, seed=data.draw(st.integers(0, 99))))
        draws = torch_stream(data.draw(st.integers(0, 10_000)), "drifts")
        # apart, together, or as good as standing still
        together, apart = (data.draw(st.sampled_from([0.0, 0.01, 1.0, 30.0])) for _ in range(2))
        drifts = together * torch.randn(D, generator=draws)
        self.drifts = drifts + apart * torch.randn(self.honest, D, generator=draws)
        if data.draw(st.booleans()):
            self.trigger.synchronised(torch.randn(D, generator=draws))
        self.states = self.trigger.local_state(self.drifts, torch.zeros(D))
        size = self.states.shape[1]
        lies = [
            data.draw(st.lists(NUMBERS, min_size=min(size, 7), max_size=min(size, 7)))
            for _ in range(self.f)
        ]
        told = torch.tensor([(lie * size)[:size] for lie in lies])
        order = data.draw(st.permutations(range(self.f + self.honest)))
        self.rows = torch.cat([self.states, told])[list(order)]

    @property
    def squares(self) -> Tensor:
        """``||u_k||^2`` as the honest send it."""
        return self.states[:, 0].double()

    @property
    def along(self) -> Tensor:
        """``<xi, u_k>^2`` as the honest send it."""
        return self.states[:, 1].double().square()

    def estimate(self) -> float:
        return self.trigger.estimate(self.trigger.decision(self.rows))


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("name", ESTIMATORS)
@given(data=st.data())
def test_each_number_is_between_two_that_honest_workers_sent(
    name: str, decision: str, data: st.DataObject
) -> None:
    case = Case(data, name, decision)
    combined = case.trigger.decision(case.rows)
    low, high = case.states.min(dim=0).values, case.states.max(dim=0).values
    assert (combined >= low).all()
    assert (combined <= high).all()


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("name", ESTIMATORS)
@given(data=st.data())
def test_liars_cannot_force_a_synchronisation(
    name: str, decision: str, data: st.DataObject
) -> None:
    """While no honest worker is farther than theta."""
    case = Case(data, name, decision)
    case.trigger.threshold = float(case.squares.max())
    assert not case.trigger.fires(case.estimate())


@pytest.mark.parametrize("decision", DECISIONS)
@given(data=st.data())
def test_liars_cannot_suppress_a_synchronisation_of_linear_fda(
    decision: str, data: st.DataObject
) -> None:
    """Once the smallest honest square less the largest honest part along xi is above theta."""
    case = Case(data, "linear", decision)
    bound = float(case.squares.min() - case.along.max())
    room = ROUNDING * float(case.squares.max() + case.along.max())
    estimate = case.estimate()
    assert estimate >= bound - room
    case.trigger.threshold = max(0.0, bound - 2 * room)
    assert case.trigger.fires(estimate) or bound <= 2 * room


@pytest.mark.parametrize("decision", DECISIONS)
@given(data=st.data())
def test_liars_cannot_suppress_a_synchronisation_of_naive_fda(
    decision: str, data: st.DataObject
) -> None:
    """Once all honest workers are farther than theta."""
    case = Case(data, "naive", decision)
    smallest = float(case.squares.min())
    assert case.estimate() >= smallest * (1 - ROUNDING)


def test_exact_and_sketch_promise_nothing_of_the_kind() -> None:
    """Of each coordinate the largest honest value: the liar calls what is apart a common drift."""
    apart = torch.eye(2) * 3
    for estimator in (Exact(), Sketch(3, 64)):
        trigger = ModelVariance(1.0, estimator, decision=aggregator("median:f=1"))
        trigger.start(Setting(3, 2))
        states = trigger.local_state(apart, torch.zeros(2))
        assert trigger.fires(trigger.estimate(states.mean(dim=0)))
        biggest = torch.where(states.sum(0) > 0, states.amax(0), states.amin(0))
        suppressed = trigger.estimate(trigger.decision(torch.cat([states, biggest[None]])))
        assert not trigger.fires(suppressed), type(estimator).__name__


@pytest.mark.parametrize("name", ESTIMATORS)
def test_of_a_mean_one_liar_makes_what_it_wants(name: str) -> None:
    drifts = torch.randn(9, D, generator=torch_stream(0, "mean"))
    trigger = ModelVariance(1.0, ESTIMATORS[name]())
    assert type(trigger.decision) is Mean
    trigger.start(Setting(10, D))
    states = trigger.local_state(drifts, torch.zeros(D))
    for factor, fires in ((0.01, True), (10.0, False)):
        honest = trigger.local_state(drifts * factor, torch.zeros(D))
        assert trigger.fires(trigger.estimate(honest.mean(dim=0))) is not fires
        lie = torch.zeros_like(states[0])
        lie[0] = 1e6 if fires else -1e6
        estimate = trigger.estimate(torch.cat([honest, lie[None]]).mean(dim=0))
        assert trigger.fires(estimate) is fires


# -- in a run


def fired(liars: Liars | None, estimator: str, decision: str | None, **options: int) -> list[int]:
    recipe = tacit.fda(0.02, estimator, columns=16, decision=decision, **options)  # type: ignore[arg-type]
    run = tacit.Simulation(mlp_task(), recipe, LocalFleet(5), seed=1, liars=liars)
    return [step for step in range(1, 41) if run.step()]


@pytest.mark.parametrize("estimator", ["linear", "sketch"])
def test_inflated_and_deflated_states(estimator: str) -> None:
    def attacked(states: str, decision: str | None) -> list[int]:
        return fired(Liars(1, states=states), estimator, decision)

    assert attacked("inflate", None) == list(range(1, 41))
    assert attacked("deflate:along=true", None) == []
    usual = fired(None, estimator, None)
    assert 1 < len(usual) < 20
    for decision in ("trimmed_mean(f=1)", "median"):
        for states in ("inflate", "deflate:along=true", "nan", "inf", "huge", "silence"):
            steps = attacked(states, decision)
            assert len(usual) / 2 < len(steps) < 2 * len(usual), (decision, states)


def test_states_that_are_no_numbers_end_a_mean_in_one_line() -> None:
    for states in ("nan", "inf"):
        with pytest.raises(TrainingDiverged, match="not finite at step 1") as caught:
            fired(Liars(1, states=states), "linear", None)
        assert "\n" not in str(caught.value)


def test_a_decision_goes_with_lag_and_pauses() -> None:
    for options in ({"lag": 1}, {"every": 3}, {"lag": 2, "every": 3, "overlap": 1}):
        steps = fired(Liars(1, states="inflate"), "linear", "trimmed_mean(f=1)", **options)
        assert 0 < len(steps) < 20
        assert len(fired(Liars(1, states="inflate"), "linear", None, **options)) > len(steps)


def test_a_rule_that_needs_more_workers_is_refused_before_the_first_step() -> None:
    def rule(text: str) -> Aggregator:
        return aggregator(text)

    trigger = ModelVariance(1.0, Naive(), decision=rule("trimmed_mean:f=2"))
    with pytest.raises(UserError, match="trimmed_mean with f=2 needs n > 2 f, at least 5 rows"):
        trigger.start(Setting(4, D))
    with pytest.raises(UserError, match="unknown aggregator 'medain'; did you mean 'median'"):
        tacit.fda(1.0, decision="medain")


def test_states_are_what_the_docstring_calls_them() -> None:
    """The first entry is the squared norm, the second, of LinearFDA, the part along xi."""
    linear = Linear()
    linear.start(Setting(3, D, seed=5))
    drifts = torch.randn(3, D, generator=torch_stream(1, "states"))
    states = linear.local_state(drifts, torch.zeros(D))
    torch.testing.assert_close(states[:, 0], drifts.square().sum(dim=1))
    torch.testing.assert_close(states[:, 1], drifts @ linear.xi)
    assert drift_moments(drifts, torch.zeros(D), linear.xi).shape == (3, 2)
