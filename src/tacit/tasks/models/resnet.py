"""The residual networks for 32x32 images.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: three
stages of 16, 32 and 64 channels, shortcuts without parameters (option A).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResNet(nn.Module):
    """(b, 3, 32, 32) -> logits (b, classes); 6 ``blocks`` + 2 layers with weights."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        parts: list[nn.Module] = [_conv(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]
        channels = 16
        for width in (16, 32, 64):
            for _ in range(blocks):
                parts.append(Block(channels, width))
                channels = width
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(channels, classes)
        nn.init.kaiming_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: (b, inputs, h, w) -> (b, outputs, h, w), or half the
    height and width where the number of channels changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.new = outputs - inputs
        self.residual = nn.Sequential(
            _conv(inputs, outputs, self.stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv(outputs, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.residual(features)
        if self.new:
            # every second pixel; channels of zeros on both sides
            features = features[:, :, :: self.stride, :: self.stride]
            features = F.pad(features, (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(residual + features)


def resnet20() -> ResNet:
    """ResNet-20 for ten classes. 269,722 parameters."""
    return ResNet(3)


def resnet110() -> ResNet:
    """ResNet-110 for ten classes. 1,727,962 parameters."""
    return ResNet(18)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv
