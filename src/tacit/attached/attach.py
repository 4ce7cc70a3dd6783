"""Three lines in an existing training loop.

For example::

    with tacit.attach(model, optimizer, tacit.fda(theta=1.0)):
        for batch in loader:
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from tacit.attached import fitting, handshake
from tacit.attached.attached import Attached
from tacit.attached.flat import FlatModel, is_ddp
from tacit.attached.keeping import Keeper, Stateful
from tacit.attached.keeping_own import PeerKeeper
from tacit.attached.peers import AttachedPeer
from tacit.attached.steps import Steps
from tacit.fleet import AttendedFleet, IslandFleet, PeerFleet, ProcessGroupFleet
from tacit.gradients import GradientExchange
from tacit.recipes import Recipe
from tacit.setting import Setting

Group = dist.ProcessGroup | DeviceMesh


def attach(
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    process_group: Group | None = None,
    *,
    island: Group | None = None,
    scaler: Any = None,
    checkpoint: str | Path | None = None,
    stateful: Mapping[str, Stateful] | None = None,
    steps_per_epoch: float | None = None,
    samples: int = 1,
    initial: Literal["broadcast", "check"] = "broadcast",
    views: bool = True,
    seed: int = 0,
    deterministic: bool = False,
) -> Attached:
    """Let the workers of ``process_group`` train ``model`` together, as ``recipe`` says.

    Every process calls this with its own model and optimizer, and then trains as if it were alone.
    What is exchanged happens inside ``optimizer.step()``, by the optimizer's own hooks: gradients
    before the step, models after it. The optimizer is yours: one that belongs to a recipe (the
    local SGD of ``fedavg``) is not used. Use the result as a context manager, or call its
    ``finish()``: both wait for workers that have more data, leave the consensus model in every
    process and undo what attaching did.

    ``process_group``: one process a worker; the default group if not given; a one-dimensional
    ``DeviceMesh`` will do. ``island``: this worker is several processes with fast links between
    them, which average their gradients at every step; ``process_group`` then joins each with its
    counterparts in the other islands. A model that is DistributedDataParallel inside its island
    keeps doing that itself.
    ``scaler``: the loop's ``GradScaler``. It skips steps, each worker its own; a worker that skips
    then still takes part in the exchange, and the others need not wait for its next step.
    ``checkpoint``: a folder that all processes see. Where it holds a checkpoint the run goes on
    from there (``steps`` says where); ``save()`` writes one; a failure leaves one. ``stateful``:
    what else belongs into it, by name (a learning-rate scheduler). The scaler is.
    ``steps_per_epoch``: for recipes that average every few epochs. ``samples``: the weight of this
    worker where a recipe weights by samples.
    ``initial``: ``broadcast`` gives everybody worker 0's parameters and buffers, ``check`` refuses
    to start where they differ.
    ``views``: the parameters become views of one flat vector, until the end (the ``Parameter``
    objects stay). Without, they are copied in and out at every step: for models whose tensors must
    stay where they are.
    ``seed``: of the recipe's own random choices. ``deterministic``: sums in worker order, at the
    cost of an all-gather.

    Among peers (``monna``, ``learn``) nobody waits for all others: see :class:`AttachedPeer`.

    Raises UserError where the pieces do not fit, PeerError (in every process) where workers run
    different recipes, models or versions.
    """
    fitting.check(optimizer, recipe, island is not None, initial, samples, deterministic)
    peers = fitting.among_peers(recipe)
    own_exchange = recipe.gradients is not None or island is not None
    flat = FlatModel(model, optimizer, views, gradients=own_exchange)
    try:
        fleet, inside, exchange = _fleets(
            model, recipe, process_group, island, flat.parameters.device, deterministic, peers
        )
        keeper = (PeerKeeper if peers else Keeper)(
            fleet,
            flat,
            optimizer,
            recipe,
            scaler,
            stateful,
            checkpoint,
        )
        promise = {
            "seed": seed,
            "initial": initial,
            "deterministic": deterministic,
            "steps_per_epoch": steps_per_epoch,
            **keeper.promise,
        }
        introductions = _handshake(fleet, recipe, flat, samples, promise)
        keeper.agree(introductions)
        if initial == "broadcast" and (peers or keeper.latest is None):
            _broadcast(fleet, flat)
        weights = torch.tensor([worker["own samples"] for worker in introductions])
        setting = Setting(
            workers=fleet.size,
            d=flat.d,
            seed=seed,
            steps_per_epoch=steps_per_epoch,
            device=flat.parameters.device,
            samples=weights,
            rates=weights,
            shapes=tuple(tuple(p.shape) for p in flat.trained),
        )
        if exchange is not None and inside is not None:
            exchange.start(inside, flat, setting)
        if recipe.averaging is not None:
            recipe.averaging.start(fleet, flat, keeper, setting)
        steps = Steps(flat, optimizer, fleet, recipe.averaging, inside, exchange)
        attached = (AttachedPeer if peers else Attached)(model, steps, keeper, introductions)
    except BaseException:
        flat.restore()
        raise
    if scaler is not None:
        attached.watch(scaler)
    return attached


def _fleets(
    model: nn.Module,
    recipe: Recipe,
    process_group: Group | None,
    island: Group | None,
    device: torch.device,
    deterministic: bool,
    peers: bool,
) -> tuple[AttendedFleet, AttendedFleet | None, GradientExchange | None]:
    """The workers that average models; those that average gradients, and how, if Tacit does."""
    group = None if process_group is None else _group(process_group)
    if island is None:
        kind = PeerFleet if peers else AttendedFleet
        fleet = kind(1, group, device, deterministic)
        return fleet, fleet if recipe.gradients is not None else None, recipe.gradients
    islands = IslandFleet(group, _group(island), device)
    if is_ddp(model):
        return islands, None, None
    return islands, AttendedFleet(1, _group(island), device, deterministic), GradientExchange()


def _handshake(
    fleet: AttendedFleet, recipe: Recipe, flat: FlatModel, samples: int, promise: dict[str, Any]
) -> list[dict[str, Any]]:
    mine = {
        "protocol": handshake.PROTOCOL,
        "recipe": handshake.describe(recipe),
        "parameters": flat.shapes(),
        "order": list(flat.shapes()),
        "buffers": flat.buffers.shape[1],
        **promise,
        "own samples": samples,
        "own token": uuid.uuid4().hex,
    }
    if promise["initial"] == "check":
        mine["sum of parameters"] = _fingerprint(flat.parameters)
        mine["sum of buffers"] = _fingerprint(flat.buffers)
    if isinstance(fleet, IslandFleet):
        handshake.agree(ProcessGroupFleet(1, fleet.island, fleet.device), mine)
    return handshake.agree(fleet, mine)


def _fingerprint(row: Tensor) -> str:
    """Equal for equal values alone, as good as always."""
    wide = row.double().flatten()
    places = torch.arange(1, wide.numel() + 1, dtype=torch.float64, device=row.device)
    return f"{float(wide.sum())!r} {float((wide * places.cos()).sum())!r}"


@torch.no_grad()
def _broadcast(fleet: AttendedFleet, flat: FlatModel) -> None:
    """Worker 0's parameters and buffers, frozen ones and counters too; a message for each type."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in flat.tensors():
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for tensors in by_type.values():
        row = fleet.broadcast(torch.cat([t.flatten() for t in tensors]), "control")
        pieces = torch.split(row, [t.numel() for t in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))
    flat.read()
    flat.read_buffers()


def _group(group: Group) -> dist.ProcessGroup:
    return group.get_group() if isinstance(group, DeviceMesh) else group
