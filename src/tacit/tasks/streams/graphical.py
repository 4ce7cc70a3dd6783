"""A stream from a random graphical model: class, hidden variables, observed ones.

After Bshouty, Long, "Linear Classifiers are Nearly Optimal When Hidden Variables Have Diverse
Effects", Machine Learning 86 (2012) 209-231, and the concept-drift experiments of Kamp et al.,
"Efficient Decentralized Deep Learning by Dynamic Model Averaging", ECML PKDD 2018. Their sizes and
parameter laws are not known; those below are ours.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tacit.calls import Value
from tacit.compiled import compiled_words
from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.tasks.streams.base import StreamFactory
from tacit.tasks.streams.bits import SCALE, cuts
from tacit.tasks.streams.drift import When
from tacit.tasks.streams.generated import Generated, Key
from tacit.tasks.streams.options import flag, number, parse_rates

FEATURES = 150
HIDDEN = 10


@dataclass(frozen=True)
class Law:
    """The distribution of concepts: ``q`` and ``rho`` are uniform on these ranges."""

    q: tuple[float, float] = (0.05, 0.30)
    rho: tuple[float, float] = (0.05, 0.30)
    features: int = FEATURES
    hidden: int = HIDDEN


@dataclass(frozen=True, eq=False)
class Graphical:
    """A tree: y is a fair coin; hidden variable h is +1 with probability 1/2 + s_h (2y - 1) q_h;
    feature j of parent h is +1 with probability 1/2 + tau_j z_h rho_j, all independent.

    parent: (n,) int64. q, s: (k,). rho, tau: (n,). s and tau are +-1; q and rho are multiples of
    2^-16 (see ``cuts``).
    """

    parent: np.ndarray
    q: np.ndarray
    s: np.ndarray
    rho: np.ndarray
    tau: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, law: Law) -> Graphical:
        """A random concept. Every hidden variable has the same number of features."""
        each = law.features // law.hidden
        return cls(
            parent=rng.permutation(np.repeat(np.arange(law.hidden), each)),
            q=cuts(0.5 + rng.uniform(*law.q, law.hidden)) / SCALE - 0.5,
            rho=cuts(0.5 + rng.uniform(*law.rho, law.features)) / SCALE - 0.5,
            tau=rng.choice([-1.0, 1.0], law.features),
            s=rng.choice([-1.0, 1.0], law.hidden),
        )

    def sample(self, bits: np.ndarray, kernel: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, features) of -1 and +1, float32, and classes (n,) 0 or 1, int64.

        ``kernel``: None uses numba where it is installed, False never, True insists. The samples
        are the same.
        """
        hidden = len(self.q)
        tree = compiled_words("tacit.tasks.streams.tree", kernel)
        if tree is not None and hidden <= tree.MOST_HIDDEN:
            made: tuple[np.ndarray, np.ndarray] = tree.sample(bits, *self._cuts, *self._masks)
            return made
        y = bits[:, :1] & 1
        agrees = bits[:, 1 : 1 + hidden] < self._cuts[0]
        z = _signs(agrees == y)
        # One term of every sum is not zero: exact, however many samples are made together.
        inputs: np.ndarray = z @ self._spread
        inputs *= _signs(bits[:, 1 + hidden :] < self._cuts[1])
        return inputs, y[:, 0].astype(np.int64)

    def log_odds(self, inputs: np.ndarray) -> np.ndarray:
        """log P(y = 1 | x) - log P(y = 0 | x), (n,) float64: positive where the Bayes rule says 1.

        Given z_h = +-1, the features of h have the log-likelihood +-A_h up to a constant that does
        not depend on z, where A_h is the sum of x_j tau_j artanh(2 rho_j).
        """
        evidence = inputs.astype(np.float64) @ self._evidence
        up, down = np.log(0.5 + self.s * self.q), np.log(0.5 - self.s * self.q)
        one = np.logaddexp(up + evidence, down - evidence)
        zero = np.logaddexp(down + evidence, up - evidence)
        odds: np.ndarray = (one - zero).sum(axis=1)
        return odds

    @cached_property
    def _cuts(self) -> tuple[np.ndarray, np.ndarray]:
        return cuts(0.5 + self.q), cuts(0.5 + self.rho)

    @cached_property
    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every feature, uint16: the bit of its parent h; and that again where s_h tau_j is +1,
        else 0. See ``tree.sample``; with s as in ``_spread``."""
        parents = (1 << self.parent).astype(np.uint16)
        follows: np.ndarray = parents * (self.s[self.parent] * self.tau > 0)
        return parents, follows

    @cached_property
    def _spread(self) -> np.ndarray:
        """(k, n): s_h tau_j where h is the parent of j, else 0. With s it is s_h z_h, which
        follows y alike for every h, that is spread over the features."""
        spread: np.ndarray = self._children * np.outer(self.s, self.tau)
        return spread.astype(np.float32)

    @cached_property
    def _evidence(self) -> np.ndarray:
        """(n, k): tau_j artanh(2 rho_j) where h is the parent of j, else 0."""
        evidence: np.ndarray = (self._children * (self.tau * np.arctanh(2 * self.rho))).T
        return evidence

    @property
    def _children(self) -> np.ndarray:
        """(k, n): whether h is the parent of j."""
        children: np.ndarray = np.arange(len(self.q))[:, None] == self.parent
        return children


def _signs(mask: np.ndarray) -> np.ndarray:
    """+1 where set, else -1, float32: a seventh of the time of looking them up."""
    signs: np.ndarray = mask.astype(np.float32)
    signs *= 2
    signs -= 1
    return signs


class GraphicalStream(Generated[Graphical]):
    """Rounds of samples of ``Graphical``, with their Bayes rule."""

    def oracle(self, worker: int, round: int) -> float:
        """The mean log-loss, in nats, of the Bayes rule on ``batch(worker, round)``."""
        inputs, targets = self.batch(worker, round)
        odds = self.concept(worker, round).log_odds(inputs.numpy())
        return float(np.logaddexp(0.0, np.where(targets.numpy() == 1, -odds, odds)).mean())


def graphical(
    drift: float = 0.001,
    at: Value = "",
    partial: bool = False,
    local: bool = False,
    q_low: float = 0.05,
    q_high: float = 0.30,
    rho_low: float = 0.05,
    rho_high: float = 0.30,
    rates: Value = "1",
) -> StreamFactory:
    """Samples of a random graphical model of 150 features and 10 hidden variables.

    drift, at:         when a new concept is drawn: with this probability at each round, or at these
                       rounds ("500/1000"; then ``drift`` does not count).
    partial:           a drift redraws only the signs of the hidden variables' dependence on y.
    local:             every worker drifts by itself, to concepts of its own.
    q_low, ..., rho_high: how strongly hidden variables depend on y, and features on hidden
                       variables: uniform on these ranges, within [0, 0.499].
    rates:             samples of a worker in a round, in batches: "1/2/4" for workers 0, 1, 2, 0
                       and so on.
    Raises UserError for a bad option.
    """
    law = Law(_range("q", q_low, q_high), _range("rho", rho_low, rho_high))
    partial, local = flag("partial", partial), flag("local", local)
    return functools.partial(
        _stream, law, When.parse(drift, at), partial, local, parse_rates(rates)
    )


def _stream(
    law: Law,
    when: When,
    partial: bool,
    local: bool,
    rates: tuple[int, ...],
    workers: int,
    batch_size: int,
    seed: int,
) -> GraphicalStream:
    def draw(key: Key) -> Graphical:
        new = Graphical.draw(numpy_stream(seed, "stream", "concept", *key), law)
        return replace(draw((0,)), s=new.s) if partial and key != (0,) else new

    width = 1 + law.hidden + law.features
    return GraphicalStream(draw, width, when, local, rates, workers, batch_size, seed)


def _range(name: str, low: float, high: float) -> tuple[float, float]:
    low = number(f"{name}_low", low, 0.0, 0.499)
    high = number(f"{name}_high", high, 0.0, 0.499)
    if low > high:
        raise UserError(f"{name}_low is {low:g}, above {name}_high, which is {high:g}")
    return low, high
