"""Attacks along the honest mean and the honest deviation."""

from __future__ import annotations

from statistics import NormalDist

from torch import Tensor

from tacit.attacks.base import Attack, Sight
from tacit.attacks.damage import damage
from tacit.attacks.lies import Lies
from tacit.attacks.search import maximise
from tacit.attacks.spread import centre, deviation
from tacit.errors import UserError, check_number


class SignFlip(Attack):
    """``-mu``, the honest mean turned round (Allen-Zhu et al., "Byzantine-Resilient Non-Convex
    Stochastic Gradient Descent", ICLR 2021)."""

    def __call__(self, sight: Sight) -> Tensor:
        return centre(sight.honest).neg_().to(sight.honest.dtype)


class LabelFlip(Attack):
    """The mean of what the honest would send had their last gradient been that of the labels
    C - 1 - y (in MoNNA's published code: of models, ``mu - rate * gradient``, no momentum)."""

    needs_poisoned = True

    def __call__(self, sight: Sight) -> Tensor:
        if sight.poisoned is None:
            raise UserError("label_flip needs gradients for wrong labels, of a task with classes")
        return centre(sight.poisoned).to(sight.honest.dtype)


class Foe(Attack):
    """Fall of empires, or inner product manipulation: ``-scale mu`` (Xie et al., "Fall of
    Empires", UAI 2019).

    ``search``: ``(1 - z) mu`` instead, with the z >= 0 that does the most damage at this step
    (``empire`` in MoNNA's published code); ``scale`` is not used then.
    """

    def __init__(self, scale: float = 2.0, search: bool = False) -> None:
        self.scale, self.search = check_number("scale", scale, "(-inf, inf)"), search

    def __call__(self, sight: Sight) -> Tensor:
        mean, scale = centre(sight.honest), self.scale
        if self.search:
            scale = maximise(damage(Lies(sight, mean, -mean))) - 1
        return mean.mul_(-scale).to(sight.honest.dtype)


class Alie(Attack):
    """A little is enough: ``mu + z sigma``, sigma the standard deviation of each coordinate, with
    H - 1 (Baruch et al., "A Little Is Enough", NeurIPS 2019).

    ``z``: None is :func:`largest_hidden`. ``search``: the z >= 0 that does the most damage at this
    step (``little`` in MoNNA's published code).
    """

    def __init__(self, z: float | None = None, search: bool = False) -> None:
        if z is not None and search:
            raise UserError("alie has a fixed z or searches one; leave out z or search")
        self.z = None if z is None else check_number("z", z, "(-inf, inf)")
        self.search = search

    def __call__(self, sight: Sight) -> Tensor:
        mean = centre(sight.honest)
        sigma = deviation(sight.honest, mean)
        if self.search:
            z = maximise(damage(Lies(sight, mean, sigma)))
        else:
            z = largest_hidden(sight.n, sight.liars) if self.z is None else self.z
        return mean.add_(sigma, alpha=z).to(sight.honest.dtype)


def largest_hidden(n: int, f: int) -> float:
    """``z_max``: the quantile of the normal distribution at ``(n - f - s) / (n - f)``, with
    ``s = n // 2 + 1 - f`` honest supporters for a majority.

    This is the form of the paper, which Blades uses; others put n for n - f in the denominator and
    n - s in the numerator, which is more. 0 where it would be negative; it is 0 for few workers.
    UserError where the liars are a majority by themselves.
    """
    supporters = n // 2 + 1 - f
    if supporters < 1:
        raise UserError(f"alie: {f} liars among {n} need no supporters; give a z")
    hidden = n - f - supporters
    return max(0.0, NormalDist().inv_cdf(hidden / (n - f))) if hidden > 0 else 0.0
