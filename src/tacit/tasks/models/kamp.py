"""The networks of the dynamic averaging experiments.

Kamp et al., "Efficient Decentralized Deep Learning by Dynamic Model Averaging", ECML PKDD 2018: the
convolutional network is that of the authors' PyTorch example (``fraunhofer-iais/dlapplication``),
the small one is ours, for streams of 150 features. Zero biases are ours too.
"""

from __future__ import annotations

from torch import Tensor, nn

from tacit.tasks.models.initialise import glorot_normal


class KampCNN(nn.Module):
    """(b, 1, 28, 28) -> logits (b, 10). 21,840 parameters; dropout 0.5 while training, of whole
    channels in the convolutional part."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 10, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, 5),
            nn.Dropout2d(0.5),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(320, 50),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(50, 10),
        )
        glorot_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def kamp_mlp() -> nn.Sequential:
    """150-50-1 with relu: (b, 150) -> one logit (b, 1). 7,601 parameters."""
    model = nn.Sequential(nn.Linear(150, 50), nn.ReLU(), nn.Linear(50, 1))
    glorot_normal(model)
    return model


def linear() -> nn.Sequential:
    """150-1: (b, 150) -> one logit (b, 1). 151 parameters."""
    model = nn.Sequential(nn.Linear(150, 1))
    glorot_normal(model)
    return model
