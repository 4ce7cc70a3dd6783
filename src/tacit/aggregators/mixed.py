"""Points that are linear combinations of others, a block of columns at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators import passes
from tacit.aggregators.base import called
from tacit.aggregators.network import Plan
from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points


class Mixed(Points):
    """``y_i = sum_j mix_ij x_j`` of the points ``x``. Those marked ``bad`` stay bad, and no other
    may read a bad one: their columns of ``mix`` must be 0."""

    def __init__(self, points: Points, mix: Array, bad: Array) -> None:
        super().__init__(points.rows, points.budget, points.kernel, None, points.pivot)
        self.points, self.n = points, len(mix)
        self.mix = np.where(bad[:, None], 0.0, mix)
        self._bad = bad
        off = self.mix.copy()
        np.fill_diagonal(off, 0)
        #: The factors where every point is only scaled, ``(n,)``, else None.
        self.scales = np.diagonal(self.mix) if len(mix) == points.n and not off.any() else None

    def called(self, some: Array) -> str:
        return self.points.called(some) if self.n == self.points.n else called("group", some)

    @functools.cached_property
    def squared(self) -> Array:
        """``-1/2 v D v`` for v = the difference of two rows of the mix, which adds up to 0. Where
        those of the mix do not add up to 1, the origin is one more point with what is missing."""
        good = self.points.good
        distances, mix = self.points.squared[np.ix_(good, good)], self.mix[:, good]
        rest = 1 - mix.sum(1)
        if np.abs(rest[~self.bad]).max(initial=0) > 1e-12:
            norms = self.points.norms[good][:, None]
            distances = np.block([[distances, norms], [norms.T, np.zeros((1, 1))]])
            mix = np.hstack([mix, rest[:, None]])
        out = np.empty((self.n, self.n))
        for i, row in enumerate(mix):
            apart = row - mix
            out[i] = -((apart @ distances) * apart).sum(1) / 2
        out = np.maximum(out, 0)
        np.fill_diagonal(out, 0)
        out[self.bad] = out[:, self.bad] = np.inf
        return np.minimum(out, out.T)

    def squared_from(self, point: Tensor) -> Array:
        total = torch.zeros(self.n, dtype=torch.float64, device=self.rows.device)
        for span, block in self.blocks():
            total += (block.double() - point[span].double()).square_().sum(1)
        out: Array = total.cpu().numpy()
        out[self.bad] = np.inf
        return out

    def combine(self, shares: Array) -> Tensor:
        return self.points.combine(shares @ self.mix)

    def middle(self, plan: Plan, chosen: Array | None = None) -> Tensor:
        out = self.rows.new_empty(self.d)
        for span, block in self.blocks(chosen):
            passes.middle_means(block, plan, out[span], None, self.kernel)
        return out

    def blocks(self, chosen: Array | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Bad points are NaN."""
        chosen = np.arange(self.n) if chosen is None else chosen
        bad = np.flatnonzero(self.bad[chosen]).tolist()
        read = self.points.good if self.points.bad.any() else None
        columns = slice(None) if read is None else read
        mix = torch.from_numpy(self.mix[chosen][:, columns]).to(self.rows)
        scales = None if self.scales is None else self.scales[chosen]
        factors = None if scales is None else torch.from_numpy(scales).to(self.rows)[:, None]
        for span, block in self.points.blocks(chosen if factors is not None else read):
            mixed = block * factors if factors is not None else mix @ block
            for i in bad:
                mixed[i] = torch.nan
            yield span, mixed

    def columns(self, some: Array) -> Array:
        out: Array = (self.mix[:, self.points.good] @ self.points.columns(some))[self.good]
        return out

    def draws(self, seed: int, name: str) -> np.random.Generator:
        return self.points.draws(seed, name)
