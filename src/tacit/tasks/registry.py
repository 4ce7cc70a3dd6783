"""The built-in tasks, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.calls import Value, call, parse_call
from tacit.errors import UserError, unknown
from tacit.tasks.augment import Augment, crop_and_flip
from tacit.tasks.data import Data, TensorData
from tacit.tasks.digits import load_digits
from tacit.tasks.images import load_cifar10, load_mnist
from tacit.tasks.models import MODELS
from tacit.tasks.speech import load_fsdd
from tacit.tasks.streams import StreamFactory, graphical, one_pass, separator
from tacit.tasks.streams.generated import TEST_SIZE
from tacit.tasks.streams.options import flag
from tacit.tasks.task import Task, argmax_correct, binary_correct, binary_loss
from tacit.tasks.text import character_correct, character_loss, load_shakespeare

# Keras' epsilon is 1e-7, PyTorch's 1e-8.
ADAM = partial(torch.optim.Adam, lr=1e-3, eps=1e-7)
NESTEROV = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
# He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)


class _Training(NamedTuple):
    optimizer: Callable[[Any], torch.optim.Optimizer]
    kernel_decay: float = 0.0
    batch_size: int = 32
    augment: bool = False


# Settings of the published FDA experiments, and of ResNet; the mlp and the rates of the recurrent
# networks are ours.
TRAINING: dict[str, _Training] = {
    "mlp": _Training(ADAM),
    "lenet5": _Training(ADAM),
    "vgg16": _Training(ADAM),
    # Keras' L2(1e-4) adds 1e-4 ||w||^2 to the loss: the gradient of weight decay 2e-4.
    "densenet121": _Training(NESTEROV, kernel_decay=2e-4),
    "densenet201": _Training(NESTEROV, kernel_decay=2e-4),
    "resnet20": _Training(MOMENTUM, batch_size=128, augment=True),
    "resnet110": _Training(MOMENTUM, batch_size=128, augment=True),
    # MoNNA's own recipe brings its optimizer
    "monna-cnn": _Training(partial(torch.optim.SGD, lr=0.1), batch_size=25),
    "monna-cifar": _Training(partial(torch.optim.SGD, lr=0.1), batch_size=50),
    "char-lstm": _Training(partial(torch.optim.SGD, lr=1.0, momentum=0.9)),
    "gru": _Training(partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
}


# Plain SGD on small batches, as in the dynamic averaging experiments; the rate is ours.
ONLINE = _Training(partial(torch.optim.SGD, lr=0.1), batch_size=10)


class Source(NamedTuple):
    """Where samples come from, and the models that fit them; the first is the default.

    load:    the folder of the data -> training and test data; None: the stream makes its samples.
    stream:  training and test data, if there are any, and options -> the stream's factory.
    augment: what changes training samples at random, where the model's settings or the option
             ``augment`` ask for it.
    """

    load: Callable[[str | Path | None], tuple[TensorData, TensorData]] | None
    models: tuple[str, ...]
    description: str
    stream: Callable[..., StreamFactory] | None = None
    training: _Training | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    correct: Callable[[Tensor, Tensor], Tensor] = argmax_correct
    augment: Augment | None = None


def _digits(data: str | Path | None) -> tuple[TensorData, TensorData]:
    if data is not None:
        raise UserError("task 'digits' comes with scikit-learn; leave out the data folder")
    return load_digits()


def _generated(stream: Callable[..., StreamFactory], description: str) -> Source:
    return Source(
        None, ("kamp-mlp", "linear"), description, stream, ONLINE, binary_loss, binary_correct
    )


TASKS: dict[str, Source] = {
    "digits": Source(_digits, ("mlp",), "8x8 handwritten digits that come with scikit-learn"),
    "mnist": Source(load_mnist, ("lenet5", "vgg16", "monna-cnn"), "28x28 handwritten digits"),
    "cifar10": Source(
        load_cifar10,
        ("densenet121", "densenet201", "resnet20", "resnet110", "monna-cifar"),
        "32x32 colour photographs",
        augment=crop_and_flip,
    ),
    "shakespeare": Source(
        load_shakespeare,
        ("char-lstm",),
        "windows of 64 characters of tiny Shakespeare",
        loss=character_loss,
        correct=character_correct,
    ),
    "fsdd": Source(load_fsdd, ("gru",), "digits spoken by six speakers"),
    "digits-stream": Source(
        _digits, ("mlp",), "a stream of 8x8 handwritten digits", one_pass, ONLINE
    ),
    "mnist-stream": Source(
        load_mnist, ("kamp-cnn",), "a stream of 28x28 handwritten digits", one_pass, ONLINE
    ),
    "graphical": _generated(graphical, "a stream from a random graphical model"),
    "separator": _generated(separator, "a stream of random signs, labelled by a hyperplane"),
}


def find(name: str) -> Source:
    """The source of task ``name``, which may have options (they are not looked at). Raises
    UserError for an unknown name."""
    name = parse_call(name)[0]
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def load(name: str, model: str | None = None, data: str | Path | None = None) -> Task:
    """The built-in task ``name`` with ``model`` (by default the first that fits it).

    name: a stream takes options, as in ``graphical:drift=0.01,local=true``; they are those of the
    functions in ``tacit.tasks.streams``. ``cifar10:augment=true`` crops and mirrors training images
    at random (see ``tacit.tasks.augment``), as is done by default for the residual networks;
    ``augment=false`` does not.
    data: a folder of parquet files (see ``tacit.tasks.images`` and ``tacit.tasks.speech``; text:
    ``tacit.tasks.text``); by default the environment variable TACIT_DATA, and without it, for
    images, the Hugging Face hub.

    The training and test data of a stream that reads a data set are that data set. Those of a
    stream that makes its samples are 2,000 each of its first concept for seed 0: something to look
    at, not what a run is trained on.
    Raises UserError for unknown names and missing data, MissingExtra for missing libraries.
    """
    source = find(name)
    plain, options = parse_call(name)
    if source.stream is None and source.augment is None and ":" in name:
        raise UserError(f"task {plain!r} takes no options, but got {name!r}; write {plain!r}")
    chosen = source.models[0] if model is None else model
    if chosen not in source.models:
        raise unknown(f"model for task {plain!r}:", chosen, source.models)
    if source.load is None and data is not None:
        raise UserError(f"task {plain!r} makes its own samples; leave out the data folder")
    training = source.training or TRAINING[chosen]
    augment = None
    if source.augment is not None:
        choose = partial(_augmentation, source.augment, augment=training.augment)
        augment = call(f"task {plain}", choose, options)
    parts: tuple[Data, ...] = () if source.load is None else source.load(data)
    stream = None
    if source.stream is not None:
        stream = call(f"task {plain}", partial(source.stream, *parts), options)
        parts = parts or _sample(stream)
    train, test = parts
    return Task(
        name=name,
        train=train,
        test=test,
        model=MODELS[chosen],
        optimizer=training.optimizer,
        loss=source.loss,
        batch_size=training.batch_size,
        kernel_decay=training.kernel_decay,
        description=f"{chosen} on {source.description}",
        stream=stream,
        correct=source.correct,
        augment=augment,
    )


def _augmentation(offered: Augment, augment: Value) -> Augment | None:
    return offered if flag("augment", augment) else None


def _sample(stream: StreamFactory) -> tuple[Data, Data]:
    """Training and test data of the first concept for seed 0."""
    one = stream(1, TEST_SIZE, 0)
    return TensorData(*one.batch(0, 0)), one.test(0)
