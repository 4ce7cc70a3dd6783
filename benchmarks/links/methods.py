"""Every method as a user would set it up: a module and its optimizer, ready for the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import (
    PostLocalSGDState,
    post_localSGD_hook,
)
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import (
    PowerSGDState,
    powerSGD_hook,
)
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.nn.parallel import DistributedDataParallel

import tacit
from tacit.config import parse_call
from tacit.errors import unknown

#: Steps that exchange plain gradients before a method starts; PowerSGD requires two.
WARM_UP = 2


Family = Literal["local", "ddp", "peer", "fda", "other"]


@dataclass
class Training:
    """What the loop calls. ``stats`` and ``close`` belong to methods that have them."""

    model: nn.Module
    optimizer: Any
    stats: Callable[[], dict[str, Any]] = dict
    close: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Method:
    """``start(module)`` needs the process group. ``waits``: on a slow link it waits much more than
    it computes, so that several such may be measured at once. ``averages``: the models differ
    from rank to rank, and must be averaged at the end."""

    start: Callable[[nn.Module], Training]
    family: Family
    label: str
    waits: bool = False
    averages: bool = True


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=1e-3)


def local(module: nn.Module) -> Training:
    """No communication: the limit for time per step."""
    return Training(module, adam(module))


def ddp(module: nn.Module) -> Training:
    return Training(DistributedDataParallel(module), adam(module))


def ddp_bf16(module: nn.Module) -> Training:
    model = DistributedDataParallel(module)

    def bf16(state, bucket):  # DDP reads annotations, and refuses them as strings
        # by its own name DDP refuses the hook on CPUs, though gloo does sum bfloat16
        return bf16_compress_hook(dist.group.WORLD, bucket)

    model.register_comm_hook(None, bf16)
    return Training(model, adam(module))


def powersgd(module: nn.Module, rank: int) -> Training:
    """PowerSGD (Vogels et al. 2019) with error feedback and warm start, torch's defaults.

    One bucket: the hook chains collectives in callbacks, and on gloo those of several buckets
    overtake each other, differently in every rank.
    """
    model = DistributedDataParallel(module, bucket_cap_mb=1000)
    state = PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=WARM_UP)
    model.register_comm_hook(state, powerSGD_hook)
    return Training(model, adam(module))


def postlocal(module: nn.Module, period: int) -> Training:
    """Post-local SGD (Lin et al. 2020): torch's, models averaged every ``period`` steps."""
    alone, _ = dist.new_subgroups(group_size=1)
    model = DistributedDataParallel(module)
    model.register_comm_hook(
        PostLocalSGDState(None, subgroup=alone, start_localSGD_iter=WARM_UP), post_localSGD_hook
    )
    averager = PeriodicModelAverager(period=period, warmup_steps=WARM_UP)
    return Training(model, PostLocalSGDOptimizer(adam(module), averager))


def attached(module: nn.Module, recipe: Callable[[], tacit.Recipe]) -> Training:
    """Tacit, in three lines."""
    optimizer = adam(module)
    sync = tacit.attach(module, optimizer, recipe())
    return Training(module, optimizer, sync.stats, sync.detach)


METHODS: dict[str, Method] = {
    "local": Method(local, "local", "no communication"),
    "ddp": Method(ddp, "ddp", "DDP", waits=True, averages=False),
    "ddp_bf16": Method(ddp_bf16, "peer", "DDP, bf16", waits=True, averages=False),
    **{
        f"powersgd_{rank}": Method(
            partial(powersgd, rank=rank),
            "peer",
            f"DDP, PowerSGD rank {rank}",
            waits=True,
            averages=False,
        )
        for rank in (1, 2, 4)
    },
    **{
        f"postlocal_{period}": Method(
            partial(postlocal, period=period),
            "peer",
            f"post-local SGD, H = {period}",
            waits=period < 16,
        )
        for period in (4, 16, 64)
    },
}


def method(name: str) -> Method:
    """The method of that name; any other name is a recipe of Tacit, as on its command line:
    ``fda:theta=30,every=5,lag=5``. Raises UserError."""
    if name in METHODS:
        return METHODS[name]
    recipe, options = parse_call(name)
    if recipe not in tacit.RECIPES:
        raise unknown("method", name, [*METHODS, *tacit.RECIPES])
    family: Family = "fda" if recipe == "fda" else "peer" if recipe == "diloco" else "other"
    label = f"DiLoCo (ours), {name[7:]}" if recipe == "diloco" else f"Tacit, {name}"
    build = partial(tacit.RECIPES[recipe], **options)
    return Method(partial(attached, recipe=build), family, label, waits=recipe == "synchronous")


def of_family(names: Iterable[str], *families: str) -> list[str]:
    return [name for name in names if method(name).family in families]
