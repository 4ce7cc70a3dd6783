"""Some of the points, for many workers that each hold others: distances are found once."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators import passes
from tacit.aggregators.network import Plan
from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points, too_many


class Chosen(Points):
    """The points ``indices`` of ``all``, with repetitions; ``pivot``: the place of the own one.
    UserError where more than ``budget`` of them are bad."""

    def __init__(
        self,
        points: Points,
        indices: Array,
        budget: int,
        pivot: int | None,
        senders: Array,
    ) -> None:
        super().__init__(points.rows, budget, points.kernel, None, pivot, senders)
        self.all, self.indices, self.n = points, indices, len(indices)
        self._bad = points.bad[indices]
        if self._bad.sum() > budget:
            raise too_many(self, np.flatnonzero(self._bad), budget)

    @functools.cached_property
    def squared(self) -> Array:
        found: Array = self.all.squared[np.ix_(self.indices, self.indices)]
        return found

    def squared_from(self, point: Tensor) -> Array:
        found: Array = self.all.squared_from(point)[self.indices]
        return found

    @property
    def held(self) -> Tensor:
        return self.rows[torch.from_numpy(self.indices).to(self.rows.device)]

    @property
    def own(self) -> Tensor:
        return self.rows[self.indices[self.pivot or 0]]

    def squared_from_own(self) -> Array:
        found: Array = self.squared[self.pivot or 0]
        return found

    def spread(self, shares: Array) -> Array:
        """Shares of these, as shares of all."""
        out = np.zeros(self.all.n)
        np.add.at(out, self.indices, shares)
        return out

    def combine(self, shares: Array) -> Tensor:
        return self.all.combine(self.spread(shares))

    def middle(self, plan: Plan, chosen: Array | None = None) -> Tensor:
        out = self.rows.new_empty(self.d)
        places = self.indices if chosen is None else self.indices[chosen]
        passes.middle_means(self.rows, plan, out, places, self.kernel)
        return out

    def blocks(self, chosen: Array | None = None) -> Iterator[tuple[slice, Tensor]]:
        yield from self.all.blocks(self.indices if chosen is None else self.indices[chosen])

    def picked(self, some: Array) -> Array:
        out: Array = self.all.picked(some)[self.indices]
        return out
