"""A learning task: what is trained, on what, and how well that went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.tasks.augment import Augment
from tacit.tasks.data import Data
from tacit.tasks.streams.base import StreamFactory


def argmax_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the largest output is that of the target class: outputs (b, classes), targets (b,)
    -> (b,) bool."""
    return outputs.argmax(dim=-1) == targets


def binary_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Whether the logit has the sign of the target: outputs (b, 1) or (b,), targets (b,) of 0 and 1
    -> (b,) bool."""
    return (outputs.reshape(targets.shape) > 0) == (targets > 0.5)


def binary_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean log-loss of one logit a sample: outputs (b, 1) or (b,), targets (b,) of 0 and 1, of any
    type."""
    logits = outputs.reshape(targets.shape)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


@dataclass(frozen=True)
class Task:
    """Everything about a run that is not communication.

    model:        builds a freshly initialised module. Initialisers draw from torch's default
                  generators, so the caller wraps the call in ``tacit.rng.scoped``.
    loss:         (outputs, targets) -> scalar, the mean over the batch.
    optimizer:    parameters or parameter groups -> the local optimizer.
    batch_size:   samples per worker and step.
    kernel_decay: weight decay of the kernels alone (see ``parameter_groups``).
    stream:       (workers, batch size, seed) -> where batches come from instead of ``train``, and
                  test data instead of ``test``. These two are then what a stream is made of, or
                  a sample of it (see ``tacit.tasks.registry.load``).
    correct:      (outputs, targets) -> (b,), which answers are right (bool), or the share of each
                  that is (float, from 0 to 1).
    augment:      changes a worker's batch at random before it is trained on; test data never.
                  (inputs (n, ...), random numbers of (seed, worker, draw)) -> inputs.
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
    stream: StreamFactory | None = None
    correct: Callable[[Tensor, Tensor], Tensor] = argmax_correct
    augment: Augment | None = None


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
