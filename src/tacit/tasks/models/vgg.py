"""VGG16*, the small VGG of the published FDA experiments."""

from __future__ import annotations

from torch import Tensor, nn

from tacit.tasks.models.initialise import glorot_uniform


class VGG16Star(nn.Module):
    """(b, 1, 28, 28) -> logits (b, 10). 2,592,202 parameters; dropout 0.5 while training."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(_block(1, 64), _block(64, 128), _block(128, 256))
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 3 * 3, 512),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(512, 10),
        )
        glorot_uniform(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, then half the height and width (28, 14, 7, 3)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
