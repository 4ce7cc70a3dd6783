"""The two models, and the images that they learn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tacit.errors import unknown
from tacit.tasks import Batches, Data, TensorData, load, partition
from tacit.tasks.models.lenet import LeNet5

BATCH = 32


def cnn() -> nn.Module:
    """(b, 1, 28, 28) -> logits (b, 10). 1,197,492 parameters, 4.8 MB: links are the bottleneck."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 750),
        nn.ReLU(),
        nn.Linear(750, 10),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn, "lenet5": LeNet5}


def build(name: str, seed: int) -> nn.Module:
    """The model as every rank starts with it."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    torch.manual_seed(seed)
    return MODELS[name]()


def images(source: str) -> tuple[Data, Data]:
    """Train and test set: "mnist", or "patterns", which need no files."""
    if source == "patterns":
        return patterns(6000, seed=1), patterns(2000, seed=2)
    task = load("mnist")
    return task.train, task.test


def patterns(samples: int, seed: int) -> TensorData:
    """Ten fixed random images, one a class, each sample under noise: quickly learned."""
    classes = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (samples,), generator=generator)
    noise = torch.rand(samples, 1, 28, 28, generator=generator)
    return TensorData(0.6 * classes[y] + 0.4 * noise, y)


def shard(data: Data, rank: int, ranks: int, seed: int) -> Batches:
    """The batches of one rank: an equal part of the training set, its own random order."""
    return Batches(partition("iid", data, ranks, seed)[rank], BATCH, seed, rank)


def flat(module: nn.Module) -> Tensor:
    """A copy of all parameters, shape (d,), in the module's order."""
    with torch.no_grad():
        return torch.cat([parameter.reshape(-1) for parameter in module.parameters()])


def unflatten(vector: Tensor, module: nn.Module) -> None:
    """Write ``vector``, shape (d,), into the module's parameters."""
    with torch.no_grad():
        begin = 0
        for parameter in module.parameters():
            end = begin + parameter.numel()
            parameter.copy_(vector[begin:end].view_as(parameter))
            begin = end
