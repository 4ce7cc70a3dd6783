"""A learning task: what is trained, on what, and how well that went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.tasks.data import Data


@dataclass(frozen=True)
class Task:
    """Everything about a run that is not communication.

    model:        builds a freshly initialised module. Initialisers draw from torch's default
                  generators, so the caller wraps the call in ``tacit.rng.scoped``.
    loss:         (outputs, targets) -> scalar, the mean over the batch.
    optimizer:    parameters or parameter groups -> the local optimizer.
    batch_size:   samples per worker and step.
    kernel_decay: weight decay of the kernels alone (see ``parameter_groups``).
    """

    name: str
    train: Data
    test: Data
    model: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    batch_size: int = 32
    kernel_decay: float = 0.0
    description: str = ""


def is_kernel(parameter: Tensor) -> bool:
    """Whether ``parameter`` is the kernel of a convolution or linear layer, by its shape: biases
    and the scales and shifts of normalisation are vectors."""
    return parameter.ndim >= 2


def parameter_groups(task: Task, model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters of ``model`` as groups for a ``torch.optim`` optimizer.

    With ``kernel_decay`` there are two groups: the kernels, which decay, and the rest, which does
    not. Without, there is one, in the order of ``model.parameters()``.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if task.kernel_decay == 0.0:
        return [{"params": trainable}]
    kernels = [parameter for parameter in trainable if is_kernel(parameter)]
    others = [parameter for parameter in trainable if not is_kernel(parameter)]
    groups = [
        {"params": kernels, "weight_decay": task.kernel_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
