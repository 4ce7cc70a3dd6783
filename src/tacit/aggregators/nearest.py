"""The mean of the vectors nearest to something: CGE, NNA, CTMA."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tacit.aggregators.base import Aggregator
from tacit.aggregators.passes import Array
from tacit.aggregators.points import Points
from tacit.aggregators.robust import Robust, Weighing, combined, equal_shares, smallest
from tacit.errors import UserError


class CGE(Weighing):
    """The mean of the n - f vectors of smallest norm (Gupta and Vaidya, "Fault-Tolerance in
    Distributed Optimization", PODC 2020). For gradients, not for models."""

    turns = True

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def shares(self, points: Points) -> Array:
        kept = smallest(points.norms, points.n - self.stands(points.n))
        return equal_shares(points.n, kept)


class CTMA(Robust):
    """The mean of the n - f vectors nearest to what another rule makes of all (Dahan and Levy,
    "Fault Tolerant ML", ICML 2024). ``first``: that rule."""

    def __init__(self, f: int, first: Robust) -> None:
        if isinstance(first, PeerRule):
            raise UserError(f"{first.name} needs the own row; ctma cannot begin with it")
        super().__init__(f)
        self.first, self.turns = first, first.turns

    def check(self, n: int) -> None:
        super().check(n)
        self.first.check(n)

    def reduce(self, points: Points) -> Tensor:
        distances = points.squared_from(combined(self.first, points))
        kept = smallest(distances, points.n - self.stands(points.n))
        return points.combine(equal_shares(points.n, kept))


class PeerRule(Robust):
    """A rule of one worker among peers, which trusts its own row."""

    turns = True

    @property
    def instead(self) -> str:
        """What is nearest to it on a server, as in the registry."""
        return f"nnm(f={self.f or 0},then=trimmed_mean)"

    def __call__(self, rows: Tensor, weights: Tensor | None = None, pivot: int = 0) -> Tensor:
        """``pivot``: the index of the own row; the others as for every rule."""
        if not 0 <= pivot < len(rows):
            raise UserError(f"{self.name}: there is no own row {pivot} among {len(rows)}")
        return self._apply(rows, weights, pivot)

    def own(self, points: Points) -> tuple[int, Array]:
        """The pivot, and the squared distances from it, ``(n,)``. UserError if it is not finite."""
        pivot = points.pivot or 0
        distances = points.squared_from_own()
        if points.bad[pivot]:
            named = points.called(np.array([pivot]))
            raise UserError(f"{self.name}: the own row ({named}) holds NaN or inf")
        return pivot, distances


class NNA(Weighing, PeerRule):
    """Nearest-neighbour averaging, the rule of MoNNA: the mean of the n - f vectors nearest to the
    own one (Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead",
    ICML 2023).

    n: the vectors that are here, the own included. A worker that waits for all but f of its N peers
    has n = N - f, so it averages N - 2 f.
    """

    def __init__(self, f: int) -> None:
        super().__init__(f)

    def shares(self, points: Points) -> Array:
        _, distances = self.own(points)
        kept = smallest(distances, points.n - self.stands(points.n))
        return equal_shares(points.n, np.sort(kept))


def refuse_peer_rule(rule: Aggregator | None, what: str) -> None:
    """Raise UserError for a rule among peers where ``what`` has one result for all: there its own
    row would be the first worker's, who could be lying."""
    if isinstance(rule, PeerRule):
        raise UserError(
            f"{rule.name} trusts a worker's own row, and {what} are the same for all workers; "
            f"take {rule.instead} instead, or a method without a server, such as monna"
        )
