"""MDA and SMEA: of all subsets of n - f senders, the one that lies closest together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Weighing, equal_shares, smallest
from tacit.errors import UserError

#: Subsets that SMEA looks at, at most: about a second.
MOST_SUBSETS = 20_000
# Numbers in the matrices whose eigenvalues are found in one call.
_BATCH = 1 << 19


class MDA(Weighing):
    """Minimum diameter averaging: the mean of the n - f vectors whose greatest distance is least
    (El Mhamdi et al., "Genuinely Distributed Byzantine Machine Learning", PODC 2020).

    Of several such subsets, that with the smallest sum of squared distances, then the first one
    found. Exact, by branch and bound; the time grows as 2^f at worst.
    """

    turns = True

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def shares(self, points: Points) -> Array:
        good = points.good
        squared = points.squared[np.ix_(good, good)]
        spare = self.stands(points.n) - (points.n - len(good))
        return equal_shares(points.n, good[least_diameter(squared, spare)])


def least_diameter(squared: Array, spare: int) -> Array:
    """The indices of the m - spare of m points that lie within the least diameter."""
    m = len(squared)
    if spare == 0:
        return np.arange(m)
    values = np.unique(squared)
    low, high = 0, len(values) - 1  # the last one always does
    while low < high:
        middle = (low + high) // 2
        if next(_covers(_conflicts(squared, values[middle]), spare), None) is None:
            low = middle + 1
        else:
            high = middle
    best: tuple[float, Array] | None = None
    for cover in _covers(_conflicts(squared, values[low]), spare):
        kept = _filled(squared, [i for i in range(m) if not cover >> i & 1], m - spare)
        total = float(squared[np.ix_(kept, kept)].sum())
        # sums in another order differ by rounding; those are the same subset's
        if best is None or total < best[0] * (1 - 1e-12):
            best = total, kept
    assert best is not None
    return best[1]


def _filled(squared: Array, kept: list[int], size: int) -> Array:
    """Without those farthest from the others, until ``size`` are left."""
    while len(kept) > size:
        total = squared[np.ix_(kept, kept)].sum(1)
        del kept[len(kept) - 1 - int(np.argmax(total[::-1]))]
    return np.array(kept)


def _conflicts(squared: Array, limit: float) -> list[int]:
    """For each point a bit mask of those farther away than ``limit``."""
    far = squared > limit
    return [sum(1 << int(j) for j in np.flatnonzero(row)) for row in far]


def _covers(conflicts: list[int], spare: int, gone: int = 0) -> Iterator[int]:
    """Sets (bit masks) of at most ``spare`` points without which there is no conflict: all minimal
    ones. Branches on the point with most conflicts: it goes, or all that it conflicts with do."""
    degrees = [0 if gone >> i & 1 else (c & ~gone).bit_count() for i, c in enumerate(conflicts)]
    worst = max(degrees)
    if worst == 0:
        yield gone
        return
    if sum(degrees) > 2 * worst * spare:  # more pairs than ``spare`` points can end
        return
    at = degrees.index(worst)
    yield from _covers(conflicts, spare - 1, gone | 1 << at)
    if worst <= spare:
        yield from _covers(conflicts, spare - worst, gone | conflicts[at])


class SMEA(Weighing):
    """Smallest maximum eigenvalue averaging: the mean of the n - f vectors whose covariance has the
    least top eigenvalue (Allouah et al., "On the Privacy-Robustness-Utility Trilemma", ICML 2023).

    Looks at all subsets, of equal ones takes the first, and refuses more than
    :data:`MOST_SUBSETS` of them.
    """

    turns = True

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def check(self, n: int) -> None:
        super().check(n)
        if (count := math.comb(n, self.stands(n))) > MOST_SUBSETS:
            raise UserError(
                f"smea with f={self.f} of {n} rows would look at {count:.3g} subsets, more than "
                f"{MOST_SUBSETS}; take caf, or a smaller f"
            )

    def shares(self, points: Points) -> Array:
        size = points.n - self.stands(points.n)
        gram, good = points.gram(size)
        subsets = itertools.combinations(range(len(good)), size)
        best, kept = math.inf, good[:size]
        at_once = max(1, _BATCH // size**2)
        while batch := list(itertools.islice(subsets, at_once)):
            index = np.array(batch)
            top = top_eigenvalues(gram[index[:, :, None], index[:, None, :]])
            at = int(smallest(top, 1)[0])
            if top[at] < best:
                best, kept = float(top[at]), good[index[at]]
        return equal_shares(points.n, kept)


def top_eigenvalues(grams: Array) -> Array:
    """Of the scatter of points with these inner products, ``(k, m, m) -> (k,)``."""
    means = grams.mean(2, keepdims=True)
    centred = grams - means - means.transpose(0, 2, 1) + grams.mean((1, 2))[:, None, None]
    found: Array = np.linalg.eigvalsh(centred)[:, -1]
    return found
