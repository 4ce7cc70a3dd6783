"""Step sizes of EF21 where clients are absent, or see minibatches; see :mod:`tacit.memory.theory`.

Their proofs leave constants free. What is not given is chosen for the longest step, not fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tacit.errors import UserError
from tacit.memory.theory import check_alpha, step


class Choice(NamedTuple):
    """A step, and the free constants of its proof that make it so long."""

    step: float
    s: float
    other: float


def partial_step(
    smoothness: float,
    mean: float,
    alpha: float,
    probability: float,
    s: float | None = None,
    rho: float | None = None,
) -> Choice:
    """Of EF21-PP, where every client takes part with the same ``probability`` p, by itself; absent
    ones keep their g_i (2110.03294, Theorem 7; ``other`` is rho).

        theta = 1 - (1 + s)(1 - alpha)             theta_p = p theta - rho (1 - p)
        beta = (1 + 1/s)(1 - alpha)                B = (p beta + (1 + 1/rho)(1 - p)) mean^2
        step = 1 / (L + sqrt(B / theta_p))

    ``mean`` is L_QM, or L_AM with EF21-W's weights (derived). ``s`` and ``rho``, both above 0, are
    the proof's; by default those that make the step longest. Raises UserError for ones that make
    theta or theta_p 0 or less: s must be below alpha / (1 - alpha), rho below p theta / (1 - p).
    """
    check_alpha(alpha)
    if not 0 < probability <= 1:
        raise UserError(f"the probability is {probability}; it must be above 0 and at most 1")
    absent = 1 - probability

    def ratio(s: float) -> tuple[float, float]:
        """The least B / (theta_p mean^2), and its rho."""
        shrinks = alpha - s * (1 - alpha)  # theta, without cancellation
        if s <= 0 or shrinks <= 0:
            raise _invalid("s", s, "alpha / (1 - alpha)", _limit(alpha))
        fed = probability * (1 + 1 / s) * (1 - alpha)
        if absent == 0:
            return fed / shrinks, rho or 1.0
        room = probability * shrinks
        best = _young(room, absent, fed + absent, absent) if rho is None else rho
        if not 0 < best * absent < room:
            raise _invalid("rho", best, "p theta / (1 - p)", room / absent)
        return (fed + (1 + 1 / best) * absent) / (room - best * absent), best

    if s is None:
        s = _least(lambda s: ratio(s)[0], alpha)
    least, rho = ratio(s)
    return Choice(step(smoothness, mean * math.sqrt(least)), s, rho)


def stochastic_step(
    smoothness: float,
    mean: float,
    alpha: float,
    s: float | None = None,
    nu: float | None = None,
) -> Choice:
    """Of EF21 with minibatch gradients. **Unverified constants**: the form below is recalled from
    the EF21-W paper and has been checked neither against its text nor by a proof. Published
    experiments use :func:`ef21_step` with minibatches.

        th = 1 - (1 - alpha)(1 + s)(1 + nu)        bh = 2 (1 - alpha)(1 + s)(s + 1/nu)
        step = 1 / (L + mean sqrt(bh / th))

    ``mean``: L_AM with EF21-W's weights, else L_QM. ``s`` is what the noise may take of the
    contraction: a longer step with a smaller s is paid for with a higher floor, so there is no best
    one. By default it is half: (1 - alpha)(1 + s) = 1 - alpha/2. ``nu`` (``other`` in the result)
    is by default what makes the step longest. Raises UserError for ones that make th 0 or less.
    """
    check_alpha(alpha)
    if alpha == 1:
        return Choice(step(smoothness, 0.0), s or 1.0, nu or 1.0)
    if s is None:
        s = alpha / 2 / (1 - alpha)
    left = (1 - alpha) * (1 + s)
    if s <= 0 or left >= 1:
        raise _invalid("s", s, "alpha / (1 - alpha)", _limit(alpha))
    if nu is None:
        nu = _young(1 - left, left, s, 1.0)
    elif nu <= 0 or left * (1 + nu) >= 1:
        raise _invalid("nu", nu, "1 / ((1 - alpha)(1 + s)) - 1", 1 / left - 1)
    ratio = 2 * left * (s + 1 / nu) / (1 - left * (1 + nu))
    return Choice(step(smoothness, mean * math.sqrt(ratio)), s, nu)


def _young(a: float, b: float, c: float, d: float) -> float:
    """The r in (0, a/b) that makes ``(c + d/r) / (a - b r)`` least."""
    return a * d / (b * d + math.sqrt(b * d * (b * d + a * c)))


def _least(cost: Callable[[float], float], alpha: float) -> float:
    """The s in (0, alpha / (1 - alpha)) of the least cost, which has one valley: by golden section
    over log s between the ends, where it grows beyond all bounds."""
    if alpha == 1:
        return 1.0  # s is in front of nothing
    end = math.log(_limit(alpha))
    low, high = end - 50.0, end - 1e-12
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-9:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if cost(math.exp(left)) < cost(math.exp(right)) else (left, high)
    return math.exp(low)


def _limit(alpha: float) -> float:
    return alpha / (1 - alpha) if alpha < 1 else math.inf


def _invalid(name: str, value: float, formula: str, limit: float) -> UserError:
    return UserError(f"{name} is {value:g}; it must be above 0 and below {formula} = {limit:g}")
