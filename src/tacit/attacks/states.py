"""Attacks on what a trigger asks for: the states with which workers estimate their variance.

The first entry of a state is the squared norm of a worker's drift, the others are linear in it; the
estimate is the first entry of the mean state, less the squared norm of the others.
"""

from __future__ import annotations

from torch import Tensor

from tacit.attacks.base import Attack, Sight
from tacit.attacks.spread import centre
from tacit.errors import check_number


class Inflate(Attack):
    """On a trigger's states: the honest mean with its first entry raised by ``factor`` times the
    mean's largest magnitude (by ``factor`` itself where that is 0). The estimate becomes large, and
    workers synchronise all the time."""

    def __init__(self, factor: float = 1e6) -> None:
        self.factor = check_number("factor", factor, "(0, inf)")

    def __call__(self, sight: Sight) -> Tensor:
        mean = centre(sight.honest)
        mean[0] += self.factor * _magnitude(mean)
        return mean.to(sight.honest.dtype)


class Deflate(Attack):
    """On a trigger's states: zeros. The estimate becomes smaller, and workers synchronise later.

    ``along``: all entries but the first are ``factor`` times the honest mean's largest magnitude
    instead (``factor`` itself where the mean is 0): the estimate becomes very negative, and workers
    never synchronise.
    """

    def __init__(self, along: bool = False, factor: float = 1e6) -> None:
        self.along, self.factor = along, check_number("factor", factor, "(0, inf)")

    def __call__(self, sight: Sight) -> Tensor:
        out = sight.honest.new_zeros(sight.honest.shape[1])
        if self.along:
            out[1:] = self.factor * _magnitude(centre(sight.honest))
        return out


def _magnitude(mean: Tensor) -> float:
    return float(mean.abs().max()) or 1.0
