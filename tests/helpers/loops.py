"""A user's training loop, as a worker process of the attach tests runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import tacit
from helpers.tasks import mlp_task
from tacit import rng
from tacit.tasks.batches import Batches
from tacit.tasks.partition import partition
from tacit.tasks.task import Task

#: Recipes by name; each worker process makes its own.
RECIPES: dict[str, Callable[[], tacit.Recipe]] = {
    "synchronous": tacit.synchronous,
    "synchronous-models": lambda: tacit.synchronous("models"),
    "local_sgd": lambda: tacit.local_sgd(4),
    "local_sgd-overlap": lambda: tacit.local_sgd(4, overlap=2),
    "fda": lambda: tacit.fda(2e-3),
    "fda-sketch": lambda: tacit.fda(2e-3, "sketch", columns=20),
    "fda-exact": lambda: tacit.fda(2e-3, "exact"),
    "fda-every-3": lambda: tacit.fda(2e-3, every=3),
    "fda-lag": lambda: tacit.fda(2e-3, lag=1),
    "fda-late": lambda: tacit.fda(2e-3, every=3, lag=2, overlap=4),
    "fda-averaged": lambda: tacit.fda(
        2e-3, lag=1, overlap=2, buffers="average", optimizer_state="average"
    ),
    "dynamic": lambda: tacit.dynamic_averaging(4e-3, every=2),
    "dynamic-samples": lambda: tacit.dynamic_averaging(
        4e-3, every=1, augmentation="nearest", weights="samples", buffers="average"
    ),
    "no_sync": tacit.no_sync,
    "diloco": lambda: tacit.diloco(5),
    "diloco-overlap": lambda: tacit.diloco(5, overlap=3),
    "fedavgm": tacit.fedavgm,
    "compressed-topk": lambda: tacit.compressed("topk(density=0.2)", feedback=True),
    "compressed-randomk": lambda: tacit.compressed("randomk(density=0.3)", feedback=True),
    "compressed-lowrank": lambda: tacit.compressed("lowrank", feedback=True, per_tensor=True),
    "dgc": lambda: tacit.dgc(0.2, nesterov=True, clip=1.0, warmup="1/0.5", weight_decay=0.01),
    "ef21": lambda: tacit.ef21("topk(density=0.2)"),
    "ef21-identity": lambda: tacit.ef21("identity"),
    "ef21-both_ways": lambda: tacit.ef21(
        "topk(density=0.2)", momentum=0.3, download="topk(density=0.4,values=int8)"
    ),
    "ef21-partial": lambda: tacit.ef21("topk(density=0.2)", fraction=0.5, start="zero"),
    "ef21_w": lambda: tacit.ef21_w("topk(density=0.2)", estimate=4),
    "byz_ef21": lambda: tacit.byz_ef21(0, "median", "topk(density=0.2)"),
    "byz_ef21-both_ways": lambda: tacit.byz_ef21(
        0, compressor="topk(density=0.2)", momentum=0.3, download="topk(density=0.4,values=int8)"
    ),
    "rosdhb": lambda: tacit.rosdhb(0, "median", 0.3),
    "rosdhb-both_ways": lambda: tacit.rosdhb(0, density=0.3, download="topk(density=0.4)"),
    "sparseloco": lambda: tacit.sparseloco(5, k=8, block=32),
    "local_sgd-compressed": lambda: tacit.local_sgd(4, compressor="randomk(density=0.5)"),
    "fda-compressed": lambda: tacit.fda(
        2e-3, compressor="topk(density=0.3,values=int8)", download="topk(density=0.5)"
    ),
    # what is sent does not depend on which entries are the largest: equal to rounding
    "local_sgd-random": lambda: tacit.local_sgd(4, compressor="randomk(density=0.5,shared=false)"),
    "fda-random": lambda: tacit.fda(
        2e-3,
        compressor="randomk(density=0.5,shared=false)",
        download="randomk(density=0.7,shared=false)",
    ),
}
#: Those that exchange compressed gradients.
COMPRESSED_GRADIENTS = tuple(
    n for n in RECIPES if n.startswith(("compressed", "dgc", "ef21", "byz_ef21", "rosdhb"))
)


def model_of(task: Task) -> nn.Module:
    with rng.scoped(0, "model"):
        return task.model()


def batches(task: Task, worker: int, workers: int) -> Batches:
    return Batches(partition("iid", task.train, workers, 0)[worker], task.batch_size, 0, worker)


def train(
    worker: int,
    workers: int,
    recipe: str,
    steps: int,
    task: Task | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """``steps`` steps of this worker, then ``finish``. What there is to compare."""
    task = task or mlp_task()
    module = model_of(task)
    if worker:
        with torch.no_grad():
            for p in module.parameters():
                p.add_(1.0)  # worker 0's model is what counts
    optimizer = task.optimizer(module.parameters())
    shard = batches(task, worker, workers)
    sync = tacit.attach(
        module,
        optimizer,
        RECIPES[recipe](),
        steps_per_epoch=len(task.train) / (workers * task.batch_size),
        # a simulation's steps take equal batches, whatever the shards hold
        samples=1 if recipe.startswith("dynamic") else len(shard.indices),
        **(options or {}),
    )
    fired = []
    for draw in range(steps):
        x, y = task.train.batch(shard.at(draw))
        with torch.random.fork_rng():
            rng.seed_default(rng.derive(0, "training", worker, draw), [])
            task.loss(module(x), y).backward()
        before = sync.synchronisations
        optimizer.step()
        optimizer.zero_grad()
        if sync.synchronisations > before:
            fired.append(sync.steps)
    ledger = sync.fleet.ledger
    by_kind = {kind: ledger.count(kind) for kind in ("model", "gradient", "monitoring")}
    with sync.consensus() as model:
        consensus = vector(model)
    own = vector(module)
    sync.finish()
    return {
        "fired": fired,
        "own": own,
        "consensus": consensus,
        "finished": vector(module),
        "counts": by_kind,
        "steps": sync.steps,
        "stats": sync.stats(),
    }


def vector(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])
