"""A user's model as one flat vector, for as long as it is attached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tacit.errors import UserError


class FlatModel:
    """The parameters that ``optimizer`` trains, in the module's order, as one vector; the
    floating-point buffers likewise.

    ``parameters`` and ``gradients`` ``(1, d)``, ``buffers`` ``(1, d_b)`` are what an exchange reads
    and writes (``gradients`` only where asked for). With ``views``, the module's parameters become
    views of ``parameters`` until :meth:`restore`, so nothing is copied; the parameter objects, and
    with them the optimizer, stay the same. Without, :meth:`read` and :meth:`write` copy. Gradients
    and buffers are copied.
    """

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, views: bool = True, gradients: bool = True
    ) -> None:
        self.module = unwrapped(module)
        self.trained = _trained(self.module, optimizer)
        self.views = views
        device = self.trained[0].device
        self.d = sum(p.numel() for p in self.trained)
        self.parameters = torch.empty(1, self.d, device=device)
        self._slots = _slots(self.parameters[0], self.trained)
        self._own = [p.data for p in self.trained]
        torch._foreach_copy_(self._slots, self._own)
        self.write()
        floating = [b for b in _unique(self.module.buffers()) if b.is_floating_point()]
        self._floating = floating
        self.buffers = torch.empty(1, sum(b.numel() for b in floating), device=device)
        self._buffer_slots = _slots(self.buffers[0], floating)
        self.read_buffers()
        self.gradients = torch.zeros_like(self.parameters) if gradients else torch.empty(1, 0)
        self._gradient_slots = _slots(self.gradients[0], self.trained) if gradients else []

    def restore(self) -> None:
        """Undo what ``views`` did: every parameter gets its own tensor again."""
        if self.views:
            self.read()
            for p, slot, own in zip(self.trained, self._slots, self._own, strict=True):
                own.copy_(slot)
                p.data = own
        self.views = False

    # -- parameters and buffers

    @torch.no_grad()
    def read(self) -> None:
        """Bring ``parameters`` up to date with the module. Something may have given a parameter
        another tensor (``module.to(memory_format=...)``): its values count, and it is a view again.
        """
        self._check_place()
        if not self.views:
            torch._foreach_copy_(self._slots, [p.data for p in self.trained])
            return
        for p, slot in zip(self.trained, self._slots, strict=True):
            if p.data_ptr() != slot.data_ptr():
                slot.copy_(p.data)
                p.data = slot

    @torch.no_grad()
    def write(self) -> None:
        """Bring the module up to date with ``parameters``."""
        if not self.views:
            torch._foreach_copy_([p.data for p in self.trained], self._slots)
            return
        for p, slot in zip(self.trained, self._slots, strict=True):
            if p.data_ptr() != slot.data_ptr():
                p.data = slot

    def _check_place(self) -> None:
        for p in self.trained:
            if p.device != self.parameters.device or p.dtype != torch.float32:
                raise UserError(
                    f"a parameter has become {p.dtype} on {p.device} while the model was attached; "
                    "move the model before attach"
                )

    def check_complete(self, optimizer: Optimizer) -> None:
        """Raise UserError where the optimizer trains more than when the model was attached."""
        groups = optimizer.param_groups
        if sum(p.requires_grad for group in groups for p in group["params"]) > len(self.trained):
            raise UserError(
                "the optimizer trains parameters that it did not train when the model was attached "
                "(unfrozen, or a new group); finish(), and attach again"
            )

    @torch.no_grad()
    def read_buffers(self) -> None:
        for slot, buffer in zip(self._buffer_slots, self._floating, strict=True):
            slot.copy_(buffer)

    @torch.no_grad()
    def write_buffers(self) -> None:
        for slot, buffer in zip(self._buffer_slots, self._floating, strict=True):
            buffer.copy_(slot)

    def show(self, parameters: Tensor, buffers: Tensor) -> None:
        """Give the module these parameters ``(d,)`` and floating-point buffers ``(d_b,)``."""
        self.parameters[0] = parameters
        self.write()
        self.buffers[0] = buffers
        self.write_buffers()

    @contextmanager
    def showing(self, parameters: Tensor, buffers: Tensor) -> Iterator[None]:
        """:meth:`show` for a while."""
        own = self.parameters[0].clone(), [b.clone() for b in self._floating]
        self.show(parameters, buffers)
        try:
            yield
        finally:
            self.parameters[0] = own[0]
            self.write()
            for buffer, value in zip(self._floating, own[1], strict=True):
                buffer.copy_(value)

    # -- gradients

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        """The module's gradients are put aside, and put back."""
        kept = [p.grad for p in self.trained]
        for p in self.trained:
            p.grad = None
        try:
            yield
        finally:
            for p, grad in zip(self.trained, kept, strict=True):
                p.grad = grad

    @torch.no_grad()
    def read_gradients(self) -> Tensor:
        """Copy the module's gradients; which parameters have one, ``(parameters,)``. The others
        count as zero."""
        for p, slot in zip(self.trained, self._gradient_slots, strict=True):
            if p.grad is None:
                slot.zero_()
            else:
                slot.copy_(p.grad)
        return self.parameters.new_tensor([float(p.grad is not None) for p in self.trained])

    @torch.no_grad()
    def write_gradients(self, having: Tensor) -> None:
        """Give the module the gradients, but none to parameters of which ``having`` is zero, unless
        something arrives (which may be later than at the step of its gradient)."""
        for p, slot, has in zip(self.trained, self._gradient_slots, having.tolist(), strict=True):
            if not has and not slot.any():
                p.grad = None
            elif p.grad is None:
                p.grad = slot.clone()
            else:
                p.grad.copy_(slot)

    # -- descriptions and state

    def shapes(self) -> dict[str, list[int]]:
        """Names and shapes of what is exchanged, in order."""
        names = {id(p): name for name, p in self.module.named_parameters()}
        return {names[id(p)]: list(p.shape) for p in self.trained}

    def tensors(self) -> list[Tensor]:
        """All of the module's parameters and buffers: what workers start from."""
        return [*(p.data for p in self.module.parameters()), *self.module.buffers()]

    def state_dict(self) -> dict[str, Any]:
        self.read()
        return {
            "parameters": self.parameters[0].clone(),
            "buffers": {name: b.clone() for name, b in self.module.named_buffers()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parameters[0] = state["parameters"]
        self.write()
        for name, buffer in self.module.named_buffers():
            buffer.copy_(state["buffers"][name])
        self.read_buffers()


def unwrapped(module: nn.Module) -> nn.Module:
    """The user's own module inside ``torch.compile`` and ``DistributedDataParallel``."""
    return _layers(module)[-1]


def is_ddp(module: nn.Module) -> bool:
    return any(isinstance(m, nn.parallel.DistributedDataParallel) for m in _layers(module))


def _layers(module: nn.Module) -> list[nn.Module]:
    layers = [module]
    while True:
        inner = getattr(layers[-1], "_orig_mod", None)
        if isinstance(layers[-1], nn.parallel.DistributedDataParallel):
            inner = layers[-1].module
        if not isinstance(inner, nn.Module):
            return layers
        layers.append(inner)


def _trained(module: nn.Module, optimizer: Optimizer) -> list[nn.Parameter]:
    known = {id(p): name for name, p in module.named_parameters()}
    stepped = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    for key, p in stepped.items():
        if key not in known:
            raise UserError(
                f"the optimizer steps a parameter of shape {tuple(p.shape)} that is not the "
                "model's; give attach the model that this optimizer was made for"
            )
    # the module's order: that of the optimizer's groups may differ from process to process
    trained = [p for p in module.parameters() if id(p) in stepped and p.requires_grad]
    if not trained:
        raise UserError("the optimizer has no parameters that require a gradient")
    for p in trained:
        if hasattr(p, "to_local"):
            raise UserError(f"{known[id(p)]} is sharded (a DTensor); attach takes whole parameters")
        if p.dtype != torch.float32:
            raise UserError(
                f"{known[id(p)]} is {p.dtype}; parameters must be float32, so call model.float() "
                "and use torch.autocast for mixed precision"
            )
        if p.device != trained[0].device:
            raise UserError(f"{known[id(p)]} is on {p.device}, others on {trained[0].device}")
    return trained


def _unique(tensors: Iterable[Any]) -> list[Any]:
    return list({id(t): t for t in tensors}.values())


def _slots(row: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """Views of ``row`` with the shapes of these tensors, one after the other."""
    slots, start = [], 0
    for tensor in like:
        slots.append(row[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()
    return slots
