"""Attacks as far from the honest mean as the honest vectors are from each other."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor

from tacit.aggregators.passes import Array
from tacit.attacks.base import Attack, Sight
from tacit.attacks.spread import centre, deviation, products


class _Hidden(Attack):
    def __call__(self, sight: Sight) -> Tensor:
        mean = centre(sight.honest)
        sigma = deviation(sight.honest, mean)
        gram = products(sight.honest, mean, sigma)
        apart, along, square = gram[:-2, :-2], gram[:-2, -2], float(gram[-2, -2])
        gamma = self.largest(apart, along, square) if square > 0 else 0.0
        return mean.sub_(sigma, alpha=gamma).to(sight.honest.dtype)

    @abstractmethod
    def largest(self, apart: Array, along: Array, square: float) -> float:
        """The gamma of ``mu - gamma sigma``. ``apart``: inner products of the ``x_i - mu``,
        ``(H, H)``; ``along``: with sigma, ``(H,)``; ``square``: ``||sigma||^2``."""


class MinMax(_Hidden):
    """``mu - gamma sigma`` with the largest gamma for which no honest vector is farther from it
    than two honest vectors are from each other (Shejwalkar and Houmansadr, "Manipulating the
    Byzantine", NDSS 2021, with p = std).

    gamma is the exact one; the published code halves intervals until it is near.
    """

    def largest(self, apart: Array, along: Array, square: float) -> float:
        norms = np.diagonal(apart)
        widest = float((norms[:, None] + norms - 2 * apart).max())
        # ||x_i - mu||^2 + 2 gamma <x_i - mu, sigma> + gamma^2 ||sigma||^2 <= widest
        slack = np.maximum(widest - norms, 0)
        return float(((np.sqrt(along**2 + square * slack) - along) / square).min())


class MinSum(_Hidden):
    """``mu - gamma sigma`` with the largest gamma for which the sum of squared distances to the
    honest vectors is at most that of the honest vector where this sum is least (Shejwalkar and
    Houmansadr, NDSS 2021, with p = std, and as in their code; some others take the honest vector
    where it is most).

    The sum is ``H ||b - mu||^2`` more than that from mu: gamma is the distance from mu to the
    nearest honest vector, in lengths of sigma.
    """

    def largest(self, apart: Array, along: Array, square: float) -> float:
        return float(np.sqrt(max(0.0, np.diagonal(apart).min()) / square))
