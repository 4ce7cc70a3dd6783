"""The objective for rules of distances and inner products: in a few coordinates instead of d.

The honest vectors, their mean and the direction of the lies span a space of H + 1 dimensions at
most. A rule that turns with the rows does the same in coordinates of an orthonormal basis of that
space: so it runs as it is, on rows of some twenty numbers.
"""

from __future__ import annotations

import numpy as np
import torch

from tacit.aggregators import (
    ARC,
    CAF,
    CGE,
    CTMA,
    MDA,
    NNA,
    NNM,
    SMEA,
    Aggregator,
    CenteredClipping,
    Clipping,
    CSPlus,
    GeometricMedian,
    Krum,
    Mean,
    MultiKrum,
    PeerRule,
    SelfClipping,
)
from tacit.aggregators.passes import Array
from tacit.attacks.lies import Lies, applied
from tacit.attacks.spread import products

_TURN = (Mean, Krum, MultiKrum, GeometricMedian, CGE, MDA, SMEA, CAF, NNA, CSPlus, SelfClipping)
# Squared lengths below this part of the largest are rounding.
_RANK = 1e-13


def turns(rule: Aggregator) -> bool:
    """Whether the rule is known to turn with the rows: to look at no coordinate by itself, and to
    draw nothing that follows from them."""
    if type(rule) is CenteredClipping:
        return rule.begin == "zero"
    if type(rule) in (NNM, ARC, Clipping):
        return turns(rule.then)  # type: ignore[attr-defined]
    if type(rule) is CTMA:
        return turns(rule.first)
    return type(rule) in _TURN


class Turned:
    """See ``damage.damage``. One pass over the honest rows, none for a z."""

    def __init__(self, lies: Lies) -> None:
        self.rule, self.liars, self.pushes = lies.rule, lies.sight.liars, lies.pushes
        self.peers = lies.sight.peers and isinstance(self.rule, PeerRule)
        gram = products(lies.sight.honest, lies.mean, lies.direction)
        self.apart, self.direction, self.mean = coordinates(gram)
        self.between = _squares(self.apart, self.apart)

    def __call__(self, z: float) -> float:
        if self.pushes is None:
            lies = np.broadcast_to(z * self.direction, self.apart.shape)
        else:
            lies = self.apart + z * self.pushes[:, None] * self.direction
        moved = self._moved(lies)
        if self.pushes is None:
            return float(np.square(moved.mean(0)).sum())
        return float(np.square(moved).sum(1).mean())

    def _moved(self, lies: Array) -> Array:
        """Worker i's result from ``lies_i`` less the honest mean, ``(H, k)``; ``(1, k)`` where one
        is all."""
        if self.peers and type(self.rule) is NNA:
            return self._nearest(self.rule, lies)
        if self.peers and type(self.rule) is SelfClipping:
            return self._clipped(self.rule, lies)
        moved = []
        for i in range(len(lies) if self.peers or self.pushes is not None else 1):
            told = np.vstack([self.apart, np.repeat(lies[i : i + 1], self.liars, axis=0)])
            rows = torch.from_numpy(told + self.mean)
            moved.append(applied(self.rule, rows, i).numpy() - self.mean)
        return np.stack(moved)

    # -- all workers at once, for the rules of peers that matter most

    def _nearest(self, rule: NNA, lies: Array) -> Array:
        honest = len(self.apart)
        to_lie = np.square(lies - self.apart).sum(1, keepdims=True)
        squared = np.hstack([self.between, np.repeat(to_lie, self.liars, axis=1)])
        n = squared.shape[1]
        kept = np.argsort(squared, axis=1, kind="stable")[:, : n - rule.stands(n)]
        shares = np.zeros_like(squared)
        np.put_along_axis(shares, kept, 1 / kept.shape[1], axis=1)
        lying = shares[:, honest:].sum(1, keepdims=True)
        out: Array = shares[:, :honest] @ self.apart + lying * lies
        return out

    def _clipped(self, rule: SelfClipping, lies: Array) -> Array:
        n = len(lies) + self.liars
        centres = self.apart
        for _ in range(rule.rounds):
            honest = _clips(_squares(centres, self.apart), rule.tau) / n
            lying = _clips(np.square(lies - centres).sum(1, keepdims=True), rule.tau)
            lying *= self.liars / n
            rest = 1 - honest.sum(1, keepdims=True) - lying
            centres = honest @ self.apart + lying * lies + rest * centres
        return centres


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


def _squares(points: Array, others: Array) -> Array:
    found: Array = np.square(points[:, None] - others[None]).sum(2)
    return found


def _clips(squared: Array, radius: float) -> Array:
    """``min(1, radius / distance)``."""
    distances = np.sqrt(squared)
    clipped: Array = radius / np.maximum(distances, radius)
    return clipped
