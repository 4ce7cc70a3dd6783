"""Tiny tasks: a perceptron, and a convolution with batch norm and dropout."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from tacit.rng import torch_stream
from tacit.tasks.data import TensorData
from tacit.tasks.task import Task

SGD = partial(torch.optim.SGD, lr=0.1)
ADAM = partial(torch.optim.Adam, lr=0.01)


def data(samples: int, *shape: int, classes: int = 3, name: str = "train") -> TensorData:
    """Random inputs with labels that depend on them, so that there is something to learn."""
    draw = torch_stream(7, "test data", name)
    inputs = torch.randn(samples, *shape, generator=draw)
    return TensorData(inputs, inputs.flatten(1)[:, :classes].argmax(dim=1))


def perceptron() -> nn.Module:
    """53 parameters."""
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def mlp_task(**changes: Any) -> Task:
    settings: dict[str, Any] = {
        "name": "tiny-mlp",
        "train": data(61, 6),
        "test": data(23, 6, name="test"),
        "model": perceptron,
        "optimizer": SGD,
        "batch_size": 4,
    }
    return Task(**{**settings, **changes})


def convolution() -> nn.Module:
    """No bias before the batch norm: its gradient would be pure rounding, which Adam blows up."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(27, 3),
    )


def conv_task(**changes: Any) -> Task:
    settings: dict[str, Any] = {
        "name": "tiny-conv",
        "train": data(61, 1, 6, 6),
        "test": data(23, 1, 6, 6, name="test"),
        "model": convolution,
        "optimizer": ADAM,
        "batch_size": 4,
    }
    return Task(**{**settings, **changes})
