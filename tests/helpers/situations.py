"""What happens to users' training loops: each function is run by every worker process."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import tacit
from helpers.loops import RECIPES, batches, model_of, vector
from helpers.tasks import conv_task, mlp_task


def setting(worker: int, workers: int, task: Any = None) -> tuple[Any, nn.Module, Any]:
    task = task or mlp_task()
    return task, model_of(task), batches(task, worker, workers)


def loss_of(task: Any, module: nn.Module, shard: Any, draw: int) -> torch.Tensor:
    x, y = task.train.batch(shard.at(draw))
    return task.loss(module(x), y)


def unequal(
    worker: int, workers: int, recipe: str, steps: list[int], epochs: int, save: str | None
) -> dict[str, Any]:
    """Worker k takes ``steps[k]`` steps an epoch, and looks at the consensus after each epoch."""
    task, module, shard = setting(worker, workers)
    momentum = 0.0 if recipe == "dgc" else 0.9
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=momentum)
    seen = []
    draw = 0
    with tacit.attach(
        module,
        optimizer,
        RECIPES[recipe](),
        checkpoint=save,
        steps_per_epoch=4.0,
    ) as sync:
        for _ in range(epochs):
            for _ in range(steps[worker]):
                loss_of(task, module, shard, draw).backward()
                optimizer.step()
                optimizer.zero_grad()
                draw += 1
                if save is not None and worker == workers - 1 and draw % 3 == 0:
                    sync.save()
            with sync.consensus() as model:
                seen.append(vector(model))
    return {"seen": seen, "finished": vector(module), "steps": sync.steps, "stats": sync.stats()}


def overflow(
    worker: int, workers: int, recipe: str, fused: bool, watched: bool, steps: int = 12
) -> dict[str, Any]:
    """Worker 1's gradient overflows at steps 3 and 4, everybody's at step 6."""
    task, module, shard = setting(worker, workers)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(module.parameters(), lr=0.01, fused=fused)
    if recipe == "dgc":
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4)
    sync = tacit.attach(
        module, optimizer, RECIPES[recipe](), scaler=scaler if watched else None, steps_per_epoch=5
    )
    for draw in range(steps):
        loss = loss_of(task, module, shard, draw)
        if (worker == 1 and draw in (3, 4)) or draw == 6:
            loss = loss * torch.inf
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    own = vector(module)
    sync.finish()
    return {
        "own": own,
        "finished": vector(module),
        "steps": sync.steps,
        "scale": scaler.get_scale(),
        "wrapped": "step" in vars(scaler),
    }


class Branches(nn.Module):
    """A tied parameter, a frozen one, a scalar, one that no worker uses, one that one uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.first.weight
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.unused = nn.Parameter(torch.ones(3))
        self.sometimes = nn.Parameter(torch.ones(6))
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, extra: bool = False) -> torch.Tensor:
        x = self.frozen(torch.tanh(self.tied(torch.tanh(self.first(x))))) * self.scale
        return self.last(x * self.sometimes if extra else x)


def odd_parameters(worker: int, workers: int, recipe: str, views: bool) -> dict[str, Any]:
    task = mlp_task(model=Branches)
    task, module, shard = setting(worker, workers, task)
    frozen = module.frozen.weight.clone()
    pointers = [p.data_ptr() for p in module.parameters()]
    last = {id(p) for p in module.last.parameters()}
    groups = [
        {"params": [p for p in module.parameters() if id(p) not in last and p.requires_grad]},
        {"params": list(module.last.parameters()), "lr": 0.02},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.1)
    sync = tacit.attach(module, optimizer, RECIPES[recipe](), views=views, steps_per_epoch=5)
    inside = [p.data_ptr() for p in module.parameters()]
    for draw in range(10):
        x, y = task.train.batch(shard.at(draw))
        task.loss(module(x, extra=worker == 1 and draw == 4), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    with_unused_gradient = module.unused.grad is not None
    own = vector(module)
    sync.finish()
    outside = [p.data_ptr() for p in module.parameters()]
    return {
        "own": own,
        "finished": vector(module),
        "frozen unchanged": torch.equal(frozen, module.frozen.weight),
        "tied": module.tied.weight is module.first.weight,
        "unused": module.unused.detach().clone(),
        "unused gradient": with_unused_gradient,
        "sometimes": module.sometimes.detach().clone(),
        "moved": [a != b for a, b in zip(pointers, inside, strict=True)],
        "back": pointers == outside,
    }


def accumulate(worker: int, workers: int, recipe: str, compiled: bool) -> dict[str, Any]:
    """Gradients of two batches a step, a schedule, buffers, maybe compiled."""
    task, module, shard = setting(worker, workers, conv_task())
    model = torch.compile(module, backend="aot_eager") if compiled else module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    sync = tacit.attach(model, optimizer, RECIPES[recipe](), steps_per_epoch=5, seed=3)
    for draw in range(16):
        x, y = task.train.batch(shard.at(draw))
        torch.manual_seed(draw)
        (task.loss(model(x), y) / 2).backward()
        if draw % 2:
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    with sync.consensus() as shown:
        assert shown is model
        statistics = module[1].running_mean.clone()
    own = module[1].running_mean.clone()
    sync.finish()
    return {
        "steps": sync.steps,
        "finished": vector(module),
        "lr": schedule.get_last_lr(),
        "own statistics": own,
        "consensus statistics": statistics,
    }
