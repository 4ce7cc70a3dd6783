"""Deep Gradient Compression: the memory accumulates velocity instead of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit.compressors import Arrived
from tacit.compressors.per_tensor import split_by_size
from tacit.errors import UserError, check_number, inside
from tacit.fleet import Fleet
from tacit.memory.base import Memory, norm
from tacit.replicas import Models
from tacit.setting import Setting

Scope = Literal["model", "tensor"]


class VelocityMemory(Memory):
    """The memory of DGC (Lin, Han, Mao, Wang, Dally, ICLR 2018): momentum correction, momentum
    factor masking and local gradient clipping. The optimizer after it has no momentum.

    A worker keeps a velocity u and what it has not sent of it, v. ``u = m u + g``, ``v += u``; with
    ``nesterov`` ``u = m (u + g)``, ``v += u + g``. What arrives leaves v, so what a code rounds off
    stays there; with ``masking`` the velocity of an entry that is sent is dropped, because it has
    been applied. Entries that travel whole (biases, and everything where nothing is compressed)
    keep theirs: they are momentum SGD's.

    ``clip``: before all that a gradient is scaled to a norm of at most
    ``clip workers^clip_power``, of the whole ``model`` or of each ``tensor``. The published power
    -1/2 is for local gradients that carry the factor 1/workers, and +1/2 for mean gradients of
    independent noise, as here; 0 where the workers agree.
    ``weight_decay``: as in ``torch.optim.SGD``, with the momentum, but never delayed nor sent.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        nesterov: bool = False,
        masking: bool = True,
        clip: float | None = None,
        clip_power: float = -0.5,
        clip_scope: Scope = "model",
        weight_decay: float = 0.0,
        exempt: bool = True,
    ) -> None:
        check_number("momentum", momentum, "[0, 1)")
        if nesterov and not momentum:
            raise UserError("nesterov needs a momentum above 0")
        if clip is not None and not inside(clip, "(0, inf)"):
            raise UserError(f"gradients are clipped to a norm above 0 and finite, not {clip!r}")
        check_number("clip_power", clip_power, "(-inf, inf)")
        if clip_scope not in ("model", "tensor"):
            raise UserError(f"the norm is that of the model or of a tensor, not {clip_scope!r}")
        check_number("weight_decay", weight_decay, "[0, inf)")
        self.momentum, self.nesterov, self.masking = momentum, nesterov, masking
        self.clip, self.clip_power, self.clip_scope = clip, clip_power, clip_scope
        self.weight_decay, self.exempt = weight_decay, exempt

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        super().start(fleet, models, setting)
        self._velocity, self._unsent = self._zeros(), self._zeros()
        device = models.parameters.device
        shapes = setting.parameter_shapes()
        #: Entries that always travel whole.
        self._small = torch.empty(0, dtype=torch.int64, device=device)
        if self.exempt:
            self._small = torch.from_numpy(split_by_size(shapes)[1]).to(device)
        sizes = [math.prod(shape) for shape in shapes]
        ends = list(accumulate(sizes))
        self._parts = [slice(e - s, e) for s, e in zip(sizes, ends, strict=True)]
        self._most = self._local_threshold()
        decayed = setting.d if self.weight_decay else 0
        self._decay = torch.zeros(decayed if self.momentum else 0, device=device)
        #: Kept, as a fresh vector costs more than what is written to it.
        self._result = torch.empty(decayed, device=device)

    def check(self, optimizer: Optimizer) -> None:
        if any(group.get("momentum") for group in optimizer.param_groups):
            raise UserError(
                "dgc has the momentum in its memory; set the optimizer's to 0, and say "
                "dgc(momentum=...)"
            )
        if any("betas" in group for group in optimizer.param_groups):
            raise UserError(
                f"dgc accumulates velocity for SGD, and {type(optimizer).__name__} has moments of "
                "its own; use torch.optim.SGD, on the command line dgc:lr=..."
            )

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        for part, scale in self._scales(vector):
            self._add(self._velocity[row, part], self._unsent[row, part], vector[part], scale)
        return self._unsent[row]

    def _add(self, velocity: Tensor, unsent: Tensor, gradient: Tensor, scale: float) -> None:
        """In place, a gradient that is not scaled by itself: that would be one more vector."""
        if self.nesterov:
            velocity.add_(gradient, alpha=scale).mul_(self.momentum)
            unsent.add_(velocity).add_(gradient, alpha=scale)
            return
        if scale == 1:
            torch.add(gradient, velocity, alpha=self.momentum, out=velocity)
        else:
            velocity.mul_(self.momentum).add_(gradient, alpha=scale)
        unsent.add_(velocity)

    def sent(self, row: int, outgoing: Tensor, arrived: Arrived | None) -> None:
        if arrived is None:
            self._unsent[row].zero_()
            return
        arrived.add_to(self._unsent[row], -1.0)
        if self.masking:
            velocity = self._velocity[row]
            kept = velocity[self._small]
            arrived.clear_in(velocity)
            velocity[self._small] = kept

    def direction(self, combined: Tensor) -> Tensor:
        if not self.weight_decay:
            return combined
        # all workers have the same model
        model, result = self.models.parameters[0], self._result
        if self.momentum:
            self._decay.mul_(self.momentum).add_(model, alpha=self.weight_decay)
            if not self.nesterov:
                return torch.add(combined, self._decay, out=result)
        torch.add(combined, model, alpha=self.weight_decay, out=result)
        return result.add_(self._decay, alpha=self.momentum) if self.nesterov else result

    def _scales(self, gradient: Tensor) -> Iterator[tuple[slice, float]]:
        """Parts of a gradient, and what clipping scales them by."""
        whole = slice(0, len(gradient))
        parts = self._parts if self.clip_scope == "tensor" else [whole]
        scales = [1.0]
        if self.clip is not None:
            scales = [min(1.0, self._most / max(norm(gradient[p]), 1e-30)) for p in parts]
        yield from [(whole, 1.0)] if set(scales) == {1.0} else zip(parts, scales, strict=True)

    def _local_threshold(self) -> float:
        """The norm that a worker's gradient is clipped to."""
        if self.clip is None:
            return math.inf
        try:
            most: float = self.clip * self.setting.workers**self.clip_power
        except OverflowError:
            most = math.inf
        if not 0 < most < math.inf:
            raise UserError(
                f"clip_power = {self.clip_power:g} of {self.setting.workers} workers makes a norm "
                f"of {most:g}; choose one between -1 and 1"
            )
        return most

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self._decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._decay.copy_(state["decay"])

    def rows(self) -> dict[str, Tensor]:
        return {"velocity": self._velocity, "unsent": self._unsent}
