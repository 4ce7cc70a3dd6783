"""Rules that clip the vectors' distances from a centre: no sender moves it far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from tacit.aggregators.chosen import Chosen
from tacit.aggregators.nearest import PeerRule
from tacit.aggregators.network import between
from tacit.aggregators.passes import Array, weighted_sums
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Robust, Weighing
from tacit.errors import UserError

# Where no distance is so many times the median one, distances from a combination of the vectors
# follow from those between them; else they would lose their digits.
_ALIKE = 1e3


class CenteredClipping(Robust):
    """``v <- v + sum_i w_i (x_i - v) min(1, tau / |x_i - v|)``, ``rounds`` times (Karimireddy et
    al., "Learning from History for Byzantine Robust Optimization", ICML 2021).

    The published rule starts at its previous result; this one keeps none. ``start``: ``median``,
    each coordinate's, or ``zero``, for gradients. A bad row counts as one at the centre.
    """

    weighted = True

    def __init__(
        self,
        tau: float = 100.0,
        rounds: int = 1,
        start: Literal["median", "zero"] = "median",
        f: int | None = None,
    ) -> None:
        super().__init__(f)
        _check_clipping("centered_clipping", tau, rounds)
        if start not in ("median", "zero"):
            raise UserError(f"centered_clipping starts at median or zero, not {start!r}")
        self.tau, self.rounds, self.begin = float(tau), rounds, start
        self.turns = start == "zero"

    def reduce(self, points: Points) -> Tensor:
        if self.begin == "zero":
            centre = points.rows.new_zeros(points.d)
        else:
            n = points.n
            centre = points.middle(between(n, (n - 1) // 2, n // 2 + 1))
        return clipped_mean(points, centre, self.tau, self.rounds)


class SelfClipping(PeerRule):
    """Self-centred clipping: centred clipping from the own vector (He et al., "Byzantine-Robust
    Decentralized Learning via ClippedGossip", 2022)."""

    weighted = True

    def __init__(self, tau: float, rounds: int = 1, f: int | None = None) -> None:
        super().__init__(f)
        _check_clipping("self_clipping", tau, rounds)
        self.tau, self.rounds = float(tau), rounds

    @property
    def instead(self) -> str:
        return f"centered_clipping(tau={self.tau:g},rounds={self.rounds})"

    def reduce(self, points: Points) -> Tensor:
        self.own(points)
        return clipped_mean(points, points.own, self.tau, self.rounds)

    def of_each(self, chosen: Sequence[Chosen]) -> Tensor:
        squared = chosen[0].all.squared
        finite = squared[np.isfinite(squared)]
        if finite.max() > _ALIKE**2 * np.median(finite):
            return super().of_each(chosen)
        return weighted_sums(chosen[0].rows, np.stack([self._shares(p) for p in chosen]))

    def _shares(self, points: Chosen) -> Array:
        """As :func:`clipped_mean` from the own vector, by the distances between the vectors."""
        pivot, _ = self.own(points)
        squared, equal = points.squared, _shares(points)
        squared = np.where(np.isfinite(squared), squared, 0)  # of no weight
        made = np.zeros(points.n)
        made[pivot] = 1
        for _ in range(self.rounds):
            distances = squared @ made - made @ squared @ made / 2
            distances = np.where(points.bad, np.inf, np.maximum(distances, 0))
            factors = equal * _clips(np.sqrt(distances), self.tau)
            made = factors + (1 - factors.sum()) * made
        return points.spread(made)


class CSPlus(Weighing, PeerRule):
    """Self-centred clipping with a radius from the distances (Gaucher et al., "Unified Breakdown
    Analysis for Byzantine Robust Gossip", ICML 2025, CS+, step 1).

    The radius is the largest distance up to which the vectors, nearest first and the own one
    included, weigh at most all weights less twice those of f senders (of the f heaviest).
    """

    weighted = True

    def __init__(self, f: int) -> None:
        super().__init__(f)

    @property
    def name(self) -> str:
        return "cs_plus"

    def shares(self, points: Points) -> Array:
        f = self.stands(points.n)
        pivot, squared = self.own(points)
        shares = _shares(points)
        order = np.argsort(squared, kind="stable")
        distances = np.sqrt(squared)
        others = np.delete(shares, pivot)
        allowed = 1 - 2 * np.sort(others)[len(others) - f :].sum()
        within = np.cumsum(shares[order]) <= allowed + 1e-9  # for the sums' rounding
        if f == 0:
            radius = math.inf
        else:
            radius = float(distances[order[within]].max(initial=0))
        factors = shares * _clips(distances, radius)
        factors[pivot] += 1 - factors.sum()
        return factors


def clipped_mean(points: Points, centre: Tensor, tau: float, rounds: int) -> Tensor:
    """Centred clipping from ``centre (d,)``."""
    shares = _shares(points)
    for _ in range(rounds):
        factors = shares * _clips(np.sqrt(points.squared_from(centre)), tau)
        moved = points.combine(factors)
        centre = moved.add_(centre, alpha=1 - float(factors.sum()))
    return centre


def _shares(points: Points) -> Array:
    weights = np.ones(points.n) if points.weights is None else points.weights
    shares: Array = weights / weights.sum()
    return shares


def _clips(distances: Array, radius: float) -> Array:
    """``min(1, radius / distance)``, 0 for those infinitely far."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where(distances <= radius, 1.0, radius / distances)
    factors[~np.isfinite(distances)] = 0
    return factors


def _check_clipping(name: str, tau: float, rounds: int) -> None:
    if not tau > 0 or rounds < 1:
        raise UserError(f"{name} needs tau > 0 and rounds >= 1, not {tau} and {rounds}")
