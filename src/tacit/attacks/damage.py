"""What lies do to the honest: the objective of the line search."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tacit.aggregators import PeerRule, Ranked
from tacit.attacks.lies import Lies, applied
from tacit.attacks.ordered import Ordered
from tacit.attacks.turned import Turned

#: z to the squared distance of what the honest make of the vectors from the honest mean.
Objective = Callable[[float], float]


def damage(lies: Lies) -> Objective:
    """The objective of MoNNA's published code (Farhadkhani et al., ICML 2023): with one lie for
    everybody, ``||mean_i A_i - mean||^2``; with a lie for each victim ``mean_i ||A_i - mean||^2``,
    because pushes that add up to 0 would not be seen in the mean.

    ``A_i`` is the rule of all H honest vectors and f copies of the lie, as worker i applies it; of
    a server, there is one. Where the rule allows, the rows are read once, not for every z: see
    ``turned.py`` (rules of distances) and ``ordered.py`` (rules of single coordinates).
    """
    rule = lies.rule
    if isinstance(rule, Ranked):
        return Ordered(lies, rule)
    return Turned(lies) if rule.turns else Whole(lies)


class Whole:
    """The objective, by the rule itself on all rows: for any rule, a pass over d or more a time."""

    def __init__(self, lies: Lies) -> None:
        self.lies, self.rule = lies, lies.rule
        honest = lies.sight.honest
        self.rows = honest.new_empty((lies.sight.n, honest.shape[1]))
        self.rows[: len(honest)] = honest

    def __call__(self, z: float) -> float:
        lies, honest = self.lies, self.lies.sight.honest
        if lies.pushes is not None:
            total = 0.0
            for i, push in enumerate(lies.pushes.tolist()):
                self.rows[len(honest) :] = honest[i] + z * push * lies.direction
                total += _square(applied(self.rule, self.rows, i).double() - lies.mean)
            return total / len(honest)
        self.rows[len(honest) :] = lies.mean + z * lies.direction
        if not (lies.sight.peers and isinstance(self.rule, PeerRule)):
            return _square(applied(self.rule, self.rows, 0).double() - lies.mean)
        moved = torch.zeros_like(lies.mean)
        for i in range(len(honest)):
            moved += applied(self.rule, self.rows, i).double() - lies.mean
        return _square(moved / len(honest))


def _square(vector: Tensor) -> float:
    return float(vector @ vector)
