"""Local optimizers: one for all rows where that is the same thing, else one for each worker."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tacit.replicas import Replicas

OptimizerFactory = Callable[[Any], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

#: Optimizers whose update of an element depends on that element's own gradient and state alone,
#: so that stepping a stack of models is stepping each.
_ELEMENTWISE = {
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Rprop,
    torch.optim.ASGD,
}

_FUSED = {torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad}


class OptimizerRows(Protocol):
    """The hosted workers' optimizer state as an exchange sees it."""

    def rows(self) -> list[Tensor]:
        """The state that is as large as the model, each ``(L, n)``, in order."""

    def set_rows(self, rows: list[Tensor]) -> None:
        """Write back what :meth:`rows` gave."""


class LocalOptimizer:
    """The hosted workers' optimizers (and their schedules, stepped after every local step).

    ``together``: step all rows at once; by default wherever the optimizer is element-wise. Only
    one optimizer each can step some of the workers (client sampling).
    """

    def __init__(
        self,
        replicas: Replicas,
        factory: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        together: bool | None = None,
    ) -> None:
        self.replicas = replicas
        first = factory(replicas.column_blocks())
        self.together = type(first) in _ELEMENTWISE if together is None else together
        if self.together:
            _fuse(first)
        self.optimizers = (
            [first]
            if self.together
            else [factory(replicas.row_blocks(row)) for row in range(len(replicas))]
        )
        self.schedulers = [scheduler(o) for o in self.optimizers] if scheduler else []

    @property
    def evaluates_loss(self) -> bool:
        """Whether a step evaluates the loss and its gradient by itself, maybe several times."""
        return isinstance(self.optimizers[0], torch.optim.LBFGS)

    @property
    def rate(self) -> float:
        """The learning rate of the next step, of the first group of parameters."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def step(
        self, active: list[int], closure: Callable[[int], Callable[[], Any]] | None = None
    ) -> None:
        """One local step of the workers in rows ``active``. ``closure(row)`` evaluates a worker's
        loss and fills its gradient again, for optimizers that need it."""
        for index, optimizer in enumerate(self.optimizers):
            if self.together or index in active:
                if self.evaluates_loss and closure is not None:
                    optimizer.step(closure(index))
                else:
                    optimizer.step()
                if self.schedulers:
                    self.schedulers[index].step()

    # -- state, by worker

    def rows(self) -> list[Tensor]:
        """The state that is as large as the model (moments, momentum), each ``(L, n)``, in order.

        Without the rows' padding. Views where rows step together; otherwise stacked copies, to be
        given to :meth:`set_rows`.
        """
        if self.together:
            return [t[:, : self.replicas.d] for t in self._big()]
        per_worker = [self._big(o) for o in self.optimizers]
        return [torch.stack([t.flatten() for t in same]) for same in zip(*per_worker, strict=True)]

    def set_rows(self, rows: list[Tensor]) -> None:
        """Write back what :meth:`rows` gave."""
        if self.together:
            return
        for index, optimizer in enumerate(self.optimizers):
            for tensor, row in zip(self._big(optimizer), rows, strict=True):
                tensor.copy_(row[index].view_as(tensor))

    def _big(self, optimizer: Optimizer | None = None) -> list[Tensor]:
        optimizer = optimizer or self.optimizers[0]
        return [
            value
            for group in optimizer.param_groups
            for p in group["params"]
            for value in optimizer.state[p].values()
            if torch.is_tensor(value) and value.shape == p.shape
        ]

    def worker_state(self, row: int) -> dict[str, Any]:
        """Optimizer and schedule state of the worker in this row, for a checkpoint."""
        index = 0 if self.together else row
        state = self.optimizers[index].state_dict()
        shapes = [p.shape for g in self.optimizers[index].param_groups for p in g["params"]]
        if self.together:
            state["state"] = {
                i: {name: _row_of(value, shapes[i], row) for name, value in entry.items()}
                for i, entry in state["state"].items()
            }
        if self.schedulers:
            state["scheduler"] = self.schedulers[index].state_dict()
        return state

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        """Take back what :meth:`worker_state` gave, with the same layout of rows or another."""
        index = 0 if self.together else row
        optimizer = self.optimizers[index]
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})
        for i, entry in state["state"].items():
            p = parameters[int(i)]
            own = optimizer.state[p]
            for name, value in entry.items():
                if self.together and torch.is_tensor(value) and value.shape == p.shape[1:]:
                    own.setdefault(name, torch.zeros_like(p))[row] = value
                else:
                    own[name] = value.clone() if torch.is_tensor(value) else value
        if self.schedulers and "scheduler" in state:
            self.schedulers[index].load_state_dict(state["scheduler"])


def complete_state(optimizer: Optimizer) -> dict[str, Any]:
    """``optimizer.state_dict()``; before the first step, with the zeros that its state starts from.

    So a state has the same tensors at every step, as ``torch.distributed.checkpoint`` needs, which
    loads into the tensors that are there.
    """
    if optimizer.state or isinstance(optimizer, torch.optim.LBFGS):
        return optimizer.state_dict()
    state = stepped_twin(optimizer).state_dict()
    for entry in state["state"].values():
        for value in entry.values():
            if torch.is_tensor(value):
                value.zero_()
    return {**optimizer.state_dict(), "state": state["state"]}


def stepped_twin(optimizer: Optimizer) -> Optimizer:
    """A copy that has taken a step on zero gradients: it has the state that this one will have."""
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    twin.step()
    return twin


def _fuse(optimizer: Optimizer) -> None:
    """Let torch do the whole update in one pass over memory where it can, unless the user chose.

    Its fused kernels take contiguous parameters only. A block of columns is contiguous where one
    worker is hosted; it is not fused even there, for the same bits in every layout.
    """
    if len(optimizer.param_groups) > 1:
        return
    for group in optimizer.param_groups:
        chosen = group.get("fused", True) is not None or group.get("foreach") is not None
        plain = all(p.is_contiguous() and p.is_floating_point() for p in group["params"])
        if not chosen and plain and type(optimizer) in _FUSED:
            group["fused"] = True


def _row_of(value: Any, shape: torch.Size, row: int) -> Any:
    return value[row] if torch.is_tensor(value) and value.shape == shape else value
