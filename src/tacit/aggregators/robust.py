"""What the robust rules have in common: how many bad senders they stand, and what is refused."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators.base import Aggregator, Indices
from tacit.aggregators.chosen import Chosen
from tacit.aggregators.mean import Mean
from tacit.aggregators.passes import Array, weighted_sums
from tacit.aggregators.points import Points, too_many
from tacit.errors import UserError
from tacit.setting import Setting


class Robust(Aggregator):
    """A rule that stands ``f`` senders who send anything.

    ``f``: None where the rule has no use for the number; it then stands as many as n allows.

    Rows that hold NaN or inf, or whose squared norm overflows float64, are infinitely far from all
    others and count among the f. Rules that choose or weigh senders never read them; to rules that
    look at single coordinates NaN is +inf; a pre-aggregator leaves them what they are. With more
    than f of them the rule raises UserError that names them. Other values, however large, are taken
    as they are.

    The result depends on the order of senders only where the rule does: values are compared first,
    and of equal ones the sender with the smaller index comes first. Rows are never changed, and
    equal rows give equal bits.

    ``kernel``: None takes the compiled passes where it can, False never, True insists.
    """

    kernel: bool | None = None
    #: Whether senders may have unequal weights.
    weighted = False
    #: Which n the rule accepts, in words.
    needs = "n > 2 f"

    def __init__(self, f: int | None) -> None:
        if f is not None and (isinstance(f, bool) or not isinstance(f, int) or f < 0):
            raise UserError(f"f is a number of senders, 0 or more, not {f!r}")
        self.f = f

    @property
    def name(self) -> str:
        """As in the registry."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def least(self) -> int:
        """The smallest n that the rule accepts."""
        return 2 * (self.f or 0) + 1

    def check(self, n: int) -> None:
        """UserError unless the rule accepts n rows."""
        if n < self.least():
            raise UserError(
                f"{self.name} with f={self.f or 0} needs {self.needs}, at least {self.least()} "
                f"rows, not {n}; lower f or have more senders take part"
            )

    def stands(self, n: int) -> int:
        """How many of n senders may send anything."""
        return (n - 1) // 2 if self.f is None else self.f

    def start(self, setting: Setting) -> None:
        self.check(setting.workers)

    def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """``(n, d) -> (d,)`` of the rows' type, float32 or float64.

        ``weights``: ``(n,)``; senders of weight 0 take no part. Unequal ones are refused where the
        rule has no weighted form.
        """
        return self._apply(rows, weights, None)

    def each(
        self,
        rows: Tensor,
        held: Sequence[Indices],
        own: Sequence[int],
        senders: Sequence[Indices] | None = None,
    ) -> Tensor:
        self._check_rows(rows)
        for indices in held:
            self.check(len(indices))
        rows, senders = rows.detach(), held if senders is None else senders
        if len(held) == 1:  # of its rows alone: a rule that trusts one need not see all distances
            some = rows[torch.from_numpy(held[0]).to(rows.device)]
            points = Points(some, self.stands(len(some)), self.kernel, None, own[0], senders[0])
            made = self.reduce(points)
            points.bad  # noqa: B018  (looks, where the rule has not, and raises for too many)
            self._check_finite(made, points)
            return made[None]
        whole = Points(rows, len(rows), self.kernel)
        chosen = [
            Chosen(whole, indices, self.stands(len(indices)), place, sent)
            for indices, place, sent in zip(held, own, senders, strict=True)
        ]
        several = self.of_each(chosen)
        for made, points in zip(several, chosen, strict=True):
            self._check_finite(made, points)
        return several

    def of_each(self, chosen: Sequence[Chosen]) -> Tensor:
        """``(v, d)``, of v times n points among the same rows; each n was checked."""
        return torch.stack([self.reduce(points) for points in chosen])

    @abstractmethod
    def reduce(self, points: Points) -> Tensor:
        """``(d,)``; n was checked."""

    def _apply(self, rows: Tensor, weights: Tensor | None, pivot: int | None) -> Tensor:
        points = self._points(rows, weights, pivot)
        self.check(points.n)
        out = self.reduce(points)
        self._check_finite(out, points)
        return out

    def _check_finite(self, out: Tensor, points: Points) -> None:
        """UserError where what was made of the points ``(d,)`` is not finite."""
        # a sum is twenty times faster than looking at every entry, and finite where these are
        if math.isfinite(float(out.sum())) or bool(out.isfinite().all()):
            return
        odd = np.array([i for i, row in enumerate(points.held) if not row.isfinite().all()])
        if len(odd) > points.budget:
            raise too_many(points, odd, points.budget)
        raise UserError(f"{self.name}: the rows are too large for {out.dtype}; scale them")

    def _check_rows(self, rows: Tensor) -> None:
        if rows.dim() != 2 or rows.dtype not in (torch.float32, torch.float64) or not len(rows):
            raise UserError(
                f"{self.name} takes rows (n, d) in float32 or float64, not shape "
                f"{tuple(rows.shape)} in {rows.dtype}"
            )

    def _points(self, rows: Tensor, weights: Tensor | None, pivot: int | None) -> Points:
        self._check_rows(rows)
        shares = None
        if weights is not None:
            shares = weights.detach().to("cpu", torch.float64).numpy()
            if shares.shape != (len(rows),) or not (np.isfinite(shares) & (shares >= 0)).all():
                raise UserError(
                    f"{self.name}: weights must be {len(rows)} numbers, none negative, "
                    f"not {weights.tolist()}"
                )
            rows, shares, pivot = self._taking_part(rows, shares, pivot)
        stands = self.stands(len(rows))
        return Points(rows.detach(), stands, self.kernel, shares, pivot)

    def _taking_part(
        self, rows: Tensor, shares: Array, pivot: int | None
    ) -> tuple[Tensor, Array | None, int | None]:
        here = np.flatnonzero(shares)
        if not len(here):
            raise UserError(f"{self.name}: all weights are 0; somebody must take part")
        if len(here) < len(rows):
            if pivot is not None and shares[pivot] == 0:
                raise UserError(f"{self.name}: the own row {pivot} has weight 0")
            pivot = None if pivot is None else int(np.searchsorted(here, pivot))
            rows, shares = rows[torch.from_numpy(here).to(rows.device)], shares[here]
        if (shares == shares[0]).all():
            return rows, None, pivot
        if not self.weighted:
            raise UserError(f"{self.name} has no weighted form; give all senders the same weight")
        return rows, shares, pivot


class Weighing(Robust):
    """A rule that finds a weight for each point."""

    def reduce(self, points: Points) -> Tensor:
        return points.combine(self.shares(points))

    def of_each(self, chosen: Sequence[Chosen]) -> Tensor:
        shares = np.stack([points.spread(self.shares(points)) for points in chosen])
        return weighted_sums(chosen[0].rows, shares)

    @abstractmethod
    def shares(self, points: Points) -> Array:
        """``(n,)`` float64, 0 for bad points."""


def equal_shares(n: int, chosen: Array) -> Array:
    """The mean of the chosen points, as shares."""
    shares = np.zeros(n)
    shares[chosen] = 1 / len(chosen)
    return shares


def smallest(values: Array, k: int) -> Array:
    """The indices of the k smallest values in ascending order, of equal ones the first."""
    found: Array = np.argsort(values, kind="stable")[:k]
    return found


def combined(rule: Aggregator, points: Points) -> Tensor:
    """``rule`` of points: a robust rule, or the mean."""
    if isinstance(rule, Robust):
        rule.check(points.n)
        return rule.reduce(points)
    assert type(rule) is Mean
    if points.bad.any():
        raise too_many(points, np.flatnonzero(points.bad), 0)
    return points.combine(equal_shares(points.n, np.arange(points.n)))
