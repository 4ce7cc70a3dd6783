"""Step sizes of EF21 and its relatives, from smoothness constants and the compressor's alpha.

n clients, ``f = (1/n) sum f_i``; f is L-smooth and f_i is L_i-smooth. L_AM and L_QM are the
arithmetic and the quadratic mean of the L_i (:func:`means`); L_AM <= L_QM. ``alpha`` in (0, 1] is
the compressor's: ``E ||C(v) - v||^2 <= (1 - alpha) ||v||^2``. An unbiased compressor of variance
omega is used divided by 1 + omega, and has alpha = 1 / (1 + omega).

Steps are in units of x per gradient. All functions raise UserError for constants that cannot be.
What a step guarantees needs the constants to be true bounds: of networks they are estimates.

Sources: EF21 (Richtárik, Sokolov, Fatkhullin, arXiv 2106.05203), EF21-RF (arXiv 2305.15264),
EF21-W (Richtárik, Gasanov, Burlachenko, arXiv 2402.10774). What is marked "derived" follows from
their recursions in a few lines, and is not quoted from them. With absent clients, or minibatches:
:mod:`tacit.memory.theory_sampled`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tacit.errors import UserError

Floats = npt.NDArray[np.float64]

# -- the compressor's constants


def theta(alpha: float) -> float:
    """By how much a client's error shrinks in a round: ``1 - sqrt(1 - alpha)`` (2106.05203,
    Lemma 3)."""
    check_alpha(alpha)
    return alpha / (1 + math.sqrt(1 - alpha))  # no cancellation


def beta(alpha: float) -> float:
    """How a step of x feeds that error: ``(1 - alpha) / (1 - sqrt(1 - alpha))`` (2106.05203,
    Lemma 3)."""
    return (1 - alpha) / theta(alpha)


def xi(alpha: float) -> float:
    """``sqrt(beta / theta) = (1 + sqrt(1 - alpha)) / alpha - 1``: 0 at alpha = 1, about 2 / alpha
    where alpha is small."""
    check_alpha(alpha)
    root = math.sqrt(1 - alpha)
    return root * (1 + root) / alpha


# -- the clients' constants


class Means(NamedTuple):
    """L_AM, L_QM and their difference in squares, which is the variance of the L_i."""

    arithmetic: float
    quadratic: float
    variance: float


def means(client_smoothness: npt.ArrayLike) -> Means:
    """Of the L_i, ``(n,)``."""
    constants = _constants(client_smoothness)
    return Means(
        float(constants.mean()), float(np.sqrt(np.square(constants).mean())), float(constants.var())
    )


def weights(client_smoothness: npt.ArrayLike) -> Floats:
    """EF21-W's ``w_i = L_i / sum L``, ``(n,)``. Raises UserError for an L_i of 0, which leaves its
    client no weight to divide by."""
    constants = _constants(client_smoothness)
    if not constants.all():
        raise UserError(
            f"client {int(np.argmin(constants))} has L_i = 0, and so no weight; "
            "give it a small positive constant"
        )
    shares: Floats = constants / constants.sum()
    return shares


def clones(client_smoothness: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """``N_i = ceil(L_i / L_AM)`` (at least 1), ``(n,)``: as how many clients each one would take
    part, for L_QM to become at most ``sqrt(2) L_AM``. At most 2n in all (2402.10774; derived)."""
    constants = _constants(client_smoothness)
    # a client of exactly the mean must not become two by rounding
    copies: npt.NDArray[np.int64] = np.ceil(constants / constants.mean() - 1e-12).astype(np.int64)
    return copies.clip(1)


def cloned(client_smoothness: npt.ArrayLike, copies: npt.ArrayLike) -> Floats:
    """The constants of all ``N = sum N_i`` clients, ``(N,)``, where client i is ``N_i`` times
    ``N / (n N_i) f_i``. Their arithmetic mean is L_AM as before."""
    constants, times = _constants(client_smoothness), np.asarray(copies, np.int64)
    if times.shape != constants.shape or (times < 1).any():
        raise UserError(f"copies must be {len(constants)} whole numbers, at least 1 each")
    return np.repeat(constants * times.sum() / (len(times) * times), times)


# -- steps, full gradients, all clients


def ef21_step(smoothness: float, quadratic: float, alpha: float) -> float:
    """EF21's first: ``1 / (L + L_QM xi)`` (2106.05203, Theorem 1)."""
    return step(smoothness, quadratic * xi(alpha))


def ef21_w_step(smoothness: float, arithmetic: float, alpha: float) -> float:
    """EF21-W's, and as good for plain EF21: ``1 / (L + L_AM xi)`` (2402.10774, Theorem 3)."""
    return step(smoothness, arithmetic * xi(alpha))


def pl_step(smoothness: float, mean: float, alpha: float, mu: float) -> float:
    """Where ``||grad f||^2 >= 2 mu (f - f*)``: ``min(1 / (L + mean sqrt(2) xi), theta / (2 mu))``;
    f - f* then shrinks by 1 - step mu a round. ``mean``: L_QM (2106.05203, Theorem 2), or L_AM
    (derived)."""
    if not 0 < mu < math.inf:
        raise UserError(f"mu is {mu}; it must be above 0, and finite")
    return min(step(smoothness, mean * math.sqrt(2) * xi(alpha)), theta(alpha) / (2 * mu))


def rare_step(smoothness: float, bound: float, sharing: float, alpha: float) -> float:
    """EF21-RF's: ``1 / (L + sqrt(c/n) L_+ xi)`` (2305.15264). ``sharing``: c/n, the share of the
    clients that have the commonest feature; ``bound``: L_+, see :func:`rare_bound`. Every g_i must
    begin on its client's features and the compressor keep zeros."""
    if not 0 < sharing <= 1:
        raise UserError(f"sharing c/n is {sharing}; it must be above 0 and at most 1")
    return step(smoothness, math.sqrt(sharing) * bound * xi(alpha))


def rare_bound(client_smoothness: npt.ArrayLike, holders: npt.ArrayLike) -> float:
    """An L_+, with ``mean ||grad f_i(x) - grad f_i(y)||^2 <= L_+^2 ||x - y||^2``: the root of
    ``(1/n) max_j sum of the L_i^2 of the clients that have feature j`` (derived). At most L_QM, and
    at most ``sqrt(c/n) max L_i``. ``holders``: whether client i has feature j, ``(n, d)``."""
    constants, held = _constants(client_smoothness), np.asarray(holders, bool)
    if held.ndim != 2 or len(held) != len(constants) or not held.any():
        raise UserError(f"holders must be ({len(constants)}, d) and not all False")
    return math.sqrt(float((np.square(constants) @ held).max()) / len(constants))


def weighted_rare_step(smoothness: float, shared: float, alpha: float) -> float:
    """``1 / (L + M xi)`` with ``M = (1/n) max_j sum of the L_i of the clients that have feature j``
    (derived): M <= L_AM, and M <= ``sqrt(c/n)`` :func:`rare_bound`. Needs what :func:`rare_step`
    needs."""
    return step(smoothness, shared * xi(alpha))


# -- helpers


def step(smoothness: float, feedback: float) -> float:
    """``1 / (smoothness + feedback)``."""
    if not 0 <= feedback < math.inf or not 0 <= smoothness < math.inf or smoothness + feedback == 0:
        raise UserError(
            f"no step from smoothness {smoothness:g} and {feedback:g} for the feedback; "
            "both must be 0 or more and finite, and one above 0"
        )
    return 1 / (smoothness + feedback)


def check_alpha(alpha: float) -> None:
    """Raises UserError for a contraction that is none."""
    if not 0 < alpha <= 1:
        raise UserError(
            f"alpha is {alpha}; it must be above 0 and at most 1 (a compressor without a guarantee "
            "has no step size by theory)"
        )


def _constants(client_smoothness: npt.ArrayLike) -> Floats:
    constants = np.asarray(client_smoothness, np.float64)
    if constants.ndim != 1 or not len(constants):
        raise UserError(f"smoothness constants must be (n,), n >= 1, not {constants.shape}")
    if not np.isfinite(constants).all() or (constants < 0).any() or not constants.any():
        raise UserError("smoothness constants must be 0 or more and finite, and one above 0")
    return constants
