"""What every trigger keeps to. A new one is tested by adding it to the list."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from tacit.errors import UserError
from tacit.rng import torch_stream
from tacit.setting import Setting
from tacit.triggers import (
    Every,
    EveryEpochs,
    Exact,
    Linear,
    LocalCondition,
    ModelVariance,
    Naive,
    Never,
    Sketch,
    Trigger,
)

TRIGGERS: dict[str, Callable[[], Trigger]] = {
    "every step": lambda: Every(1),
    "every 3 steps": lambda: Every(3),
    "every epoch": lambda: EveryEpochs(1.0),
    "every half epoch": lambda: EveryEpochs(0.5),
    "never": lambda: Never(),
    "local condition": lambda: LocalCondition(0.5, every=1),
    "local condition every 3": lambda: LocalCondition(0.5, every=3),
    "exact": lambda: ModelVariance(0.5, Exact()),
    "naive": lambda: ModelVariance(0.5, Naive()),
    "linear": lambda: ModelVariance(0.5, Linear()),
    "linear every 2": lambda: ModelVariance(0.5, Linear(), every=2),
    "sketch": lambda: ModelVariance(0.5, Sketch(rows=3, columns=16)),
}
MONITORING = [name for name, make in TRIGGERS.items() if make().monitors]
COUNTING = [name for name in TRIGGERS if name not in MONITORING]

K, D = 4, 70
SETTING = Setting(workers=K, d=D, seed=3, steps_per_epoch=4.4)


def started(name: str) -> Trigger:
    trigger = TRIGGERS[name]()
    trigger.start(SETTING)
    return trigger


def models(step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch_stream(0, "models", step)
    reference = torch.randn(D, generator=draw)
    return reference + torch.randn(K, D, generator=draw), reference


@pytest.mark.parametrize("name", sorted(TRIGGERS.keys() - {"never"}))
def test_is_due_now_and_then(name):
    trigger = started(name)
    due = [step for step in range(1, 25) if trigger.due(step)]
    assert due
    gaps = {after - before for before, after in zip([0, *due], due, strict=False)}
    assert len(gaps) == 1  # regular, from step 0 on


def test_never_is_never_due():
    trigger = started("never")
    assert not any(trigger.due(step) for step in range(1, 100))
    assert trigger.next_due(10**9) > 10**12


@pytest.mark.parametrize("name", COUNTING)
def test_a_counting_trigger_sends_nothing(name):
    trigger = started(name)
    assert trigger.threshold is None
    assert not trigger.fires(1e9)
    with pytest.raises(TypeError, match="does not monitor"):
        trigger.local_state(*models())
    with pytest.raises(TypeError, match="does not monitor"):
        trigger.estimate(torch.zeros(1))


@pytest.mark.parametrize("name", MONITORING)
def test_a_state_is_one_small_row_for_each_worker(name):
    trigger = started(name)
    parameters, reference = models()
    before = parameters.clone(), reference.clone()
    state = trigger.local_state(parameters, reference)
    assert state.dtype == torch.float32
    assert state.shape[0] == K
    assert state.dim() == 2
    assert torch.equal(parameters, before[0])
    assert torch.equal(reference, before[1])


@pytest.mark.parametrize("name", MONITORING)
def test_a_workers_state_does_not_depend_on_who_is_hosted_beside_it(name):
    trigger = started(name)
    parameters, reference = models()
    padded = torch.zeros(K, 128)[:, :D].copy_(parameters)  # as rows of replicas are
    together = trigger.local_state(padded, reference)
    for row in range(K):
        alone = trigger.local_state(parameters[row : row + 1], reference)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("name", MONITORING)
def test_fires_above_the_threshold_alone(name):
    trigger = started(name)
    if trigger.threshold is None:  # of flags: anybody's will do
        assert trigger.fires(1e-6)
        assert not trigger.fires(0.0)
        return
    assert trigger.threshold == 0.5
    assert not trigger.fires(0.5)
    assert trigger.fires(0.5000001)
    assert not trigger.fires(0.0)


@pytest.mark.parametrize("name", MONITORING)
def test_no_drift_is_no_variance(name):
    trigger = started(name)
    _, reference = models()
    state = trigger.local_state(reference.expand(K, -1).clone(), reference)
    assert trigger.estimate(state.mean(dim=0)) == 0.0


@pytest.mark.parametrize("name", MONITORING)
def test_processes_that_start_alike_agree(name):
    """Hash functions and directions come from the seed: all processes make the same ones."""
    parameters, reference = models()
    one, other = started(name), started(name)
    assert torch.equal(
        one.local_state(parameters, reference), other.local_state(parameters, reference)
    )


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_restored_trigger_estimates_as_before(name):
    trigger = started(name)
    trigger.synchronised(torch.arange(D, dtype=torch.float32))
    restored = started(name)
    restored.load_state_dict(copy.deepcopy(trigger.state_dict()))
    assert [restored.due(s) for s in range(1, 20)] == [trigger.due(s) for s in range(1, 20)]
    if trigger.monitors:
        parameters, reference = models(1)
        state = trigger.local_state(parameters, reference)
        assert torch.equal(restored.local_state(parameters, reference), state)
        mean = state.mean(dim=0)
        assert restored.estimate(mean) == trigger.estimate(mean) > 0


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_can_begin_another_run(name):
    trigger = started(name)
    trigger.synchronised(torch.ones(D))
    trigger.start(SETTING)
    if trigger.monitors:
        parameters, reference = models(2)
        fresh = started(name).local_state(parameters, reference)
        assert torch.equal(trigger.local_state(parameters, reference), fresh)


def test_periods():
    assert [step for step in range(1, 13) if started("every 3 steps").due(step)] == [3, 6, 9, 12]
    # 4.4 steps are an epoch, 2.2 half of one: whole steps
    assert [step for step in range(1, 13) if started("every epoch").due(step)] == [4, 8, 12]
    assert [step for step in range(1, 8) if started("every half epoch").due(step)] == [2, 4, 6]
    assert [step for step in range(1, 8) if started("linear every 2").due(step)] == [2, 4, 6]


def test_a_fraction_of_a_step_is_one_step():
    trigger = EveryEpochs(0.001)
    trigger.start(SETTING)
    assert trigger.due(1)
    assert trigger.due(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Every(0), "at least 1 step, a whole number, got 0"),
        (lambda: EveryEpochs(0), "above 0, got 0"),
        (lambda: EveryEpochs(float("nan")), "above 0, got nan"),
        (lambda: EveryEpochs(float("inf")), "finite"),
        (lambda: ModelVariance(-1.0, Naive()), "at least 0, got -1"),
        (lambda: ModelVariance(float("nan"), Naive()), "theta must be a finite number"),
        (lambda: ModelVariance(float("inf"), Naive()), "theta must be a finite number"),
        (lambda: ModelVariance(1.0, Naive(), every=0), "at least 1 step, a whole number, got 0"),
    ],
)
def test_impossible_settings(make, message):
    with pytest.raises(UserError, match=message):
        make()
