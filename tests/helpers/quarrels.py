"""Workers that do not fit together, islands, and peers that die."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

import tacit
from helpers.loops import RECIPES, batches, model_of, vector
from helpers.tasks import conv_task, mlp_task
from tacit.errors import PeerError, PeerLost, TrainingDiverged
from tacit.fleet import IslandFleet
from tacit.setting import Setting


def disagree(worker: int, what: str) -> str:
    """What worker ``worker`` is told when worker 1 differs in ``what``."""
    odd = worker == 1
    module = nn.Linear(6, 4 if odd and what == "shape" else 3)
    if odd and what == "extra":
        module = nn.Sequential(module, nn.Linear(3, 3))
    if odd and what == "value":
        nn.init.ones_(module.weight)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    theta = 2.0 if odd and what == "theta" else 1.0
    recipe = tacit.fda(theta, "sketch" if odd and what == "estimator" else "linear")
    if odd and what == "recipe":
        recipe = tacit.diloco(20)
    if what in ("density", "download"):
        recipe = tacit.fda(
            1.0,
            compressor=f"topk(density={0.2 if odd and what == 'density' else 0.1})",
            download="qsgd" if odd and what == "download" else None,
        )
    if odd and what == "server":
        recipe = tacit.diloco(20, server_lr=0.5)
    elif what == "server":
        recipe = tacit.diloco(20)
    if odd and what == "protocol":
        tacit.attached.handshake.PROTOCOL = 7
    if what == "value":
        torch.manual_seed(0)
        nn.init.normal_(module.bias)
        if not odd:
            nn.init.zeros_(module.weight)
    before = vector(module)
    try:
        tacit.attach(module, optimizer, recipe, initial="check", seed=int(odd and what == "seed"))
    except PeerError as error:
        assert torch.equal(vector(module), before)
        optimizer.step()  # no hook is left
        return str(error)
    return "attached"


def islands(worker: int, recipe: str, ddp: bool, steps: list[int]) -> dict[str, Any]:
    """Two islands of two; ``steps`` of each process."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "island"))
    task = mlp_task()
    module = model_of(task)
    if worker:
        with torch.no_grad():
            for p in module.parameters():
                p.add_(1.0)
    model: nn.Module = module
    if ddp:
        model = nn.parallel.DistributedDataParallel(
            module, process_group=mesh["island"].get_group()
        )
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    shard = batches(task, worker, 4)
    sync = tacit.attach(model, optimizer, RECIPES[recipe](), mesh["replica"], island=mesh["island"])
    rows, fired = [], []
    for draw in range(steps[worker]):
        x, y = task.train.batch(shard.at(draw))
        task.loss(model(x), y).backward()
        before = sync.synchronisations
        optimizer.step()
        optimizer.zero_grad()
        rows.append(vector(module))
        if sync.synchronisations > before:
            fired.append(sync.steps)
    stats = sync.stats()
    sync.finish()
    return {
        "rows": torch.stack(rows),
        "fired": fired,
        "finished": vector(module),
        "steps": sync.steps,
        "stats": stats,
    }


def islands_flat(worker: int, recipe: str, steps: int) -> dict[str, Any]:
    """The same as two workers with batches twice as large, to compare with."""
    task = mlp_task()
    module = model_of(task)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    shards = [batches(task, 2 * worker + i, 4) for i in range(2)]
    sync = tacit.attach(module, optimizer, RECIPES[recipe]())
    fired = []
    for draw in range(steps):
        parts = [task.train.batch(shard.at(draw)) for shard in shards]
        x, y = (torch.cat(same) for same in zip(*parts, strict=True))
        task.loss(module(x), y).backward()
        before = sync.synchronisations
        optimizer.step()
        optimizer.zero_grad()
        if sync.synchronisations > before:
            fired.append(sync.steps)
    stats = sync.stats()
    sync.finish()
    return {"finished": vector(module), "fired": fired, "stats": stats}


def lose(
    worker: int, workers: int, recipe: str, how: str, folder: str | None
) -> dict[str, Any] | None:
    """Worker 1 dies or hangs at step 6; what the others are told, and how long it took."""
    group = dist.new_group(timeout=timedelta(seconds=3))
    task = conv_task()
    module = model_of(task)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    shard = batches(task, worker, workers)
    sync = tacit.attach(module, optimizer, RECIPES[recipe](), group, checkpoint=folder)
    last = 0.0
    try:
        while sync.steps < 30:
            if worker == 1 and sync.steps == 6 and how == "hangs":
                time.sleep(12)
                return None
            if worker == 1 and sync.steps == 6 and how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            last = time.monotonic()
            x, y = task.train.batch(shard.at(sync.steps))
            task.loss(module(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    except PeerLost as error:
        return {"error": str(error), "seconds": time.monotonic() - last, "own": vector(module)}
    return None


def poison(worker: int, workers: int, recipe: str) -> str:
    """Worker 1's model becomes NaN at step 3, after a check; what everybody is told."""
    task = conv_task()
    module = model_of(task)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    shard = batches(task, worker, workers)
    sync = tacit.attach(module, optimizer, RECIPES[recipe]())
    try:
        while sync.steps < 30:
            x, y = task.train.batch(shard.at(sync.steps))
            loss = task.loss(module(x), y)
            (loss * torch.nan if worker == 1 and sync.steps == 2 else loss).backward()
            optimizer.step()
            optimizer.zero_grad()
    except (PeerError, TrainingDiverged) as error:
        sync.detach()
        return str(error)
    return "nothing"


def poisoned_island(worker: int) -> tuple[str, float]:
    """Two islands of two; the second one's model becomes NaN. What all are told, and when."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "island"))
    fleet = IslandFleet(mesh["replica"].get_group(), mesh["island"].get_group())
    averaging = tacit.dynamic_averaging(1.0, every=1).averaging
    assert averaging is not None
    row = torch.zeros(1, 5)
    if worker >= 2:
        row[0, 3] = torch.nan
    models = SimpleNamespace(parameters=row, gradients=row, buffers=torch.zeros(1, 0))
    averaging.start(fleet, models, None, Setting(2, 5))  # type: ignore[arg-type]
    began = time.monotonic()
    try:
        averaging.step(1)
    except PeerError as error:
        return str(error), time.monotonic() - began
    return "nothing", 0.0
