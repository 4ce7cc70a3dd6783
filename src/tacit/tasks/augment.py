"""Random changes to training images, drawn by a worker for each of its batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tacit.errors import UserError

#: (the inputs of a worker's batch, (n, ...), its random numbers) -> the inputs to train on.
Augment = Callable[[Tensor, np.random.Generator], Tensor]


def crop_and_flip(images: Tensor, rng: np.random.Generator, padding: int = 4) -> Tensor:
    """Each image padded by ``padding`` zeros on every side, cropped to its old size at random and
    mirrored (left to right) with probability 1/2: (n, c, h, w) float32 -> the same shape, new
    memory.

    All (2 padding + 1)^2 crops are equally likely; images are drawn independently. The usual
    padding: images are normalised before, so that zero is the mean colour, not black.
    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    Raises UserError for another number of dimensions, and negative padding.
    """
    if images.dim() != 4:
        raise UserError(
            f"crop_and_flip takes images (n, c, h, w), got inputs of shape {tuple(images.shape)}; "
            "leave out augment for this task"
        )
    if padding < 0:
        raise UserError(f"padding of crop_and_flip is {padding}; it must be at least 0")
    n, _, height, width = images.shape
    tops, lefts = rng.integers(2 * padding + 1, size=(2, n))
    mirrored = rng.integers(2, size=n).astype(bool)

    # where each pixel of a crop lies in its padded image: a mirrored row is read backwards
    across = np.where(mirrored[:, None], np.arange(width)[::-1], np.arange(width))
    rows = tops[:, None] + np.arange(height)
    places = rows[:, :, None] * (width + 2 * padding) + (lefts[:, None] + across)[:, None, :]
    padded = F.pad(images, (padding,) * 4).flatten(2)
    index = torch.from_numpy(places.reshape(n, 1, -1)).to(images.device)
    return padded.gather(2, index.expand(-1, images.shape[1], -1)).view_as(images)
