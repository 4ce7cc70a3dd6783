"""Rules before rules: mixing, grouping or clipping the vectors, for another rule to combine.

``NNM(f=2, then=TrimmedMean(2))`` is an aggregator. The mixed vectors are linear combinations of the
rows: a rule that looks at distances needs no pass over them, and one that looks at coordinates sees
them a block of columns at a time.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators import passes
from tacit.aggregators.base import Aggregator
from tacit.aggregators.mean import Mean
from tacit.aggregators.mixed import Mixed
from tacit.aggregators.nearest import PeerRule
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Robust, combined, smallest
from tacit.errors import UserError


class PreAggregator(Robust):
    """``then``: the rule that combines the new vectors, a robust one or ``Mean``.

    ``f``: None is what ``then`` stands.
    """

    def __init__(self, f: int | None, then: Aggregator) -> None:
        if not isinstance(then, Robust) and type(then) is not Mean:
            raise UserError(f"a robust rule or the mean may come after, not {type(then).__name__}")
        if isinstance(then, PeerRule):
            raise UserError(f"{then.name} needs the own row; nothing may come before it")
        super().__init__(getattr(then, "f", 0) if f is None else f)
        self.then, self.turns = then, then.turns

    def check(self, n: int) -> None:
        super().check(n)
        if isinstance(self.then, Robust):
            try:
                self.then.check(self.count(n))
            except UserError as error:
                made = self.count(n)
                raise UserError(f"{self.name} makes {made} vectors of {n}: {error}") from None

    def count(self, n: int) -> int:
        """How many vectors it makes of n."""
        return n

    def reduce(self, points: Points) -> Tensor:
        return combined(self.then, self.mix(points))

    def mixed(self, rows: Tensor) -> Tensor:
        """The new vectors, ``(n, d) -> (n', d)``; NaN for those of bad senders."""
        points = self._points(rows, None, None)
        super().check(points.n)
        mixed = self.mix(points)
        out = passes.empty(points.rows, mixed.n)
        if mixed.scales is not None:
            torch.mul(points.rows, torch.tensor(mixed.scales[:, None]).to(out), out=out)
        elif (np.count_nonzero(mixed.mix, axis=0) <= 1).all():  # no row is read twice
            for made, shares in zip(out, mixed.mix, strict=True):
                passes.narrow_sum(points.rows, shares, made, self.kernel)
        else:
            for span, block in mixed.blocks():
                out[:, span] = block
        for i in np.flatnonzero(mixed.bad).tolist():  # a mask would cost a pass
            out[i] = torch.nan
        return out

    @abstractmethod
    def mix(self, points: Points) -> Mixed: ...


class NNM(PreAggregator):
    """Nearest-neighbour mixing: each vector becomes the mean of the n - f nearest to it, itself
    included (Allouah et al., "Fixing by Mixing", AISTATS 2023)."""

    def __init__(self, f: int, then: Aggregator) -> None:
        super().__init__(f, then)

    def mix(self, points: Points) -> Mixed:
        squared, n = points.squared, points.n
        kept = n - self.stands(n)
        mix = np.zeros((n, n))
        for i in points.good.tolist():
            mix[i, smallest(squared[i], kept)] = 1 / kept
        return Mixed(points, mix, points.bad)


class Bucketing(PreAggregator):
    """The means of random groups of ``s`` vectors, the last group smaller where they do not come
    out even (Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets", ICLR 2022).

    Each bad sender may spoil one group, so the next rule must stand f of ceil(n / s). The grouping
    follows from ``seed`` and the rows.
    """

    def __init__(self, then: Aggregator, s: int = 2, f: int | None = None, seed: int = 0) -> None:
        super().__init__(f, then)
        if s < 1:
            raise UserError(f"bucketing needs groups of 1 or more, not {s}")
        self.s, self.seed, self.turns = s, seed, False  # what it draws follows from the rows

    def count(self, n: int) -> int:
        return -(-n // self.s)

    def mix(self, points: Points) -> Mixed:
        order = points.draws(self.seed, "bucketing").permutation(points.n)
        mix = np.zeros((self.count(points.n), points.n))
        spoilt = np.zeros(len(mix), np.bool_)
        for k in range(len(mix)):
            group = order[k * self.s : (k + 1) * self.s]
            mix[k, group] = 1 / len(group)
            spoilt[k] = points.bad[group].any()
        return Mixed(points, mix, spoilt)


class Clipping(PreAggregator):
    """Each vector shortened to a norm of at most ``tau``."""

    def __init__(self, then: Aggregator, tau: float = 2.0, f: int | None = None) -> None:
        super().__init__(f, then)
        if not tau > 0:
            raise UserError(f"clipping needs tau > 0, not {tau}")
        self.tau = float(tau)

    def mix(self, points: Points) -> Mixed:
        return _shortened(points, self.tau)


class ARC(PreAggregator):
    """Adaptive robust clipping: the ``floor(2 f / n (n - f))`` longest vectors are shortened to the
    norm of the next one (Allouah et al., "Adaptive Gradient Clipping for Robust Federated
    Learning", ICLR 2025)."""

    def __init__(self, f: int, then: Aggregator) -> None:
        super().__init__(f, then)

    def mix(self, points: Points) -> Mixed:
        n, f = points.n, self.stands(points.n)
        k = 2 * f * (n - f) // n
        return _shortened(points, float(np.sqrt(np.sort(points.norms)[n - k - 1])))


def _shortened(points: Points, norm: float) -> Mixed:
    norms = np.sqrt(points.norms)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.where(norms <= norm, 1.0, norm / norms)
    return Mixed(points, np.diag(scales), points.bad)
