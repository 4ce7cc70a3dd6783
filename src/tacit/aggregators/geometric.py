"""The geometric median."""

from __future__ import annotations

import numpy as np

from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Weighing
from tacit.errors import UserError

_ROUNDS = 1000


class GeometricMedian(Weighing):
    """The point with the least (weighted) sum of distances, by Weiszfeld's iteration with smoothed
    distances (Pillutla et al., "Robust Aggregation for Federated Learning", IEEE TSP 2022).

    ``nu``: the smallest distance that counts, as a part of the median distance from a central
    vector. ``tolerance``: it stops where a round moves less than this part of it. The published
    method does a few rounds from the mean; these rounds need no pass over the rows, only their
    inner products, so there are as many as it takes.
    """

    weighted = True
    turns = True

    def __init__(self, f: int | None = None, nu: float = 1e-6, tolerance: float = 1e-9) -> None:
        super().__init__(f)
        if not (0 < nu < 1 and 0 < tolerance < 1):
            raise UserError(f"nu and tolerance lie between 0 and 1, not {nu} and {tolerance}")
        self.nu, self.tolerance = nu, tolerance

    def shares(self, points: Points) -> Array:
        gram, good = points.gram(points.n - self.stands(points.n))
        alphas = np.ones(points.n) if points.weights is None else points.weights
        shares = np.zeros(points.n)
        shares[good] = self._weiszfeld(gram, alphas[good])
        return shares

    def _weiszfeld(self, gram: Array, alphas: Array) -> Array:
        """From the vector at the origin of the inner products."""
        squared = np.diagonal(gram)
        scale = float(np.sqrt(np.median(squared)))
        shares = np.zeros(len(gram))
        shares[int(np.argmin(squared))] = 1
        if scale == 0:  # most are that vector
            return shares
        for _ in range(_ROUNDS):
            inner = gram @ shares
            distance = np.sqrt(np.maximum(squared - 2 * inner + shares @ inner, 0))
            new = alphas / np.maximum(distance, self.nu * scale)
            new /= new.sum()
            moved = new - shares
            shares = new
            if moved @ gram @ moved <= (self.tolerance * scale) ** 2:
                break
        return shares
