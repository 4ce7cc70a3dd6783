"""What several recipes are put together from, and how they look at their arguments."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tacit.compression import Compression
from tacit.compressors import Compressor, PerTensor, as_compressor
from tacit.errors import UserError, check_number
from tacit.memory import ErrorFeedback
from tacit.optimizers import OptimizerFactory
from tacit.schedule import Densities


def needed(compressor: str | Compressor, per_tensor: bool = False) -> Compressor:
    """The compressor of a method that has no other way; ``per_tensor``: of each parameter tensor
    by itself. Raises UserError for None."""
    chosen = as_compressor(compressor)
    if chosen is None:
        raise UserError("this method needs a compressor; identity sends everything")
    return PerTensor(chosen) if per_tensor else chosen


def with_feedback(
    compressor: str | Compressor | None, download: str | Compressor | None
) -> Compression | None:
    """Of models: what is not sent is added to the next change."""
    chosen, back = as_compressor(compressor), as_compressor(download)
    if chosen is None:
        if back is not None:
            raise UserError("download needs a compressor too; identity sends everything")
        return None
    return Compression(chosen, ErrorFeedback(), back)


def warmed_up(compressor: Compressor, warmup: int | str) -> Densities | None:
    """The compressor's density with a warm-up (see ``Densities``); None: it has none. Raises
    UserError for a warm-up of a compressor without a density."""
    density = compressor.density
    densities = Densities.parse(1.0 if density is None else density, warmup)
    if not densities.warmup:
        return None
    if density is None:
        raise UserError(
            "a warm-up is one of densities; take a compressor that has one, such as "
            "topk(density=0.001)"
        )
    return densities


def sgd(lr: float | None, momentum: float = 0.0) -> OptimizerFactory | None:
    """SGD at this rate; None: the task's optimizer."""
    if lr is None:
        return None
    return partial(torch.optim.SGD, lr=rate("lr", lr), momentum=momentum)


def polyak(lr: float, momentum: float) -> OptimizerFactory:
    """SGD along an exponential average of the gradients, ``m <- beta m + (1 - beta) g`` from m = 0
    (torch's SGD with dampening starts from m = g)."""
    rate("lr", lr)
    check_number("momentum", momentum, "[0, 1)")

    def make(parameters: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum, dampening=momentum)
        for group in optimizer.param_groups if momentum else []:
            for p in group["params"]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return optimizer

    return make


def rate(what: str, value: float) -> float:
    """A learning rate. Raises UserError for what is not above 0 and finite."""
    return check_number(what, value, "(0, inf)")
