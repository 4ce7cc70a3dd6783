"""Less usual things that users do: each function is run by every worker process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import tacit
from helpers.loops import batches, model_of, vector
from helpers.tasks import conv_task, mlp_task
from tacit.errors import UserError


def moved(worker: int, views: bool) -> Any:
    """Something gives the parameters other tensors while they are attached."""
    task = conv_task()
    module, shard = model_of(task), batches(task, worker, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    begin = vector(module)
    sync = tacit.attach(module, optimizer, tacit.local_sgd(3), views=views)
    for draw in range(6):
        if draw == 2:
            module.to(memory_format=torch.channels_last)
        if draw == 4:
            for p in module.parameters():
                p.data = p.data.clone()
        torch.manual_seed(draw)
        x, y = task.train.batch(shard.at(draw))
        task.loss(module(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    before = vector(module)
    sync.finish()
    return begin, before, vector(module)


def closure(worker: int, keyword: bool) -> Any:
    """``optimizer.step(closure)``, which computes the gradient inside the step."""
    task = mlp_task()
    module, shard = model_of(task), batches(task, worker, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    sync = tacit.attach(module, optimizer, tacit.synchronous())
    for draw in range(5):
        x, y = task.train.batch(shard.at(draw))

        def evaluate(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            optimizer.zero_grad()
            loss = task.loss(module(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure=evaluate) if keyword else optimizer.step(evaluate)
        assert loss is not None
    own = vector(module)
    sync.finish()
    return own


def early(worker: int) -> Any:
    """Worker 0 looks while worker 1 trains; its half of a gradient must be there afterwards."""
    task = mlp_task()
    module, shard = model_of(task), batches(task, worker, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    sync = tacit.attach(module, optimizer, tacit.synchronous())

    def backward(draw: int) -> None:
        x, y = task.train.batch(shard.at(draw))
        task.loss(module(x), y).backward()

    for draw in range(2 + 2 * worker):
        backward(draw)
        optimizer.step()
        optimizer.zero_grad()
    backward(9)
    before = [p.grad.clone() for p in module.parameters()]
    with sync.consensus():
        pass
    same = all(torch.equal(a, p.grad) for a, p in zip(before, module.parameters(), strict=True))
    sync.finish()
    return same


def nothing_learned(worker: int) -> Any:
    """Worker 0 has no data, and worker 1's only gradient overflows."""
    module = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    sync = tacit.attach(module, optimizer, tacit.synchronous(), scaler=scaler)
    begin = vector(module)
    if worker == 1:
        scaler.scale(module(torch.ones(1, 3)).sum() * torch.inf).backward()
        scaler.step(optimizer)
        scaler.update()
    sync.finish()
    return begin, vector(module)


def another_order(worker: int) -> Any:
    """The optimizer's groups are in another order in worker 1."""
    torch.manual_seed(worker)
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    groups = [{"params": list(layer.parameters())} for layer in module]
    optimizer = torch.optim.SGD(groups[::-1] if worker else groups, lr=0.1)
    sync = tacit.attach(module, optimizer, tacit.fda(1.0))
    own = vector(module)
    sync.finish()
    return own


def told(act: Callable[[], Any]) -> str:
    try:
        act()
    except UserError as error:
        return str(error)
    return "nothing"


def misuse(_: int, case: str) -> str:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    recipe = tacit.synchronous()
    module[0].requires_grad_(case != "unfrozen")
    sync = tacit.attach(module, optimizer, recipe)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=case == "scaled")
    module[0].requires_grad_(True)
    if case == "half":
        module.half()
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        return told(lambda: sync._steps.flat.read())
    if case == "group":
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    scaler.scale(module(torch.ones(2, 3)).sum()).backward()
    return told(lambda: scaler.step(optimizer))


def doubles(worker: int) -> Any:
    """A buffer of doubles, and one scaler for two models."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    found = []
    attached = []
    for _ in range(2):
        module = nn.Linear(2, 2)
        module.register_buffer("precise", torch.tensor(0.1 + worker, dtype=torch.float64))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        attached.append(tacit.attach(module, optimizer, tacit.fda(1.0), scaler=scaler))
        with attached[-1].consensus():
            pass
        found.append(float(module.precise))
    for sync in attached:
        sync.finish()
    scaler.scale(module(torch.ones(1, 2)).sum()).backward()
    scaler.step(optimizer)  # as if nothing had been
    return found, [sync.steps for sync in attached]
