"""LeNet-5 as in the published FDA experiments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tacit.tasks.models.initialise import glorot_uniform


class LeNet5(nn.Module):
    """(b, 1, 28, 28) -> logits (b, 10). 61,706 parameters.

    conv 6@5x5 same, tanh, average pool 2; conv 16@5x5, tanh, average pool 2; linear 120, tanh;
    linear 84, tanh; linear 10.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, 10),
        )
        glorot_uniform(self)

    def forward(self, images: Tensor) -> Tensor:
        features = _conv_tanh_pool(self.conv2, _conv_tanh_pool(self.conv1, images))
        logits: Tensor = self.classifier(features)
        return logits


def _conv_tanh_pool(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """``avg_pool2d(tanh(conv(images)), 2)`` for even height and width, a fifth faster on a CPU.

    Simulations of many workers spend nearly all their time here. PyTorch's tanh takes six times as
    long as its sigmoid, so tanh(x) is computed as 2 sigmoid(2 x) - 1: the first 2 goes into the
    kernel, the second into the pooling, which keeps constants. And pooling by a product with a
    constant matrix takes half the time of avg_pool2d, forward and backward.
    """
    assert conv.bias is not None
    doubled = F.conv2d(images, 2 * conv.weight, 2 * conv.bias, padding=conv.padding)
    batch, channels, height, width = doubled.shape
    row_pairs = torch.sigmoid(doubled).reshape(-1, 2 * width)
    # Entry ((r, i, c), j) of the matrix, for row r of the pair and column 2 i + c, is 2/4 if i = j.
    half = torch.eye(width // 2, dtype=doubled.dtype, device=doubled.device).mul_(0.5)
    matrix = half[None, :, None, :].expand(2, -1, 2, -1).reshape(2 * width, width // 2)
    pooled = torch.mm(row_pairs, matrix).sub_(1.0)
    return pooled.view(batch, channels, height // 2, width // 2)
