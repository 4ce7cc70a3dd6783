"""The built-in tasks, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tacit.errors import UserError, unknown
from tacit.tasks.data import TensorData
from tacit.tasks.digits import load_digits
from tacit.tasks.images import load_cifar10, load_mnist
from tacit.tasks.models import MODELS
from tacit.tasks.task import Task

# Keras' epsilon is 1e-7, PyTorch's 1e-8.
ADAM = partial(torch.optim.Adam, lr=1e-3, eps=1e-7)
NESTEROV = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)


class _Training(NamedTuple):
    optimizer: Callable[[Any], torch.optim.Optimizer]
    kernel_decay: float = 0.0


# Settings of the published FDA experiments; the mlp is ours.
TRAINING: dict[str, _Training] = {
    "mlp": _Training(ADAM),
    "lenet5": _Training(ADAM),
    "vgg16": _Training(ADAM),
    # Keras' L2(1e-4) adds 1e-4 ||w||^2 to the loss: the gradient of weight decay 2e-4.
    "densenet121": _Training(NESTEROV, kernel_decay=2e-4),
    "densenet201": _Training(NESTEROV, kernel_decay=2e-4),
}


class Source(NamedTuple):
    """A data set, and the models that fit it; the first is the default."""

    load: Callable[[str | Path | None], tuple[TensorData, TensorData]]
    models: tuple[str, ...]
    description: str


def _digits(data: str | Path | None) -> tuple[TensorData, TensorData]:
    if data is not None:
        raise UserError("task 'digits' comes with scikit-learn; leave out the data folder")
    return load_digits()


TASKS: dict[str, Source] = {
    "digits": Source(_digits, ("mlp",), "8x8 handwritten digits that come with scikit-learn"),
    "mnist": Source(load_mnist, ("lenet5", "vgg16"), "28x28 handwritten digits"),
    "cifar10": Source(load_cifar10, ("densenet121", "densenet201"), "32x32 colour photographs"),
}


def load(name: str, model: str | None = None, data: str | Path | None = None) -> Task:
    """The built-in task ``name`` with ``model`` (by default the first that fits it).

    data: a folder of parquet files (see ``tacit.tasks.images``); by default the environment
    variable TACIT_DATA, and without it the Hugging Face hub.
    Raises UserError for unknown names and missing data, MissingExtra for missing libraries.
    """
    source = TASKS.get(name)
    if source is None:
        raise unknown("task", name, TASKS)
    chosen = source.models[0] if model is None else model
    if chosen not in source.models:
        raise unknown(f"model for task {name!r}:", chosen, source.models)
    train, test = source.load(data)
    training = TRAINING[chosen]
    return Task(
        name=name,
        train=train,
        test=test,
        model=MODELS[chosen],
        optimizer=training.optimizer,
        kernel_decay=training.kernel_decay,
        description=f"{chosen} on {source.description}",
    )
