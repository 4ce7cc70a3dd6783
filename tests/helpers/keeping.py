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
from tacit.compression import Compression


def compression_of(sync: tacit.Attached) -> Compression | None:
    steps = sync._steps
    part = steps.averaging or steps.exchange
    return part.compression if part is not None else None


def memory_of(sync: tacit.Attached) -> torch.Tensor:
    """What this worker has not sent yet, or has told the others; nothing without a memory."""
    compression = compression_of(sync)
    rows = compression.memory.rows() if compression is not None else {}
    return torch.cat([torch.zeros(0), *(row[0] for row in rows.values())])


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
    optimizer: torch.optim.Optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    if recipe == "dgc":
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
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
    began, first, remembered = sync.steps, vector(module), memory_of(sync)
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
    updates = max([int(s["step"]) for s in optimizer.state.values()], default=0)
    moments = [s["exp_avg"].flatten() for s in optimizer.state.values()]
    events = [tuple(e) for e in sync.fleet.ledger]
    with sync.consensus() as model:
        consensus = vector(model)
    dist.barrier()
    return {
        "began": began,
        "first": first,
        "first memory": remembered,
        "own": own,
        "updates": updates,
        "moments": torch.cat([torch.zeros(0), *moments]),
        "memory": memory_of(sync),
        "given up": compression_of(sync).given_up if compression_of(sync) else 0,
        "consensus": consensus,
        "lr": schedule.get_last_lr(),
        "events": [e for e in events if e[1] != "control"],
        "synchronisations": sync.synchronisations,
        "statistics": module[1].running_mean.clone(),
    }
