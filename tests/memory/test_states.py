"""Memories that are saved, restored and taken over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from helpers.rig import Rig, equal, noise
from tacit.aggregators import as_aggregator
from tacit.memory import (
    EF21,
    EF21W,
    Averages,
    ErrorFeedback,
    Heard,
    Increments,
    Memory,
    VelocityMemory,
)
from tacit.schedule import Densities

D = 40
FIRST = noise(D, seed=1)


class Case(NamedTuple):
    memory: Callable[[], Memory]
    compressor: str = "topk(k=4)"
    download: str | None = None
    densities: tuple[float, list[float]] | None = None
    heard: Callable[[], Heard] = Heard
    aggregator: str = "mean"


CASES = {
    "none": Case(Memory, "qsgd", "qsgd"),
    "feedback": Case(ErrorFeedback),
    "feedback fading": Case(lambda: ErrorFeedback(0.9), "topk(k=4,values=int8)"),
    "feedback both ways": Case(ErrorFeedback, "topk(k=8)", "randomk(k=8)"),
    "feedback low rank": Case(ErrorFeedback, "lowrank", "lowrank"),
    "dgc": Case(VelocityMemory),
    "dgc more": Case(
        lambda: VelocityMemory(0.8, True, clip=1.0, weight_decay=0.1),
        "sampled_topk(density=0.1)",
        densities=(0.1, [1.0, 0.2]),
    ),
    "ef21": Case(EF21),
    "ef21 both ways": Case(lambda: EF21(0.3), download="topk(k=4)"),
    "ef21 zero": Case(lambda: EF21(start="zero"), "randomk(k=4)"),
    "ef21_w": Case(lambda: EF21W([1.0, 2.0, 4.0]), "threshold(t=1.5)", "identity"),
    "ef21_w measuring": Case(lambda: EF21W(estimate=6), "threshold(t=1.5)", "identity"),
    "ef21_w momentum": Case(lambda: EF21W(estimate=3, momentum=0.5), "natural", "topk(k=6)"),
    "byz_ef21": Case(EF21, heard=Increments, aggregator="trimmed_mean(f=1)"),
    "byz_ef21 both ways": Case(
        lambda: EF21(0.3), "topk(k=4)", "topk(k=4)", None, Increments, "median"
    ),
    "rosdhb": Case(Memory, "randomk(k=8,scaled=true)", heard=Averages, aggregator="median"),
    "rosdhb both ways": Case(
        Memory, "randomk(k=8,scaled=true)", "topk(k=8)", None, lambda: Averages(0.5), "median"
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def made(case: Case, workers: int = 3) -> Rig:
    densities = Densities(*case.densities) if case.densities else None
    memory = case.memory()
    return Rig(
        memory,
        case.compressor,
        FIRST,
        workers,
        0.05,
        case.download,
        densities,
        as_aggregator(case.aggregator),
        heard=case.heard(),
        steps_per_epoch=3.0,
    )


def frozen(rig: Rig) -> tuple:
    return copy.deepcopy((rig.states(), rig.rows.parameters, rig.steps))


def continued(case: Case, state: tuple) -> Rig:
    (shared, workers), parameters, steps = copy.deepcopy(state)
    rig = made(case)
    rig.rows.parameters[:] = parameters
    rig.steps = rig.fleet.ledger.step = steps
    rig.load(shared, workers)
    return rig


@every
@pytest.mark.parametrize("at", [0, 1, 4, 7])
def test_a_run_goes_on_as_if_it_had_not_stopped(case, at):
    """To the bit."""
    gradients = noise(12, 3, D)
    whole, first = made(case), made(case)
    expected = whole.run(gradients, 12)
    first.run(gradients, at)
    state = frozen(first)
    second = continued(case, state)
    assert equal(second.states(), state[0])
    assert torch.equal(second.run(gradients, 12 - at), expected)
    assert equal(second.states(), whole.states())


@every
def test_what_is_saved_is_no_view(case):
    rig = made(case)
    gradients = noise(8, 3, D)
    rig.run(gradients, 4)
    workers = rig.states()[1]
    before = copy.deepcopy(workers)
    rig.run(gradients, 4)
    assert equal(workers, before)


@pytest.mark.parametrize("case", [c for n, c in CASES.items() if "ef21" not in n])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_another_number_of_workers_takes_over_what_is_unsent(case, workers):
    before, after = made(case), made(case, workers)
    before.run(noise(7, 3, D), 7)
    after.exchange.take_over(*copy.deepcopy(before.states()))
    for name, rows in after.memory.rows().items():
        torch.testing.assert_close(rows.mean(0), before.memory.rows()[name].mean(0))
    if case.download is not None:
        unsent = after.states()[1][0]["coordinator"]["unsent"]
        assert torch.equal(unsent, before.states()[1][0]["coordinator"]["unsent"])
    after.steps = before.steps
    assert after.run(noise(20, workers, D), 5).isfinite().all()


@pytest.mark.parametrize(
    "make",
    [EF21, lambda: EF21(momentum=0.5), lambda: EF21W(estimate=3), lambda: EF21W(estimate=30)],
)
@pytest.mark.parametrize("download", [None, "topk(k=6)"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_ef21_goes_on_from_its_direction(make, download, workers):
    """Whoever takes over: in the end the direction is that of the new gradients, and of nothing
    that a coordinator had once heard."""
    before = Rig(make(), "topk(k=8)", FIRST, 3, 0.01, download)
    last = before.run(noise(6, 3, D), 6)
    direction = before.rows.gradients[0]
    memory = make()
    after = Rig(memory, "topk(k=8)", last, workers, 0.01, download)
    after.exchange.take_over(*copy.deepcopy(before.states()))
    torch.testing.assert_close(combination(memory), direction)
    gradients = noise(workers, D, seed=4)
    for _ in range(60):
        found = after.step(gradients)
    torch.testing.assert_close(found, gradients.mean(0), rtol=1e-4, atol=1e-5)


def combination(memory: EF21) -> Tensor:
    rows, weights = memory.rows()["believed"], memory.weights()
    return rows.mean(0) if weights is None else (weights @ rows.double()).float()
