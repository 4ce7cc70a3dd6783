"""CAF and DnC: senders that stand out in the direction of greatest spread."""

from __future__ import annotations

import numpy as np

from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Weighing, equal_shares, smallest
from tacit.errors import UserError

# A vector that loses all its weight but this part loses the rest: its projection is as large as the
# largest, to rounding. Equal vectors go in the same round.
_NOTHING = 1e-9


class CAF(Weighing):
    """Covariance-bound agnostic filter: a mean in which vectors that stand out in the direction of
    greatest spread weigh less (Allouah et al., "Towards Trustworthy Federated Learning with
    Untrusted Participants", ICML 2025).

    Until weights of n - 2 f are left, each vector loses weight in proportion to its squared
    projection on the top eigenvector of the weighted covariance. The result is the weighted mean
    for which the top eigenvalue was least. Eigenvectors are exact: those of the inner products.
    """

    turns = True

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def shares(self, points: Points) -> Array:
        f = self.stands(points.n)
        gram, good = points.gram(points.n - f)
        left = np.ones(len(good))
        least, best = np.inf, left / left.sum()
        while f and left.sum() > points.n - 2 * f:
            weights = left / left.sum()
            top, projections = _top(gram, weights)
            if top < least:
                least, best = top, weights
            largest = projections.max(where=left > 0, initial=0)
            if largest == 0:  # all the same
                break
            kept = 1 - projections / largest
            left = np.where(kept > _NOTHING, left * kept, 0)
        shares = np.zeros(points.n)
        shares[good] = best
        return shares


def _top(gram: Array, weights: Array) -> tuple[float, Array]:
    """The top eigenvalue of the weighted covariance, and the squared projections of the centred
    points on its eigenvector, from their inner products."""
    inner = gram @ weights
    centred = gram - inner[:, None] - inner + weights @ inner
    root = np.sqrt(weights)
    values, vectors = np.linalg.eigh(root[:, None] * centred * root)
    top = float(values[-1])
    if top <= 0:
        return 0.0, np.zeros(len(gram))
    projections: Array = (centred @ (root * vectors[:, -1])) ** 2 / top
    return top, projections


class DnC(Weighing):
    """Divide and conquer: the mean of the vectors that do not stand out in the direction of
    greatest spread, in any of several sets of random coordinates (Shejwalkar and Houmansadr,
    "Manipulating the Byzantine", NDSS 2021).

    ``rounds`` times: of ``dimensions`` random coordinates, the n - f vectors with the smallest
    projections on the direction of greatest spread are kept. The mean of those kept every time;
    where there are none, of those kept most often. Which coordinates follows from ``seed`` and the
    rows. It sees one direction at a time: outliers of very different sizes hide behind each other.
    """

    def __init__(self, f: int, rounds: int = 5, dimensions: int = 10_000, seed: int = 0) -> None:
        super().__init__(f)
        if rounds < 1 or dimensions < 1:
            raise UserError(f"dnc needs rounds and dimensions >= 1, not {rounds} and {dimensions}")
        self.rounds, self.dimensions, self.seed = rounds, dimensions, seed

    @property
    def name(self) -> str:
        return "dnc"

    def shares(self, points: Points) -> Array:
        good, draws = points.good, points.draws(self.seed, "dnc")
        kept = np.zeros(len(good), np.int64)
        for _ in range(self.rounds if points.d > self.dimensions else 1):
            size = min(points.d, self.dimensions)
            some = np.sort(draws.choice(points.d, size, replace=False, shuffle=False))
            seen = points.columns(some)
            seen -= seen.mean(0)
            largest = np.abs(seen).max(initial=0) or 1.0  # no square overflows
            _, vectors = np.linalg.eigh((seen / largest) @ (seen / largest).T)
            outlying = vectors[:, -1] ** 2
            kept[smallest(outlying, points.n - self.stands(points.n))] += 1
        return equal_shares(points.n, good[kept == kept.max()])
