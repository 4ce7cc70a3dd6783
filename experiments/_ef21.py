"""EF21 and EF21-W in float64, all clients at once: one row of ``(n, d)`` arrays each.

The rules are those of ``tacit.memory``; here values are not rounded to float32, so that gradient
norms may go to 1e-30, and gradients come from the entries of a data set that are not zero. Bits are
lengths of messages that the library's Top-1 makes, header included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from tacit.compressors import Identity, TopK
from tacit.compressors.message import varint
from tacit.rng import numpy_stream
from tacit.tasks.smooth import Objective


class Gradients:
    """The gradients of an objective's clients, ``(n, d)``; ``own_features`` as it was made with."""

    def __init__(self, objective: Objective, own_features: bool = False) -> None:
        self.objective, clients = objective, objective.clients
        self.n, self.d, self.sizes = objective.n, objective.d, clients.sizes.numpy()
        rows, columns = (index.numpy() for index in clients.matrix.nonzero(as_tuple=True))
        self._rows, self._columns = rows, columns
        self._values = clients.matrix.numpy()[rows, columns]
        self._owner = np.repeat(np.arange(self.n), self.sizes)
        self._cells = self._owner[rows] * self.d + columns
        self._counted = clients.supports.numpy() if own_features else True

    def __call__(self, x: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
        """At x ``(d,)``. ``kept``: weights of the rows ``(m,)``, of mean 1 over each client's."""
        terms = self._values * x[self._columns]
        predictions = np.bincount(self._rows, terms, minlength=len(self._owner))
        objective = self.objective
        slope = objective.slope(torch.from_numpy(predictions), objective.clients.targets).numpy()
        slope = slope / self.sizes[self._owner] if kept is None else slope * kept / self._large()
        fit = np.bincount(self._cells, self._values * slope[self._rows], minlength=self.n * self.d)
        regular = 2 * objective.lam * x / np.square(1 + x * x) * self._counted
        return fit.reshape(self.n, self.d) + regular

    def minibatch(self, part: float, rng: np.random.Generator) -> np.ndarray:
        """``kept`` of ceil(part m_i) rows of each client, without replacement."""
        order = np.argsort(self._owner + rng.random(len(self._owner)))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        counts = np.ceil(part * self.sizes)[self._owner]
        kept = np.zeros(len(order))
        kept[order] = np.where(rank < counts, self._large() / counts, 0.0)
        return kept

    def _large(self) -> np.ndarray:
        return self.sizes[self._owner]


class Lengths:
    """Bits of a Top-1 message of ``d`` numbers: ``bits[j]`` and, without its header,
    ``payload[j]`` if entry j is sent, and entry d of each if all are zero. ``whole``: of the
    gradient that a client starts with, uncompressed."""

    def __init__(self, d: int, values: str) -> None:
        compressor, one = TopK(k=1, values=values), torch.zeros(d)
        sizes = []
        for j in range(d + 1):
            one[:] = 0
            one[j : j + 1] = 1.0
            sizes.append(len(compressor.encode(one, "step", 0)))
        self.bits = 8 * np.array(sizes)
        self.payload = self.bits - 8 * (7 + len(varint(d)) + 1)
        self.whole = 8 * len(Identity().encode(torch.ones(d)))


@dataclass(frozen=True)
class Method:
    """``weighted``: EF21-W. ``values``: how Top-1 writes the value, "fp32" (here: exactly) or
    "natural". ``grid``: they are rounded to multiples of this part of the largest entry at the
    start, in the root mean square over clients. ``present``: the probability that a client takes
    part. ``batch``: part of a client's rows in a minibatch."""

    name: str
    step: float
    weighted: bool = False
    values: str = "fp32"
    grid: float = 0.0
    present: float = 1.0
    batch: float = 1.0


class Trace(NamedTuple):
    """Of each iterate ``x_t``, t from 0: ``||grad f(x_t)||^2``, and the bits that clients have sent
    to make it, with and without headers, ``(T + 1,)``. ``points``: some iterates, ``(P, d)``."""

    norms: np.ndarray
    bits: np.ndarray
    payload: np.ndarray
    points: np.ndarray


def run(
    gradients: Gradients, method: Method, rounds: int, seed: int = 0, points: int = 50
) -> Trace:
    """``rounds`` steps of ``method`` from x = 0. The first direction is the gradient, sent whole.
    Draws depend on seed, round and purpose alone."""
    n, d = gradients.n, gradients.d
    constants = gradients.objective.client_smoothness.numpy()
    weights = constants / constants.sum() if method.weighted else np.full(n, 1 / n)
    scale = 1 / (n * weights[:, None])
    lengths, everyone = Lengths(d, method.values), np.arange(n)
    x = np.zeros(d)
    exact = gradients(x)
    believed = scale * _seen(gradients, method, x, exact, seed, 0)  # g_i, (n, d)
    direction = weights @ believed
    width = method.grid * float(np.sqrt(np.square(np.abs(exact).max(axis=1)).mean()))
    norms, bits, payload = [_square(exact)], [0], [0]
    sent, loaded = n * lengths.whole, 32 * n * d
    kept = [x]
    for t in range(1, rounds + 1):
        x = x - method.step * direction
        exact = gradients(x)
        norms.append(_square(exact))
        bits.append(sent)
        payload.append(loaded)
        if t % max(1, rounds // points) == 0:
            kept.append(x)
        change = scale * _seen(gradients, method, x, exact, seed, t) - believed
        # what is sent: of each client one place and one value; the first of equal ones
        places = np.abs(change).argmax(axis=1)
        values = change[everyone, places]
        if method.values == "natural":
            values = natural(values, numpy_stream(seed, "ef21", "natural", t))
        if width:
            values = width * np.round(values / width)
        here = everyone
        if method.present < 1:
            here = np.flatnonzero(numpy_stream(seed, "ef21", "here", t).random(n) < method.present)
            places, values = places[here], values[here]
        believed[here, places] += values
        direction += np.bincount(places, weights[here] * values, minlength=d)
        slots = np.where(values == 0, d, places)
        sent += int(lengths.bits[slots].sum())
        loaded += int(lengths.payload[slots].sum())
    return Trace(np.array(norms), np.array(bits), np.array(payload), np.array(kept))


def natural(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random one of the two powers of two next to each value, so that the mean is the value."""
    mantissas, exponents = np.frexp(values)  # in [1/2, 1)
    up = rng.random(len(values)) < 2 * np.abs(mantissas) - 1
    return np.where(values == 0, 0.0, np.sign(values) * np.ldexp(0.5, exponents + up))


def _seen(
    gradients: Gradients, method: Method, x: np.ndarray, exact: np.ndarray, seed: int, t: int
) -> np.ndarray:
    """The gradients that clients see at x."""
    if method.batch >= 1:
        return exact
    return gradients(x, gradients.minibatch(method.batch, numpy_stream(seed, "ef21", "rows", t)))


def _square(gradients: np.ndarray) -> float:
    mean = gradients.mean(axis=0)
    return float(mean @ mean)
