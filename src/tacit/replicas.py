"""The hosted workers' models, one row of a flat buffer each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tacit import rng
from tacit.errors import UserError

#: Rows start at multiples of this many elements, so that every row meets the same vector
#: instructions in the same places whichever rows are hosted beside it (same bits in every layout).
_ALIGN = 64


class Models(Protocol):
    """The hosted workers' models as an exchange sees them: parameters and gradients ``(L, d)``,
    floating-point buffers ``(L, d_b)``."""

    parameters: Tensor
    gradients: Tensor
    buffers: Tensor


class Replicas:
    """``L`` copies of one model's trainable parameters and buffers.

    ``parameters`` and ``gradients`` have shape ``(L, d)``; ``buffers``, the floating-point buffers
    such as batch-norm statistics, ``(L, d_b)``. The module itself exists once: :meth:`bind` makes
    its parameters, gradients and buffers views of one worker's rows.

    ``groups``: the optimizer's parameter groups, in torch's form (dictionaries whose ``params``
    are parameters of ``module``). Each becomes one block of columns. Parameters in no group, and
    those that need no gradient, are frozen: one copy, shared.
    """

    def __init__(
        self,
        module: nn.Module,
        workers: int,
        groups: Sequence[dict[str, Any]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.module = module.to(device)
        self.groups = _trainable_groups(module, groups)
        ordered = [p for group in self.groups for p in group["params"]]
        if not ordered:
            raise UserError("the model has no trainable parameters; set requires_grad on some")
        if any(p.dtype != torch.float32 for p in ordered):
            raise UserError("the model's trainable parameters must be float32; call model.float()")
        self._parameters: list[nn.Parameter] = ordered
        self.d = sum(p.numel() for p in ordered)
        self._storage = _rows(workers, self.d, device)
        self._gradient_storage = _rows(workers, self.d, device)
        self.parameters = self._storage[:, : self.d]
        self.gradients = self._gradient_storage[:, : self.d]
        self._slices = _slices(ordered)
        for block, p in zip(self._slices, ordered, strict=True):
            self.parameters[:, block] = p.detach().flatten()

        #: Each floating-point buffer under all its names: modules may share one.
        self._buffer_names = _buffer_names(module)
        floating = [module.get_buffer(names[0]) for names in self._buffer_names]
        self._buffer_slices = _slices(floating)
        self._buffer_shapes = [b.shape for b in floating]
        self.buffers = _rows(workers, sum(b.numel() for b in floating), device, align=1)
        for block, buffer in zip(self._buffer_slices, floating, strict=True):
            self.buffers[:, block] = buffer.flatten()
        #: Other buffers (counters): never averaged, one copy a worker.
        self.counters: list[dict[str, Tensor]] = [
            {n: b.clone() for n, b in module.named_buffers() if not b.is_floating_point()}
            for _ in range(workers)
        ]

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the parameters, in the order of the columns."""
        return tuple(tuple(p.shape) for p in self._parameters)

    def scatter(self, noise: float, seed: int, workers: range) -> None:
        """Add Gaussian noise of this standard deviation to every worker's model, each its own."""
        if not 0 <= noise < math.inf:
            raise UserError(f"the noise of the first models must be 0 or more, got {noise:g}")
        for row, worker in zip(self.parameters, workers, strict=True):
            stream = rng.torch_stream(seed, "first model", worker)
            row += noise * torch.randn(self.d, generator=stream).to(row.device)

    # -- one worker's model

    def bind(self, row: int) -> nn.Module:
        """The module with worker ``row``'s parameters, gradients and buffers, as views."""
        self._point(self.parameters[row], self.buffers[row], self.counters[row])
        for block, p in zip(self._slices, self._parameters, strict=True):
            p.grad = self.gradients[row, block].view(p.shape)
        return self.module

    def collect(self, row: int) -> None:
        """After a pass of worker ``row``'s module: keep the buffers that it replaced by new tensors
        instead of updating them in place."""
        for names, block in zip(self._buffer_names, self._buffer_slices, strict=True):
            value, own = self.module.get_buffer(names[0]), self.buffers[row, block]
            if value.data_ptr() != own.data_ptr():
                own.copy_(value.detach().flatten())
        for name in self.counters[row]:
            self.counters[row][name] = self.module.get_buffer(name)

    def show(self, parameters: Tensor, buffers: Tensor) -> nn.Module:
        """The module with given parameters ``(d,)`` and buffers ``(d_b,)``, to evaluate or save."""
        self._point(parameters, buffers, self.counters[0])
        for p in self._parameters:
            p.grad = None
        return self.module

    def _point(self, parameters: Tensor, buffers: Tensor, counters: dict[str, Tensor]) -> None:
        for block, p in zip(self._slices, self._parameters, strict=True):
            p.data = parameters[block].view(p.shape)
        for names, block, shape in zip(
            self._buffer_names, self._buffer_slices, self._buffer_shapes, strict=True
        ):
            for name in names:
                _set_buffer(self.module, name, buffers[block].view(shape))
        for name, value in counters.items():
            _set_buffer(self.module, name, value)

    # -- all workers' models

    def stacked(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Parameters by name, ``(L, *shape)``, as leaves that need a gradient, and where in
        :attr:`gradients` the gradient of each belongs. All are views."""
        names = {id(p): n for n, p in self.module.named_parameters()}
        leaves, targets = {}, []
        for block, p in zip(self._slices, self._parameters, strict=True):
            shape = (len(self), *p.shape)
            leaf = self.parameters[:, block].view(shape)
            leaves[names[id(p)]] = leaf.detach().requires_grad_()
            targets.append(self.gradients[:, block].view(shape))
        return leaves, targets

    def column_blocks(self) -> list[dict[str, Any]]:
        """The parameter groups with their columns: what an optimizer that steps all rows gets.

        Each group's ``params`` is one tensor: all rows, padding included, where there is one
        group; a block of columns otherwise.
        """
        if len(self.groups) == 1:
            return [self._block(self.groups[0], self._storage, self._gradient_storage)]
        blocks, start = [], 0
        for group in self.groups:
            stop = start + sum(p.numel() for p in group["params"])
            columns = slice(start, stop)
            blocks.append(
                self._block(group, self.parameters[:, columns], self.gradients[:, columns])
            )
            start = stop
        return blocks

    def row_blocks(self, row: int) -> list[dict[str, Any]]:
        """The parameter groups as an optimizer of one worker gets them: the module's own shapes,
        but ``(1,)`` for a scalar, which is how its state is told from counters of steps."""
        ends = iter(self._slices)
        blocks = []
        for group in self.groups:
            views = []
            for p in group["params"]:
                columns = next(ends)
                shape = p.shape or (1,)
                view = nn.Parameter(self.parameters[row, columns].view(shape))
                view.grad = self.gradients[row, columns].view(shape)
                views.append(view)
            blocks.append({**group, "params": views})
        return blocks

    @staticmethod
    def _block(group: dict[str, Any], values: Tensor, gradients: Tensor) -> dict[str, Any]:
        parameter = nn.Parameter(values)
        parameter.grad = gradients
        return {**group, "params": [parameter]}

    # -- state

    def worker_state(self, row: int) -> dict[str, Any]:
        """What belongs to one worker, for a checkpoint."""
        return {
            "parameters": self.parameters[row],
            "buffers": self.buffers[row],
            "counters": self.counters[row],
        }

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        self.parameters[row] = state["parameters"]
        self.buffers[row] = state["buffers"]
        for name, value in state["counters"].items():
            self.counters[row][name].copy_(value)


def _trainable_groups(
    module: nn.Module, groups: Sequence[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    groups = groups or [{"params": list(module.parameters())}]
    kept = [{**g, "params": [p for p in g["params"] if p.requires_grad]} for g in groups]
    return [group for group in kept if group["params"]]


def _rows(rows: int, columns: int, device: torch.device | str, align: int = _ALIGN) -> Tensor:
    return torch.zeros(rows, -(-columns // align) * align, device=device)


def _slices(tensors: Sequence[Tensor]) -> list[slice]:
    slices, start = [], 0
    for tensor in tensors:
        slices.append(slice(start, start + tensor.numel()))
        start += tensor.numel()
    return slices


def _buffer_names(module: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, buffer in module.named_buffers(remove_duplicate=False):
        if buffer.is_floating_point():
            names.setdefault(id(buffer), []).append(name)
    return list(names.values())


def _set_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module.get_submodule(path)._buffers[leaf] = value
