"""The objective for rules of distances and inner products: in a few coordinates instead of d.

The honest vectors, their mean and the direction of the lies span a space of H + 1 dimensions at
most. A rule that turns with the rows does the same in coordinates of an orthonormal basis of that
space: so it runs as it is, on rows of some twenty numbers.
"""

from __future__ import annotations

import numpy as np
import torch

from tacit.aggregators import PeerRule
from tacit.aggregators.passes import Array
from tacit.attacks.lies import Lies
from tacit.attacks.spread import products

# Squared lengths below this part of the largest are rounding.
_RANK = 1e-13


class Turned:
    """See ``damage.damage``. One pass over the honest rows, none for a z."""

    def __init__(self, lies: Lies) -> None:
        self.rule, self.pushes = lies.rule, lies.pushes
        gram = products(lies.sight.honest, lies.mean, lies.direction)
        self.apart, self.direction, self.mean = coordinates(gram)
        # what they hear: all honest vectors, and the lie (or their own) from each liar
        honest, liars = len(self.apart), lies.sight.liars
        alone = lies.sight.peers and isinstance(self.rule, PeerRule)
        self.hearers = range(honest if alone or self.pushes is not None else 1)
        told = [honest] * honest if self.pushes is None else range(honest, 2 * honest)
        self.held = [np.r_[:honest, np.full(liars, told[i])] for i in self.hearers]

    def __call__(self, z: float) -> float:
        if self.pushes is None:
            lies = z * self.direction[None]
        else:
            lies = self.apart + z * self.pushes[:, None] * self.direction
        rows = torch.from_numpy(np.vstack([self.apart, lies]) + self.mean)
        moved = self.rule.each(rows, self.held, self.hearers).numpy() - self.mean
        if self.pushes is None:
            return float(np.square(moved.mean(0)).sum())
        return float(np.square(moved).sum(1).mean())


def coordinates(gram: Array) -> tuple[Array, Array, Array]:
    """From the inner products of ``spread.products``, in an orthonormal basis: the honest vectors
    less the mean ``(H, k)``, the direction ``(k,)`` and the mean ``(k,)``."""
    honest = len(gram) - 2
    values, vectors = np.linalg.eigh(gram[:honest, :honest])
    kept = values > max(_RANK * values[-1], 0)
    lengths, vectors = np.sqrt(values[kept]), vectors[:, kept]
    rank = len(lengths)
    out = np.zeros((honest + 2, rank + 2))
    out[:honest, :rank] = vectors * lengths
    out[honest:, :rank] = gram[honest:, :honest] @ vectors / lengths
    for k in (honest, honest + 1):  # what is left of each stands on all before it
        at = rank + k - honest
        if k > honest and out[honest, rank] > 0:
            known = out[k, :rank] @ out[honest, :rank]
            out[k, rank] = (gram[k, honest] - known) / out[honest, rank]
        left = gram[k, k] - out[k] @ out[k]
        out[k, at] = np.sqrt(left) if left > _RANK * gram[k, k] else 0
    return out[:honest], out[honest], out[honest + 1]
