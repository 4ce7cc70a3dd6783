"""Attacks that tell every honest worker something else."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators.passes import Array, spans
from tacit.attacks.base import Attack, Sight
from tacit.attacks.damage import damage
from tacit.attacks.lies import Lies
from tacit.attacks.search import maximise
from tacit.attacks.spread import centre
from tacit.errors import UserError, check_number


class Dissensus(Attack):
    """Each honest worker's own vector, pushed away from the other honest ones:
    ``b_i = x_i - epsilon / f sum_j (x_j - x_i)`` (He et al., "Byzantine-Robust Decentralized
    Learning via ClippedGossip", 2022, with all links and equal weights).

    In a plain average, ``epsilon`` = 1 cancels the honest pull towards each other; more inverts it.
    """

    per_victim = True

    def __init__(self, epsilon: float = 1.5) -> None:
        self.epsilon = check_number("epsilon", epsilon, "(0, inf)")

    def __call__(self, sight: Sight) -> Tensor:
        _check_peers("dissensus", sight)
        honest, mean = sight.honest, centre(sight.honest)
        away = self.epsilon * len(honest) / sight.liars
        out = torch.empty_like(honest, memory_format=torch.contiguous_format)
        for span in spans(honest):
            out[:, span] = honest[:, span] + away * (honest[:, span] - mean[span])
        return out


class Spectral(Attack):
    """Pulls two groups of honest workers apart: ``b_i = x_i + z v_i sum_j v_j x_j``, with the
    z >= 0 for which the honest end farthest from the honest mean, in the mean of their squared
    distances (Gaucher et al., "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML 2025;
    the published code maximises the norm instead).

    v is a Fiedler vector of the honest workers' graph. Here all are linked, and every unit vector
    that adds up to 0 is one: this one sets the first half against the second.
    """

    per_victim = True

    def __call__(self, sight: Sight) -> Tensor:
        _check_peers("spectral", sight)
        honest, mean = sight.honest, centre(sight.honest)
        pushes = halves(len(honest))
        weights = torch.from_numpy(pushes).to(mean.device)
        direction = torch.empty_like(mean)
        for span in spans(honest):  # v adds up to 0: the mean drops out, with its rounding
            direction[span] = weights @ (honest[:, span] - mean[span])
        z = maximise(damage(Lies(sight, mean, direction, pushes)))
        out = torch.empty_like(honest, memory_format=torch.contiguous_format)
        for span in spans(honest):
            out[:, span] = honest[:, span] + (z * weights)[:, None] * direction[span]
        return out


def halves(n: int) -> Array:
    """A unit vector that adds up to 0, positive in its first half and negative in the other; 0 for
    n = 1."""
    first, second = n // 2, n - n // 2
    out = np.full(n, -np.sqrt(first / (second * n)))
    if first:
        out[:first] = np.sqrt(second / (first * n))
    return out


def _check_peers(name: str, sight: Sight) -> None:
    if not sight.peers:
        raise UserError(
            f"{name} tells every honest worker something else, which needs a method without a "
            "server, such as monna; take another attack"
        )
