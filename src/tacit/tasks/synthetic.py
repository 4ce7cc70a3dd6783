"""Least-squares problems whose clients differ in smoothness as much as is asked for.

After the generator of ``burlachenkok/ef21_with_rare_features``: random singular vectors, an even
grid of eigenvalues, x* = 0.5, noise in the targets, and features that only some clients have. There
all clients have the same largest eigenvalue; here each has its own.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.tasks.smooth import LeastSquares

CONDITION = 20.0  # of a client's largest eigenvalue to its smallest that is not 0
NOISE = 2.0
SOLUTION = 0.5
_TRIES = 1000


def least_squares(
    clients: int = 100,
    features: int = 10,
    rows: int = 10,
    mean: float = 10.0,
    variance: float = 0.0,
    rare: float = 1.0,
    lam: float = 0.0,
    seed: int = 0,
) -> LeastSquares:
    """Least squares with ``rows`` rows of each client, and exactly this mean and variance of the
    ``client_smoothness`` L_i (with ``lam``: of L_i - 2 lam).

    rare: c/n, the share of the clients that have a feature. Below 1 the gradient of a client is
          zero outside its features, with ``lam`` too.
    Raises UserError for values out of range.
    """
    for name, value in (("clients", clients), ("features", features), ("rows", rows)):
        if value < 1:
            raise UserError(f"number of {name} is {value}; it must be at least 1")
    if not 0.0 < rare <= 1.0:
        raise UserError(f"rare is {rare}; it must be above 0 and at most 1")
    tops = draw_smoothness(clients, mean, variance, seed)
    holders = draw_holders(clients, features, rare, seed)
    matrix, targets = np.zeros((clients, rows, features)), np.zeros((clients, rows))
    for client, top in enumerate(tops):
        rng = numpy_stream(seed, "least squares", "client", client)
        own = holders[client]
        left, values, right = np.linalg.svd(rng.random((rows, own.sum())), full_matrices=False)
        # the Hessian of (1/m) ||A x - b||^2 is (2/m) A^T A
        eigenvalues = np.linspace(top, top / CONDITION, len(values))
        part = (left * np.sqrt(eigenvalues * rows / 2)) @ right
        noise = NOISE * rng.uniform(-1, 1, rows) * math.sqrt(rows / 2)
        matrix[client][:, own] = part
        targets[client] = part.sum(axis=1) * SOLUTION + noise
    return LeastSquares(
        torch.from_numpy(matrix.reshape(-1, features)),
        torch.from_numpy(targets.reshape(-1)),
        clients,
        lam,
        own_features=rare < 1.0,
    )


def draw_smoothness(clients: int, mean: float, variance: float, seed: int = 0) -> np.ndarray:
    """L_i = c exp(s z_i), z standard normal, with s and c such that mean and variance (divided by
    n) are exactly these: (n,). They grow together with s: the same clients stay the roughest.

    Raises UserError where no positive numbers have this mean and variance: variance / mean^2 of n
    numbers is below n - 1.
    """
    if not 0.0 < mean < math.inf or not 0.0 <= variance < math.inf:
        raise UserError(
            f"the mean must be above 0 and the variance at least 0, got {mean} and {variance}"
        )
    wanted = variance / mean**2
    if wanted > 0.99 * (clients - 1):
        raise UserError(
            f"{clients} positive numbers of mean {mean:g} cannot have variance {variance:g}; "
            f"use at most {0.99 * (clients - 1) * mean**2:g}, or more clients"
        )
    if wanted == 0.0:
        return np.full(clients, float(mean))
    z = numpy_stream(seed, "least squares", "smoothness").standard_normal(clients)

    def shape(s: float) -> np.ndarray:
        raw = np.exp(s * (z - z.max()))
        scaled: np.ndarray = raw / raw.mean()
        return scaled

    low, high = 0.0, 1.0
    while shape(high).var() < wanted:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if shape(middle).var() < wanted else (low, middle)
    return mean * shape(high)


def draw_holders(clients: int, features: int, rare: float, seed: int = 0) -> np.ndarray:
    """Which client has which feature, (n, d) bool: each feature goes to ceil(rare n) random
    clients, all drawn again while a client has none. Raises UserError where that does not end."""
    count = math.ceil(rare * clients - 1e-9)
    if count == clients:
        return np.ones((clients, features), bool)
    for attempt in range(_TRIES):
        rng = numpy_stream(seed, "least squares", "features", attempt)
        ranks = rng.random((clients, features)).argsort(axis=0).argsort(axis=0)
        holders: np.ndarray = ranks < count
        if holders.any(axis=1).all():
            return holders
    raise UserError(
        f"{features} features at {count} of {clients} clients each leave a client without any; "
        "use more features, or a larger share"
    )
