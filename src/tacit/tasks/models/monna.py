"""The networks of the MoNNA experiments: Farhadkhani et al., "Robust Collaborative Learning with
Linear Gradient Overhead", ICML 2023. PyTorch's own initialisation, as published."""

from __future__ import annotations

from torch import Tensor, nn

#: Of MNIST's pixels in [0, 1].
_MEAN, _DEVIATION = 0.1307, 0.3081


class MonnaCNN(nn.Module):
    """(b, 1, 28, 28) -> logits (b, 10). 431,080 parameters; normalises its input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features((images - _MEAN) / _DEVIATION))
        return logits


def monna_cifar() -> nn.Sequential:
    """(b, 3, 32, 32) -> logits (b, 10). 1,310,922 parameters; batch norm comes after ReLU."""
    return nn.Sequential(
        *_pair(3, 64),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        *_pair(64, 128),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(8192, 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, 10),
    )


def _pair(before: int, after: int) -> list[nn.Module]:
    sizes = ((before, after), (after, after))
    layers = ([nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(b)] for a, b in sizes)
    return [layer for some in layers for layer in some]
