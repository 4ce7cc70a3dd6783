"""Stepping all rows at once is stepping each worker's model with plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tacit.optimizers import _ELEMENTWISE, LocalOptimizer
from tacit.replicas import Replicas
from tacit.rng import torch_stream

L, STEPS = 3, 5
o = torch.optim

#: Every optimizer that steps all rows at once, with settings that use what it has.
TOGETHER: dict[str, Callable[[Any], o.Optimizer]] = {
    "SGD": partial(o.SGD, lr=0.1),
    "SGD momentum": partial(o.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "SGD dampening": partial(o.SGD, lr=0.1, momentum=0.8, dampening=0.3, maximize=True),
    "Adam": partial(o.Adam, lr=0.01, eps=1e-7),
    "Adam amsgrad": partial(o.Adam, lr=0.01, amsgrad=True, weight_decay=0.1),
    "AdamW": partial(o.AdamW, lr=0.01, weight_decay=0.1),
    "Adamax": partial(o.Adamax, lr=0.01),
    "NAdam": partial(o.NAdam, lr=0.01),
    "RAdam": partial(o.RAdam, lr=0.01),
    "RMSprop": partial(o.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": partial(o.Adagrad, lr=0.1, lr_decay=0.1),
    "Adadelta": partial(o.Adadelta, lr=1.0),
    "Rprop": partial(o.Rprop, lr=0.01),
    "ASGD": partial(o.ASGD, lr=0.1, t0=2),
}
#: And one that looks at a parameter as a whole: it needs one optimizer for each worker.
APART: dict[str, Callable[[Any], o.Optimizer]] = {}
if hasattr(o, "Adafactor"):  # torch 2.5
    APART["Adafactor"] = partial(o.Adafactor, lr=0.01)
ALL = {**TOGETHER, **APART}

SCHEDULES = {
    "none": None,
    "step": partial(lr_scheduler.StepLR, step_size=2, gamma=0.3),
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=STEPS),
    "one cycle": partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=STEPS + 1),
}


class Model(nn.Module):
    """A kernel, a bias and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))


def model() -> nn.Module:
    torch.manual_seed(1)
    return Model()


def groups_of(module: nn.Module) -> list[dict[str, Any]]:
    """A kernel that decays; the others, which do not, at another rate."""
    return [
        {"params": [module.linear.weight], "weight_decay": 0.2},
        {"params": [module.linear.bias, module.scale], "weight_decay": 0.0, "lr": 0.05},
    ]


def gradient(row: int, step: int) -> Tensor:
    """The same for a worker and a step wherever it is hosted; far from equal between workers."""
    return (row + 1) * torch.randn(16, generator=torch_stream(0, "gradient", row, step))


def fill_gradients(replicas: Replicas, step: int) -> None:
    for row in range(len(replicas)):
        replicas.gradients[row] = gradient(row, step)


def plain(factory: Any, grouped: bool, schedule: Any, active: list[list[int]]) -> Tensor:
    """Every worker with a module and an optimizer of its own, as without this library."""
    modules = [model() for _ in range(L)]
    optimizers = [factory(groups_of(m) if grouped else m.parameters()) for m in modules]
    schedulers = [schedule(optimizer) if schedule else None for optimizer in optimizers]
    for step, rows in enumerate(active):
        for row in rows:
            parameters = ordered(modules[row], grouped)
            pieces = gradient(row, step).split([p.numel() for p in parameters])
            for p, piece in zip(parameters, pieces, strict=True):
                p.grad = piece.view(p.shape).clone()
            optimizers[row].step()
            if schedulers[row] is not None:
                schedulers[row].step()
    return torch.stack([flat(module, grouped) for module in modules])


def ordered(module: nn.Module, grouped: bool) -> list[nn.Parameter]:
    if not grouped:
        return list(module.parameters())
    return [p for group in groups_of(module) for p in group["params"]]


def flat(module: nn.Module, grouped: bool) -> Tensor:
    return torch.cat([p.detach().flatten() for p in ordered(module, grouped)])


def build(
    factory: Any, grouped: bool = False, schedule: Any = None, together: bool | None = None
) -> LocalOptimizer:
    module = model()
    replicas = Replicas(module, L, groups_of(module) if grouped else None)
    return LocalOptimizer(replicas, factory, schedule, together)


def train(optimizer: LocalOptimizer, active: list[list[int]], start: int = 0) -> Tensor:
    for step, rows in enumerate(active, start):
        fill_gradients(optimizer.replicas, step)
        optimizer.step(rows)
    return optimizer.replicas.parameters.clone()


EVERYBODY = [list(range(L))] * STEPS


def test_every_elementwise_optimizer_is_tried():
    assert {type(factory([nn.Parameter(torch.zeros(1))])) for factory in TOGETHER.values()} == (
        _ELEMENTWISE
    )


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_against_plain_torch(name, grouped):
    factory = ALL[name]
    expected = plain(factory, grouped, None, EVERYBODY)
    start = torch.stack([flat(model(), grouped)] * L)
    assert (expected - start).abs().amin() > 0  # every element of every worker has moved
    ways = [None, False] if name in TOGETHER else [None]
    for together in ways:
        optimizer = build(factory, grouped, together=together)
        assert optimizer.together == (together is None and name in TOGETHER)
        torch.testing.assert_close(train(optimizer, EVERYBODY), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", ["SGD momentum", "AdamW"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(name, schedule, together):
    factory, make = TOGETHER[name], SCHEDULES[schedule]
    expected = plain(factory, True, make, EVERYBODY)
    got = train(build(factory, True, make, together), EVERYBODY)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
    if schedule != "none":
        assert not torch.allclose(expected, plain(factory, True, None, EVERYBODY))


@pytest.mark.parametrize("name", ["SGD momentum", "Adam"])
def test_workers_that_rest_keep_their_state(name):
    factory, schedule = TOGETHER[name], SCHEDULES["step"]
    active = [[0, 2], [1], [], [0, 1, 2], [2]]
    expected = plain(factory, False, schedule, active)
    got = train(build(factory, False, schedule, together=False), active)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ["SGD", "SGD momentum", "Adam", "Adam amsgrad", *APART])
def test_rows_are_the_state_as_large_as_the_model(name, grouped):
    expected = {"SGD": 0, "SGD momentum": 1, "Adam": 2, "Adam amsgrad": 3, "Adafactor": 0}[name]
    for together in [True, False] if name in TOGETHER else [False]:
        optimizer = build(ALL[name], grouped, together=together)
        assert optimizer.rows() == []
        train(optimizer, EVERYBODY)
        rows = optimizer.rows()
        assert all(len(t) == L for t in rows)
        if name != "Adafactor":  # it keeps a row and a column for a matrix
            assert sum(t.shape[1] for t in rows) == expected * optimizer.replicas.d


@pytest.mark.parametrize("together", [True, False])
def test_rows_can_be_written(together):
    optimizer = build(TOGETHER["Adam"], True, together=together)
    train(optimizer, EVERYBODY)
    rows = optimizer.rows()
    for index, tensor in enumerate(rows):
        tensor[:] = float(index)
    optimizer.set_rows(rows)
    for index, tensor in enumerate(optimizer.rows()):
        assert bool((tensor == index).all())
    steps = [float(state["step"]) for one in optimizer.optimizers for state in one.state.values()]
    assert set(steps) == {float(STEPS)}  # a count is not a moment, even of a scalar parameter


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_restored_worker_goes_on_in_any_row(name, grouped):
    """Rows 0, 1, 2 go to rows 2, 0, 1 of a fleet that is laid out otherwise."""
    schedule = SCHEDULES["step"]
    whole = train(build(ALL[name], grouped, schedule), EVERYBODY * 2)
    first, second = (build(ALL[name], grouped, schedule) for _ in range(2))
    train(first, EVERYBODY)
    for row in range(L):
        other = (row + 2) % L
        second.replicas.parameters[other] = first.replicas.parameters[row]
        second.load_worker_state(other, first.worker_state(row))
    train(first, EVERYBODY, start=100)  # does not disturb what was restored from it
    for step in range(STEPS, 2 * STEPS):
        fill_gradients(second.replicas, step)
        turned = second.replicas.gradients.clone()
        for row in range(L):
            second.replicas.gradients[(row + 2) % L] = turned[row]
        second.step(list(range(L)))
    got = second.replicas.parameters[[(row + 2) % L for row in range(L)]]
    torch.testing.assert_close(got, whole, rtol=1e-6, atol=1e-7)


def test_a_saved_state_holds_no_other_workers_rows():
    optimizer = build(TOGETHER["Adam"])
    train(optimizer, EVERYBODY)
    state = optimizer.worker_state(1)["state"]
    width = optimizer.replicas.column_blocks()[0]["params"][0].shape[1]
    for entry in state.values():
        assert entry["exp_avg"].shape == (width,)
    assert torch.equal(state[0]["exp_avg"][: optimizer.replicas.d], optimizer.rows()[0][1])
