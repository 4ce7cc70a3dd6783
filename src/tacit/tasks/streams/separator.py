"""A stream of random signs, labelled by a random hyperplane."""

from __future__ import annotations

import functools

import numpy as np

from tacit.calls import Value
from tacit.rng import numpy_stream
from tacit.tasks.streams.base import StreamFactory
from tacit.tasks.streams.bits import BITS, SCALE, cuts
from tacit.tasks.streams.drift import When
from tacit.tasks.streams.generated import Generated, Key
from tacit.tasks.streams.options import flag, number, parse_rates

FEATURES = 150


class Separator:
    """x is uniform on {-1, +1}^n and y = 1[w.x > 0], exchanged with probability ``noise`` (rounded
    to a multiple of 2^-16); w (n,) float32 is standard normal, rounded to multiples of 2^-16.

    With such w, and |w_1| + ... + |w_n| < 256, w.x has no rounding error in single precision. So
    labels do not depend on how many samples are made together.
    """

    def __init__(self, rng: np.random.Generator, noise: float) -> None:
        self.w = (np.rint(rng.standard_normal(FEATURES) * SCALE) / SCALE).astype(np.float32)
        self._cut = cuts(np.array(noise))

    def sample(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, features) of -1 and +1, float32, and classes (n,) 0 or 1, int64."""
        signs = np.ascontiguousarray(bits[:, 1:]).view(np.uint8)
        inputs = np.unpackbits(signs, axis=1, count=FEATURES).astype(np.float32)
        inputs *= 2.0
        inputs -= 1.0
        flipped = bits[:, 0] < self._cut
        return inputs, ((inputs @ self.w > 0) ^ flipped).astype(np.int64)


def separator(
    drift: float = 0.001,
    at: Value = "",
    local: bool = False,
    noise: float = 0.05,
    rates: Value = "1",
) -> StreamFactory:
    """Samples of 150 random signs, labelled by a random hyperplane.

    drift, at: when a new hyperplane is drawn: with this probability at each round, or at these
               rounds ("500/1000"; then ``drift`` does not count).
    local:     every worker drifts by itself, to hyperplanes of its own.
    noise:     the probability that a label is exchanged, at most 0.5; with 0 the stream is
               realisable.
    rates:     samples of a worker in a round, in batches: "1/2/4" for workers 0, 1, 2, 0, ...
    Raises UserError for a bad option.
    """
    noise, local = number("noise", noise, 0.0, 0.5), flag("local", local)
    return functools.partial(_stream, noise, When.parse(drift, at), local, parse_rates(rates))


def _stream(
    noise: float,
    when: When,
    local: bool,
    rates: tuple[int, ...],
    workers: int,
    batch_size: int,
    seed: int,
) -> Generated[Separator]:
    def draw(key: Key) -> Separator:
        return Separator(numpy_stream(seed, "stream", "concept", *key), noise)

    width = 1 + -(-FEATURES // (8 * BITS.itemsize))
    return Generated(draw, width, when, local, rates, workers, batch_size, seed)
