"""DenseNet with Keras' constants and the dropout of the published FDA experiments.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017. The
stem made for ImageNet is kept, so 32x32 images reach the dense blocks as 8x8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tacit.tasks.models.initialise import glorot_uniform, he_normal

GROWTH = 32
DROPOUT = 0.2


class DenseNet(nn.Module):
    """(b, 3, h, w) -> logits (b, classes), ``layers[i]`` layers in dense block i."""

    def __init__(self, layers: Sequence[int], classes: int = 10) -> None:
        super().__init__()
        channels = 2 * GROWTH
        parts: list[nn.Module] = [
            _conv(3, channels, 7, stride=2, padding=3),
            _norm(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        for number, count in enumerate(layers):
            if number > 0:
                parts.append(_transition(channels))
                channels //= 2
            for _ in range(count):
                parts.append(DenseLayer(channels))
                channels += GROWTH
        parts += [_norm(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(channels, classes)
        glorot_uniform(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


class DenseLayer(nn.Module):
    """Appends GROWTH channels computed from all channels so far: (b, c, h, w) -> c + GROWTH."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.new = nn.Sequential(
            _norm(channels),
            nn.ReLU(),
            _conv(channels, 4 * GROWTH, 1),
            nn.Dropout(DROPOUT),
            _norm(4 * GROWTH),
            nn.ReLU(),
            _conv(4 * GROWTH, GROWTH, 3, padding=1),
            nn.Dropout(DROPOUT),
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.new(features)], dim=1)


def densenet121() -> DenseNet:
    """DenseNet-121 for ten classes. 6,964,106 trainable parameters."""
    return DenseNet([6, 12, 24, 16])


def densenet201() -> DenseNet:
    """DenseNet-201 for ten classes. 18,112,138 trainable parameters."""
    return DenseNet([6, 12, 48, 32])


def _transition(channels: int) -> nn.Sequential:
    """Half the channels, half the height and width."""
    return nn.Sequential(
        _norm(channels), nn.ReLU(), _conv(channels, channels // 2, 1), nn.AvgPool2d(2)
    )


def _norm(channels: int) -> nn.BatchNorm2d:
    # Keras: epsilon 1.001e-5; its momentum 0.99 is the share kept, PyTorch's the share replaced.
    return nn.BatchNorm2d(channels, eps=1.001e-5, momentum=0.01)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, bias=False)
    he_normal(conv.weight)
    return conv
