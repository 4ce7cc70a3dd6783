"""The honest vectors' mean, deviation and inner products, a block of columns at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.aggregators.passes import Array, spans


def centre(honest: Tensor) -> Tensor:
    """The mean, ``(H, d) -> (d,)`` float64."""
    out = honest.new_empty(honest.shape[1], dtype=torch.float64)
    for span in spans(honest):
        out[span] = honest[:, span].double().mean(0)
    return out


def deviation(honest: Tensor, mean: Tensor) -> Tensor:
    """The standard deviation of each coordinate, with H - 1: ``(d,)`` float64; 0 where H is 1."""
    out = torch.empty_like(mean)
    for span in spans(honest):
        apart = honest[:, span] - mean[span]
        out[span] = apart.square_().sum(0)
    return out.div_(max(1, len(honest) - 1)).sqrt_()


def products(honest: Tensor, mean: Tensor, direction: Tensor) -> Array:
    """Inner products of ``x_1 - mean, ..., x_H - mean, direction, mean``: ``(H + 2, H + 2)``.

    Vectors are centred before they are multiplied, so that a large common part costs no digits.
    """
    total = torch.zeros(len(honest) + 2, len(honest) + 2, dtype=torch.float64, device=mean.device)
    for span in spans(honest):
        block = total.new_empty(len(total), mean[span].numel())
        torch.sub(honest[:, span], mean[span], out=block[:-2])
        block[-2], block[-1] = direction[span], mean[span]
        total += block @ block.T
    out: Array = total.cpu().numpy()
    return out
