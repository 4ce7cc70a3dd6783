"""Rules that look at each coordinate by itself: median, trimmed mean, Meamed.

Each averages some of the sorted values of a coordinate, in float64.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from tacit.aggregators.network import between, nearest
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Robust


class Ranked(Robust):
    """The mean of some of the sorted values of each coordinate."""

    @abstractmethod
    def ranks(self, n: int) -> range:
        """Which of n values, the smallest being 0."""

    def reduce(self, points: Points) -> Tensor:
        ranks = self.ranks(points.n)
        return points.middle(between(points.n, ranks.start, ranks.stop))


class Median(Ranked):
    """The median of each coordinate; of an even number, the mean of the two in the middle (Yin et
    al., "Byzantine-Robust Distributed Learning", ICML 2018)."""

    def __init__(self, f: int | None = None) -> None:
        super().__init__(f)

    def ranks(self, n: int) -> range:
        return range((n - 1) // 2, n // 2 + 1)


class TrimmedMean(Ranked):
    """Without the f smallest and the f largest values of each coordinate, the mean of the others
    (Yin et al., ICML 2018)."""

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def ranks(self, n: int) -> range:
        return range(self.stands(n), n - self.stands(n))


class Meamed(Robust):
    """The mean of the n - f values of each coordinate nearest to its median, of two as near the
    lower (Xie et al., "Generalized Byzantine-tolerant SGD", 2018)."""

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def reduce(self, points: Points) -> Tensor:
        f = self.stands(points.n)
        return points.middle(nearest(points.n, points.n - f))
