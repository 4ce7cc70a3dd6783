"""A worker process that trains a DistributedDataParallel model with Tacit's hook, or without."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import tacit
from tacit import hooks, rng

#: Makes a bucket of every tensor or two, after the first step; before, there is one.
SMALL_BUCKETS = 0.0001
RATE = 0.1


def network() -> nn.Module:
    """Matrices large enough for messages shorter than they are."""
    with rng.scoped(0, "hooked model"):
        return nn.Sequential(
            nn.Linear(12, 20), nn.Tanh(), nn.LayerNorm(20), nn.Linear(20, 10), nn.Linear(10, 3)
        )


def batch(worker: int, step: int) -> tuple[Tensor, Tensor]:
    draw = rng.torch_stream(0, "hooked batch", worker, step)
    return torch.randn(8, 12, generator=draw), torch.randint(3, (8,), generator=draw)


def vector(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def learn(
    worker: int, steps: range, module: nn.Module, optimizer: torch.optim.Optimizer
) -> list[Tensor]:
    """The parameters after each of ``steps``."""
    models = []
    for step in steps:
        x, y = batch(worker, step)
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
        models.append(vector(module))
    return models


def sgd(module: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=RATE, **options)


def by_hook(
    worker: int, steps: int, options: dict[str, Any], bucket_cap_mb: float | None = SMALL_BUCKETS
) -> dict[str, Any]:
    """What there is to compare, after training with the hook."""
    model = DistributedDataParallel(network(), bucket_cap_mb=bucket_cap_mb)
    state = hooks.DGCState(**options)
    widths: list[list[int]] = [[]]

    def watching(state: hooks.DGCState, bucket: Any) -> torch.futures.Future[Tensor]:
        widths[-1].append(bucket.buffer().numel())
        if bucket.is_last():
            widths.append([])
        return hooks.dgc_hook(state, bucket)

    watching.__annotations__.clear()  # they are text, which DDP does not understand
    model.register_comm_hook(state, watching)
    models = learn(worker, range(steps), model, sgd(model))
    result = {"models": models, "widths": widths[:-1], "stats": state.stats()}
    del model  # before the group: it waits for a thread that needs Python
    gc.collect()
    return result


def by_recipe(worker: int, steps: int, options: dict[str, Any]) -> list[Tensor]:
    module = network()
    optimizer = sgd(module)
    with tacit.attach(module, optimizer, tacit.dgc(**options), steps_per_epoch=3):
        return learn(worker, range(steps), module, optimizer)


Compared = list[tuple[dict[str, Any], list[Tensor]]]


def beside_the_recipe(
    worker: int, steps: int, cases: list[tuple[dict[str, Any], dict[str, Any]]]
) -> Compared:
    """For each pair of options, of the hook and of the recipe."""
    return [(by_hook(worker, steps, h), by_recipe(worker, steps, r)) for h, r in cases]


def beside_sgd(worker: int, steps: int, cases: list[dict[str, Any]]) -> Compared:
    """Density 1 beside DDP as it is, whose SGD has each of these options."""
    compared = []
    for options in cases:
        hooked = by_hook(worker, steps, {"density": 1, **options})
        model = DistributedDataParallel(network())
        compared.append((hooked, learn(worker, range(steps), model, sgd(model, **options))))
        del model
        gc.collect()
    return compared


def interrupted(
    worker: int, stop: int, steps: int, options: dict[str, Any], numbered: bool
) -> tuple[list[Tensor], list[Tensor], dict[str, Any]]:
    """Undisturbed; with everything made anew from what was saved after ``stop``; what was saved."""
    undisturbed = by_hook(worker, steps, options)["models"]

    def make(module: nn.Module) -> tuple[DistributedDataParallel, hooks.DGCState]:
        model = DistributedDataParallel(module, bucket_cap_mb=SMALL_BUCKETS)
        state = hooks.DGCState(**options, model=model if numbered else None)
        model.register_comm_hook(state, hooks.dgc_hook)
        return model, state

    model, state = make(network())
    models = learn(worker, range(stop), model, sgd(model))
    weights, saved = model.module.state_dict(), state.state_dict()
    module = network()
    module.load_state_dict(weights)
    model, state = make(module)
    state.load_state_dict(saved)
    models += learn(worker, range(stop, steps), model, sgd(model))
    del model
    gc.collect()
    return undisturbed, models, saved


def overflowing(worker: int) -> str:
    """What comes out of ``backward()`` where worker 1's gradient is not finite."""
    model = DistributedDataParallel(network())
    model.register_comm_hook(hooks.DGCState(density=0.1), hooks.dgc_hook)
    x, y = batch(worker, 0)
    return _refusal(F.cross_entropy(model(x * (math.inf if worker else 1)), y).backward)


def different(worker: int) -> str:
    """The answer to arguments that differ."""
    return _refusal(lambda: hooks.DGCState(density=0.1 * (worker + 1)))


def _refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()
    return "nothing"
