"""Deep Gradient Compression for a model that stays DistributedDataParallel: a communication hook.

For example::

    model = DistributedDataParallel(model)
    state = DGCState(momentum=0.9)
    model.register_comm_hook(state, dgc_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # without momentum
"""
# No "from __future__ import annotations": DDP compares the hook's annotations with classes.

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]  # torch has no stub of it
from torch.optim import Optimizer

from tacit import rng
from tacit.aggregators import Mean
from tacit.attached.handshake import agree, describe
from tacit.compression import Compression
from tacit.compressors import PerTensor, SampledTopK, TopK
from tacit.compressors.base import check_whole
from tacit.errors import UserError
from tacit.fleet import ProcessGroupFleet
from tacit.memory import VelocityMemory
from tacit.schedule import Densities
from tacit.setting import Setting

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
#: What must be the same in all processes.
_COMPARED = ("density", "memory", "compressor", "warmup_steps", "seed")
Memories = dict[int, dict[str, Tensor]]


class DGCState:
    """What ``dgc_hook`` needs and keeps; the recipe :func:`tacit.dgc` for one DDP model.

    Make it in every process of ``process_group`` (the one the model has; the default one if not
    given), with the same arguments. The optimizer must be SGD without momentum: :meth:`check`.
    Its weight decay is added after the exchange, and gains no momentum.

    ``density``, ``momentum``, ``nesterov``, ``masking``, ``values``, ``dense``, ``sampled``,
    ``clip_power``: as in :func:`tacit.dgc`. ``clip``: of each tensor's gradient by itself, because
    the norm of the model is not known before its last bucket.
    ``warmup_steps``: in so many steps the density falls to ``density``; in equal parts of them it
    is 0.25, 0.0625, ... as published, or what ``warmup`` lists (``[1.0]``: dense).
    ``model``: numbers the memories in the order of its ``parameters()``, as optimizers do. Without,
    they are numbered as DDP's buckets bring them, which depends on ``bucket_cap_mb``.
    ``seed``: of draws, where ``sampled`` or ``values`` need any.

    Raises UserError for arguments that do not fit, PeerError where processes have different ones.
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        density: float = 0.001,
        momentum: float = 0.9,
        nesterov: bool = False,
        clip: float | None = None,
        warmup_steps: int = 0,
        values: str = "fp32",
        masking: bool = True,
        *,
        warmup: Sequence[float] | None = None,
        dense: str = "fp32",
        sampled: bool = False,
        clip_power: float = -0.5,
        model: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        self.densities = _densities(density, warmup_steps, warmup)
        self.memory = VelocityMemory(
            momentum, nesterov, masking, clip, clip_power, clip_scope="tensor"
        )
        self.compressor = PerTensor(
            (SampledTopK if sampled else TopK)(density=density, values=values), dense
        )
        if dist.is_initialized() and dist.get_rank(process_group) < 0:
            raise UserError("this process is not in the process group of the DGCState")
        cuda = dist.is_initialized() and dist.get_backend(process_group) == "nccl"
        #: The workers, and the ledger of what they have sent each other.
        self.fleet = ProcessGroupFleet(1, process_group, "cuda" if cuda else "cpu")
        parts = (self.densities, self.memory, self.compressor, warmup_steps, seed)
        agree(self.fleet, {"dgc": dict(zip(_COMPARED, map(describe, parts), strict=True))})
        self._everyone = torch.ones(self.fleet.size, dtype=torch.bool)
        self._stage = warmup_steps / max(1, len(self.densities.warmup))
        self._seed = seed
        #: Steps so far: backward passes that exchanged gradients.
        self.steps = 0
        self._closed = model is not None
        parameters = () if model is None else model.parameters()
        self._numbers: dict[Tensor, int] = {p: n for n, p in enumerate(parameters)}
        self._parts: dict[tuple[int, ...], _Part] = {}
        #: By parameter, the memories that no part has now.
        self._idle: Memories = {}
        self._given_up = 0

    def check(self, optimizer: Optimizer) -> None:
        """Raise UserError for an optimizer that does not go with this: one with momentum."""
        self.memory.check(optimizer)

    def exchange(self, bucket: GradBucket) -> None:
        """Put the workers' combination in place of this worker's gradients in ``bucket``."""
        buffer = bucket.buffer()
        if buffer.dtype not in _TYPES:
            raise UserError(
                f"these gradients are {buffer.dtype}; messages and memories are float32, so make "
                "the model float32, bfloat16 or float16"
            )
        with torch.no_grad():
            self.fleet.ledger.step = self.steps + 1
            compression = self._part(bucket.parameters()).compression
            row = buffer.to(self.fleet.device, torch.float32)[None]
            buffer.copy_(compression.combine(row, "gradient", self._everyone, Mean()))
        self.steps += bucket.is_last()

    def stats(self) -> dict[str, Any]:
        """Steps; bytes by kind (sent and received, all workers together) and on the wire; exchanges
        of a bucket that went dense because messages would have been longer; seconds waited."""
        given_up = self._given_up + sum(p.compression.given_up for p in self._parts.values())
        return {
            "steps": self.steps,
            "bytes": self.fleet.ledger.by_kind(),
            "ring_bytes": self.fleet.ledger.ring_bytes(),
            "given_up": given_up,
            "waited_seconds": self.fleet.waited,
        }

    # -- parts: what travels in one message

    def _part(self, parameters: Sequence[Tensor]) -> "_Part":
        """That of these parameters. Buckets change (DDP makes new ones after the first step), so
        the memories of parameters that come in a new company move with them."""
        numbers = tuple(self._number(parameter) for parameter in parameters)
        if numbers not in self._parts:
            self._release([key for key in self._parts if not set(key).isdisjoint(numbers)])
            self._parts[numbers] = self._start(numbers, parameters)
        return self._parts[numbers]

    def _start(self, numbers: tuple[int, ...], parameters: Sequence[Tensor]) -> "_Part":
        sizes = [parameter.numel() for parameter in parameters]
        # where nothing would be compressed, an all-reduce is shorter
        whole = self.compressor.dense.reducible and all(p.dim() < 2 for p in parameters)
        compression = Compression(
            copy.deepcopy(self.compressor),
            copy.deepcopy(self.memory),
            densities=Densities(1.0) if whole else self.densities,
        )
        setting = Setting(
            workers=self.fleet.size,
            d=sum(sizes),
            seed=rng.derive(self._seed, "bucket", *numbers),
            steps_per_epoch=self._stage,
            device=self.fleet.device,
            shapes=tuple(tuple(parameter.shape) for parameter in parameters),
        )
        compression.start(self.fleet, _Row(setting.d, setting.device), setting)
        part = _Part(compression, numbers, sizes)
        for number, memory in part.memories().items():
            for name, kept in self._idle.pop(number, {}).items():
                if kept.shape != memory[name].shape:
                    raise UserError(
                        f"parameter {number} has {memory[name].numel()} entries, in the state that "
                        f"was loaded {kept.numel()}; load the state of this model, and give "
                        "DGCState(model=...) so that the numbers are always the same"
                    )
                memory[name].copy_(kept)
        return part

    def _release(self, keys: Iterable[tuple[int, ...]]) -> None:
        for part in [self._parts.pop(key) for key in keys]:
            self._given_up += part.compression.given_up
            self._idle.update(_copied(part.memories()))

    def _number(self, parameter: Tensor) -> int:
        if parameter not in self._numbers:
            if self._closed:
                raise UserError("DGCState(model=...) was given another model than the hook serves")
            self._numbers[parameter] = len(self._numbers)
        return self._numbers[parameter]

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """This worker's memories, for this worker to load: every process saves its own. By the
        number of the parameter, as text; flat, in the order of the parameter's memory. Going on is
        exact, but for random draws (``sampled``, ``values="natural"``): they are a bucket's, and a
        new DDP model begins with other buckets."""
        memories = dict(self._idle)
        for part in self._parts.values():
            memories.update(part.memories())
        return {
            "workers": self.fleet.size,
            "worker": self.fleet.hosted.start,
            "step": self.steps,
            "parameters": {str(n): memory for n, memory in sorted(_copied(memories).items())},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave. Raises UserError for another worker's state, or
        that of another number of workers."""
        if missing := {"workers", "worker", "step", "parameters"} - set(state):
            raise UserError(f"this is no state of a DGCState; it has no {sorted(missing)[0]!r}")
        own = (self.fleet.hosted.start, self.fleet.size)
        if (saved := (state["worker"], state["workers"])) != own:
            raise UserError(
                f"these are the memories of worker {saved[0]} of {saved[1]}, and this is worker "
                f"{own[0]} of {own[1]}; each saves and loads its own"
            )
        loaded = {int(number): dict(memory) for number, memory in state["parameters"].items()}
        if self._closed and (strange := set(loaded) - set(self._numbers.values())):
            raise UserError(f"the state has a parameter {min(strange)}, which the model has not")
        self._release(list(self._parts))
        device = self.fleet.device
        self._idle = {
            number: {name: tensor.to(device, copy=True) for name, tensor in memory.items()}
            for number, memory in loaded.items()
        }
        self.steps = int(state["step"])


def dgc_hook(state: DGCState, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """For ``DistributedDataParallel.register_comm_hook(state, dgc_hook)``. The gradients are there
    when it returns. What goes wrong comes out of ``backward()``."""
    if not isinstance(state, DGCState):
        raise UserError(
            f"dgc_hook needs a state: register_comm_hook(DGCState(), dgc_hook), not {state!r}"
        )
    state.exchange(bucket)
    buffer = bucket.buffer()
    # one with devices passes on which stream has written the result
    future: torch.futures.Future[Tensor] = torch.futures.Future(
        devices=[buffer.device] if buffer.is_cuda else None
    )
    future.set_result(buffer)
    return future


@dataclass(frozen=True)
class _Part:
    """The parameters of a bucket: their ``numbers`` and ``sizes``, in the order of its buffer."""

    compression: Compression
    numbers: tuple[int, ...]
    sizes: list[int]

    def memories(self) -> Memories:
        """By parameter; views."""
        rows = self.compression.memory.rows().items()
        pieces = {name: torch.split(row[0], self.sizes) for name, row in rows}
        return {
            number: {name: of[place] for name, of in pieces.items()}
            for place, number in enumerate(self.numbers)
        }


class _Row:
    """A bucket as an exchange sees a model. Nobody asks for more than its width and device."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.parameters = torch.zeros(1, 1, device=device).expand(1, width)
        self.gradients = self.buffers = self.parameters


def _copied(memories: Memories) -> Memories:
    return {n: {k: tensor.clone() for k, tensor in m.items()} for n, m in memories.items()}


def _densities(density: float, steps: int, warmup: Sequence[float] | None) -> Densities:
    check_whole("warmup_steps", steps, least=0)
    if warmup is not None:
        if not steps:
            raise UserError("warmup lists densities; say in how many warmup_steps")
        return Densities(density, warmup)
    Densities(density)  # it looks at its argument
    stages = sum(0.25**stage > density for stage in range(1, 64)) if steps else 0
    return Densities.parse(density, stages)
