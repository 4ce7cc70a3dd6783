"""Inputs on which rules are tried: vectors of honest senders, and what the others may send."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Draws = np.random.Generator

#: Standard deviations that a shifted mean is moved by.
SHIFTS = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
#: How far apart two clusters are, in their own spreads.
GAPS = (1.0, 2.0, 4.0, 8.0, 30.0, 1000.0)


def line(n: int, f: int) -> Array:
    """n - f zeros and f ones, ``(n, 1)``."""
    return np.repeat([0.0, 1.0], [n - f, f])[:, None]


def clusters(draws: Draws, n: int, f: int, d: int, gap: float) -> Array:
    """n - f Gaussian points, and f others ``gap`` spreads away."""
    rows = draws.standard_normal((n, d))
    rows[n - f :, 0] += gap
    return rows


def simplex(n: int, f: int) -> Array:
    """The corners of a simplex and f copies of the first, ``(n, n - f)``."""
    corners = np.eye(n - f)
    return np.concatenate([corners, np.repeat(corners[:1], f, axis=0)])


def with_copies(honest: Array, vector: Array, f: int) -> Array:
    """The honest vectors, then ``vector`` f times."""
    return np.concatenate([honest, np.repeat(vector[None], f, axis=0)])


def negated_mean(honest: Array) -> Array:
    mean: Array = honest.mean(0)
    return -mean


def shifted_means(honest: Array) -> list[Array]:
    """The mean plus some standard deviations of each coordinate (Baruch et al., NeurIPS 2019)."""
    mean, deviation = honest.mean(0), honest.std(0, ddof=1)
    return [mean + shift * deviation for shift in SHIFTS]


def gaussian_models(draws: Draws, count: int, d: int) -> Array:
    return draws.standard_normal((count, d))


def grouped_models(draws: Draws, count: int, d: int) -> Array:
    """Two groups, the second of 1 to half of them, up to 30 spreads away."""
    rows = draws.standard_normal((count, d))
    rows[: draws.integers(1, max(2, count // 2 + 1)), 0] += draws.uniform(1, 30)
    return draws.permutation(rows)


def uneven_models(draws: Draws, count: int, d: int) -> Array:
    """Some far from the others, some near."""
    return np.exp(draws.standard_normal((count, 1))) * draws.standard_normal((count, d))
