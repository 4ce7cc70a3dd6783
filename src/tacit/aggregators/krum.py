"""Krum, Multi-Krum and Bulyan: senders with near neighbours."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tacit.aggregators.network import nearest
from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Robust, Weighing, equal_shares
from tacit.errors import UserError


def ranked(squared: Array, neighbours: int) -> Array:
    """Points in ascending order of the sum of squared distances to their nearest others;
    ``(n, n) -> (n,)`` indices. Of equal sums, the point whose next neighbours are nearer."""
    nearest = np.sort(squared, axis=1)  # the first of each row is the point itself
    sums = nearest[:, 1 : neighbours + 1].sum(1)
    found: Array = np.lexsort((*nearest[:, :neighbours:-1].T, sums))
    return found


class Krum(Weighing):
    """The vector with the smallest sum of squared distances to its n - f - 2 nearest others
    (Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017).

    ``neighbours``: another number than n - f - 2; some implementations take n - f - 1.
    """

    needs = "n >= 2 f + 3"
    turns = True

    def __init__(self, f: int, neighbours: int | None = None) -> None:
        super().__init__(f)
        if neighbours is not None and neighbours < 1:
            raise UserError(f"krum needs at least 1 neighbour, not {neighbours}")
        self.neighbours = neighbours

    def least(self) -> int:
        f = self.f or 0
        return max(2 * f + 3, f + 1 + (self.neighbours or 0))

    def shares(self, points: Points) -> Array:
        return equal_shares(points.n, self.best(points, 1))

    def best(self, points: Points, m: int) -> Array:
        """The m vectors of smallest score."""
        neighbours = self.neighbours or points.n - self.stands(points.n) - 2
        return ranked(points.squared, neighbours)[:m]


class MultiKrum(Krum):
    """The mean of the ``m`` vectors that Krum likes best (Blanchard et al., NeurIPS 2017).

    ``m``: None is n - f.
    """

    def __init__(self, f: int, m: int | None = None, neighbours: int | None = None) -> None:
        super().__init__(f, neighbours)
        if m is not None and m < 1:
            raise UserError(f"multi_krum averages at least 1 vector, not {m}")
        self.m = m

    def least(self) -> int:
        return max(super().least(), (self.f or 0) + (self.m or 0))

    def shares(self, points: Points) -> Array:
        m = self.m or points.n - self.stands(points.n)
        return equal_shares(points.n, self.best(points, m))


class Bulyan(Robust):
    """Of n - 2 f vectors that Krum chooses one after the other, the mean of the n - 4 f values of
    each coordinate nearest to their median (El Mhamdi et al., "The Hidden Vulnerability of
    Distributed Learning in Byzantium", ICML 2018).

    Of m vectors that are left, each is judged by its m - f - 2 nearest others, at least 1.
    """

    needs = "n >= 4 f + 3"

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def least(self) -> int:
        return 4 * (self.f or 0) + 3

    def reduce(self, points: Points) -> Tensor:
        f = self.stands(points.n)
        left = np.arange(points.n)
        chosen: list[int] = []
        while len(chosen) < points.n - 2 * f:
            squared = points.squared[np.ix_(left, left)]
            at = int(ranked(squared, max(1, len(left) - f - 2))[0])
            chosen.append(int(left[at]))
            left = np.delete(left, at)
        k = len(chosen)
        # in the senders' order, so that the choice's order does not matter
        return points.middle(nearest(k, k - 2 * f), np.sort(np.array(chosen)))
