"""Local training: every hosted worker's forward and backward pass, and its optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tacit import rng
from tacit.errors import TrainingDiverged, UserError
from tacit.optimizers import LocalOptimizer
from tacit.replicas import Replicas
from tacit.stacked import ELEMENTWISE, stacked_losses
from tacit.tasks.feed import Feed
from tacit.tasks.task import Task

Execution = Literal["auto", "loop", "batched"]

#: Layers whose batched pass is matrix products and element-wise work, draws nothing at random and
#: keeps no statistics: there one pass over all workers beats a loop. Convolutions do not (on CPU).
_BATCHABLE = {nn.Sequential, nn.Linear, nn.Flatten, nn.LayerNorm, nn.LogSoftmax, *ELEMENTWISE}


class LocalTraining:
    """The local half of a step.

    ``feed``: the hosted workers' batches. ``count``: keep the number of wrong answers to each
    batch, before the step, in :attr:`mistakes`. ``execution``: ``batched`` runs one pass for all
    workers, ``loop`` one pass a worker; ``auto`` chooses (see :func:`batchable`). Both
    give the same gradients up to rounding; the loop gives the same bits whichever workers are
    hosted here, the batched pass need not. In the loop, each worker's dropout draws from its own
    stream of (seed, worker, draw).
    """

    def __init__(
        self,
        task: Task,
        replicas: Replicas,
        optimizer: LocalOptimizer,
        workers: Sequence[int],
        feed: Feed,
        seed: int,
        execution: Execution = "auto",
        device: torch.device | str = "cpu",
        deterministic: bool = False,
        count: bool = False,
    ) -> None:
        self.task = task
        self.replicas = replicas
        self.optimizer = optimizer
        self.workers = workers
        self.feed = feed
        self.count = count
        #: Wrong answers of the last pass, all active workers together.
        self.mistakes = 0
        self.seed = seed
        self._flips = False
        self.device = torch.device(device)
        self.batched = self._choose(execution, deterministic)
        self.draws = [0] * len(workers)
        self._random_devices = [self.device] if self.device.type == "cuda" else []
        if self.batched:
            self._stacked, self._targets = replicas.stacked()

    def gradients(self, active: list[int], step: int) -> Tensor:
        """Fill ``replicas.gradients`` for the workers in rows ``active``; their losses, ``(A,)``.

        Raises TrainingDiverged, naming the worker and the step, when a loss is not finite.
        """
        self.replicas.module.train()
        self.mistakes = 0
        if self.batched and len(active) == len(self.workers):
            losses = self._batched_pass()
        else:
            losses = self._loop(active)
        for row in active:
            self.draws[row] += 1
        finite = torch.isfinite(losses)
        if not finite.all():
            row = active[int((~finite).nonzero()[0])]
            raise TrainingDiverged(
                f"the loss of worker {self.workers[row]} is not finite at step {step}; "
                "lower the learning rate or look at this worker's data"
            )
        return losses

    def flipped(self, active: list[int]) -> Tensor:
        """The gradients that these workers' next batches would give were a label y C - 1 - y, of C
        classes: ``(L, d)``, zeros of the others. Only ``replicas.gradients`` changes. Raises
        UserError for outputs that are no logits of 2 or more classes, in their last dimension."""
        replicas = self.replicas
        if not active:
            return torch.zeros_like(replicas.gradients)
        replicas.module.train()
        buffers = replicas.buffers.clone()
        counters = [{n: value.clone() for n, value in own.items()} for own in replicas.counters]
        self._flips = True
        try:
            self._loop(active)
        finally:
            self._flips = False
        # statistics have seen the batch: honest workers' must not
        replicas.buffers.copy_(buffers)
        replicas.counters[:] = counters
        return replicas.gradients.clone()

    def step(self, active: list[int]) -> None:
        """One local optimizer step of the workers in rows ``active``."""
        self.optimizer.step(active, self._closure)

    # -- the two ways to pass

    def _loop(self, active: list[int]) -> Tensor:
        self.replicas.gradients.zero_()
        with torch.random.fork_rng(devices=self._random_devices):
            return torch.stack([self._pass(row, self.draws[row]) for row in active])

    def _pass(self, row: int, draw: int) -> Tensor:
        x, y = self._batch([row], [draw])
        module = self.replicas.bind(row)
        stream = rng.derive(self.seed, "training", self.workers[row], draw)
        rng.seed_default(stream, self._random_devices)
        output = module(x)
        if self._flips:
            y = _flipped(y, output)
        loss = self.task.loss(output, y)
        self._judge(output, y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.replicas.collect(row)
        return loss.detach()

    def _closure(self, row: int) -> Callable[[], Tensor]:
        """The last pass of a worker, again: for optimizers that evaluate the loss by themselves."""

        def again() -> Tensor:
            # mistakes are counted before the step; this pass is a part of it
            counting, self.count = self.count, False
            self.replicas.gradients[row].zero_()
            with torch.random.fork_rng(devices=self._random_devices), torch.enable_grad():
                loss = self._pass(row, self.draws[row] - 1)
            self.count = counting
            return loss

        return again

    def _judge(self, output: Tensor, y: Tensor) -> None:
        if self.count:
            right = self.task.correct(output.detach(), y)
            self.mistakes += right.numel() - int(right.sum())

    def _batched_pass(self) -> Tensor:
        rows = list(range(len(self.workers)))
        x, y = self._batch(rows, self.draws)
        x, y = (t.reshape(len(rows), -1, *t.shape[1:]) for t in (x, y))
        losses, outputs = stacked_losses(self.replicas.module, self.task.loss, self._stacked, x, y)
        self._judge(outputs.flatten(0, 1), y.flatten(0, 1))
        # The workers' losses do not depend on each other's parameters: the gradient of the sum
        # holds every worker's own gradient.
        gradients = torch.autograd.grad(
            losses.sum(), list(self._stacked.values()), materialize_grads=True
        )
        for target, gradient in zip(self._targets, gradients, strict=True):
            target.copy_(gradient)
        return losses.detach()

    def _batch(self, rows: list[int], draws: list[int]) -> tuple[Tensor, Tensor]:
        x, y = self.feed.take(rows, draws)
        return x.to(self.device), y.to(self.device)

    def _choose(self, execution: Execution, deterministic: bool) -> bool:
        if execution not in ("auto", "loop", "batched"):
            raise UserError(f"execution is auto, loop or batched, not {execution!r}")
        if execution == "batched" and deterministic:
            raise UserError("a deterministic run needs execution loop: see LocalTraining")
        if execution == "auto":
            many = len(self.workers) > 1 and self.feed.even
            return many and not deterministic and batchable(self.replicas.module)
        if execution == "batched":
            _check_batched(self.replicas.module)
            if not self.feed.even:
                raise UserError("execution='batched' needs batches of one size; use 'auto'")
        return execution == "batched"


def _flipped(y: Tensor, output: Tensor) -> Tensor:
    """The labels C - 1 - y."""
    classes = output.shape[-1]
    if y.is_floating_point() or output.dim() != y.dim() + 1 or classes < 2:
        raise UserError(
            "there are no labels to flip: this task's outputs are not logits of classes"
        )
    return classes - 1 - y


def batchable(module: nn.Module) -> bool:
    """Whether one batched pass over all workers is exact and likely faster than a loop."""
    # the exact types: a subclass, or a container of one's own, may do anything in its forward
    known = all(type(m) in _BATCHABLE for m in module.modules())
    return known and not list(module.buffers())


def _check_batched(module: nn.Module) -> None:
    """Raise UserError for what a batched pass cannot keep apart, randomness and statistics, and for
    layers that ``vmap`` does not run."""
    for name, part in module.named_modules():
        # the other cells, RNNCell and GRUCell, do run
        if isinstance(part, nn.RNNBase | nn.LSTMCell):
            raise UserError(
                f"execution='batched' cannot run {type(part).__name__} ({name or 'the model'}): "
                "torch's vmap does not support this layer; use 'auto' or 'loop'"
            )
        random = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        if random or list(part.buffers(recurse=False)):
            raise UserError(
                f"execution='batched' cannot run {type(part).__name__} ({name or 'the model'}): "
                "it draws at random or keeps statistics; use 'auto' or 'loop'"
            )
