"""Runs that stop and go on, with as many workers or others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import tacit
from helpers.loops import RECIPES, batches, model_of, vector
from helpers.tasks import conv_task


def run(
    worker: int,
    workers: int,
    recipe: str,
    steps: int,
    folder: str | None = None,
    saves: tuple[int, ...] = (),
    through: str = "folder",
) -> dict[str, Any]:
    """Train up to step ``steps``, from the checkpoint if there is one; save after some steps."""
    task = conv_task()
    module = model_of(task)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    shard = batches(task, worker, workers)
    stateful = {"schedule": schedule}
    sync = tacit.attach(
        module,
        optimizer,
        RECIPES[recipe](),
        checkpoint=folder if through == "folder" else None,
        stateful=stateful,
        steps_per_epoch=5,
    )
    if through == "dcp" and folder is not None and Path(folder).exists():
        state = sync.state_dict()
        dcp.load(state, checkpoint_id=folder)
        sync.load_state_dict(state)
    began, first = sync.steps, vector(module)
    while sync.steps < steps:
        x, y = task.train.batch(shard.at(sync.steps))
        torch.manual_seed(1000 * worker + sync.steps)
        task.loss(module(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if sync.steps in saves and through == "dcp":
            dcp.save(sync.state_dict(), checkpoint_id=folder)
        elif sync.steps in saves:
            sync.save()
    own = vector(module)
    updates = max(int(s["step"]) for s in optimizer.state.values())
    moments = torch.cat([s["exp_avg"].flatten() for s in optimizer.state.values()])
    events = [tuple(e) for e in sync.fleet.ledger]
    with sync.consensus() as model:
        consensus = vector(model)
    dist.barrier()
    return {
        "began": began,
        "first": first,
        "own": own,
        "updates": updates,
        "moments": moments,
        "consensus": consensus,
        "lr": schedule.get_last_lr(),
        "events": [e for e in events if e[1] != "control"],
        "synchronisations": sync.synchronisations,
        "statistics": module[1].running_mean.clone(),
    }
