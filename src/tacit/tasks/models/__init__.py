"""Models of the built-in tasks, by name. All return logits: the loss applies the softmax."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tacit.tasks.models.densenet import densenet121, densenet201
from tacit.tasks.models.kamp import KampCNN, kamp_mlp, linear
from tacit.tasks.models.lenet import LeNet5
from tacit.tasks.models.mlp import mlp
from tacit.tasks.models.monna import MonnaCNN, monna_cifar
from tacit.tasks.models.recurrent import GRU, CharLSTM
from tacit.tasks.models.resnet import resnet20, resnet110
from tacit.tasks.models.vgg import VGG16Star

MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "lenet5": LeNet5,
    "vgg16": VGG16Star,
    "densenet121": densenet121,
    "densenet201": densenet201,
    "kamp-cnn": KampCNN,
    "kamp-mlp": kamp_mlp,
    "linear": linear,
    "monna-cnn": MonnaCNN,
    "monna-cifar": monna_cifar,
    "resnet20": resnet20,
    "resnet110": resnet110,
    "char-lstm": CharLSTM,
    "gru": GRU,
}

__all__ = [
    "GRU",
    "MODELS",
    "CharLSTM",
    "KampCNN",
    "LeNet5",
    "MonnaCNN",
    "VGG16Star",
    "densenet121",
    "densenet201",
    "kamp_mlp",
    "linear",
    "mlp",
    "monna_cifar",
    "resnet20",
    "resnet110",
]
