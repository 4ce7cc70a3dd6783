"""(alpha, lambda)-reduction: does mixing with peers bring the honest models together?

H honest workers with models x_i mix them into y_i. With Gamma(x) the mean squared distance of the
honest models from their mean, a rule has the property (Farhadkhani et al., "Robust Collaborative
Learning with Linear Gradient Overhead", ICML 2023) if for all models and whatever the others send

    Gamma(y) <= alpha Gamma(x), alpha < 1,   and   |mean(y) - mean(x)|^2 <= lambda Gamma(x).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tacit.aggregators.guarantees import inputs
from tacit.aggregators.guarantees.inputs import Array, Draws
from tacit.aggregators.nearest import NNA
from tacit.aggregators.robust import Robust
from tacit.errors import UserError
from tacit.rng import numpy_stream

#: How much nearer than an honest vector "just nearer" is.
_JUST = 1 - 1e-9


@dataclass(frozen=True)
class Reduction:
    """What was found, over ``draws`` draws. ``alpha``, ``bias``: the largest Gamma(y) / Gamma(x)
    and |mean(y) - mean(x)|^2 / Gamma(x), so lower bounds of alpha and lambda; ``families``: those
    of each kind of models and attack.

    ``invariant``, of NNA alone: the largest part of what no input exceeds,
    ``|y_i - h_i| <= 2 f / (n - 2 f) max_j |x_j - x_i|`` with h_i the mean of the honest vectors
    that worker i has received, and j among these. ``quoted``, of NNA for n > 11 f: alpha, quoted
    from memory of the paper and not verified: to be printed beside what was found, not to be relied
    on.
    """

    n: int
    f: int
    draws: int
    alpha: float
    alpha_family: str
    bias: float
    bias_family: str
    families: dict[str, tuple[float, float]]
    invariant: float | None
    quoted: float | None


def reduction(
    rule: Robust,
    n: int,
    f: int,
    *,
    draws: int = 1000,
    seed: int = 0,
    dimensions: Sequence[int] = (1, 2, 100),
) -> Reduction:
    """The worst mixing among n workers, f of them bad, over random models and attacks.

    Each honest worker stops waiting at n - f vectors and so, at worst, has its own, those of
    n - 2 f - 1 other honest workers, drawn afresh, and all f bad ones. Of every draw one kind of
    models, one attack and one of ``dimensions``, in turn. An attack is tried with all its
    strengths, and where each victim is sent its own vector, with the worst of them for each.
    Deterministic in ``seed``.

    UserError for a rule that refuses n - f vectors.
    """
    if f < 1 or draws < 1:
        raise UserError(f"reduction needs f >= 1 and draws >= 1, not {f} and {draws}")
    rule.check(n - f)
    if rule.stands(n - f) < f:
        raise UserError(f"{rule.name} stands {rule.stands(n - f)} bad senders, not f={f}")
    kinds = list(itertools.product(_MODELS, _ATTACKS, dimensions))
    families: dict[str, tuple[float, float]] = {}
    limit = 0.0
    for k in range(draws):
        models, attack, d = kinds[k % len(kinds)]
        stream = numpy_stream(seed, "reduction", n, f, k)
        mixing = _Mixing(rule, n, f, _MODELS[models](stream, n - f, d), stream)
        name = f"{models}, {attack}"
        alpha, bias = families.get(name, (0.0, 0.0))
        for mixed in _ATTACKS[attack](mixing):
            found = mixing.judged(mixed)
            alpha, bias = max(alpha, found[0]), max(bias, found[1])
        families[name] = alpha, bias
        limit = max(limit, mixing.limit)
    by_alpha = max(families, key=lambda name: families[name][0])
    by_bias = max(families, key=lambda name: families[name][1])
    delta = n / f - 11
    nna = isinstance(rule, NNA)
    return Reduction(
        n,
        f,
        draws,
        families[by_alpha][0],
        by_alpha,
        families[by_bias][1],
        by_bias,
        families,
        limit if nna else None,
        9.88 / (9.88 + delta) if nna and delta > 0 else None,
    )


@dataclass
class _Mixing:
    """One draw: honest models ``(H, d)``, and who receives what."""

    rule: Robust
    n: int
    f: int
    honest: Array
    stream: Draws
    #: The largest part of the invariant's bound that was reached.
    limit: float = 0.0
    #: Of each victim, among the honest vectors and behind them one that all f send it: what it has,
    #: its own first. Of the honest ones: their mean, and their distances, ascending.
    held: list[Array] = field(default_factory=list)
    fair: list[Array] = field(default_factory=list)
    distances: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.honest)
        self.mean = self.honest.mean(0)
        self.gamma = float(np.square(self.honest - self.mean).sum(1).mean())
        for i in range(count):
            others = np.delete(np.arange(count), i)
            drawn = self.stream.choice(others, self.n - 2 * self.f - 1, replace=False)
            rows = self.honest[np.concatenate([[i], drawn])]
            # equal distances favour those that come first
            self.held.append(np.concatenate([[i], np.full(self.f, count + i), drawn]))
            self.fair.append(rows.mean(0))
            self.distances.append(np.sort(np.linalg.norm(rows[1:] - rows[0], axis=1)))

    def mix(self, sent: Array) -> Array:
        """What the honest workers make of ``sent (H, d)``: to each one vector, by all f."""
        rows = torch.from_numpy(np.concatenate([self.honest, sent]))
        out: Array = self.rule.each(rows, self.held, [0] * len(sent)).numpy()
        for mixed, fair, distances in zip(out, self.fair, self.distances, strict=True):
            bound = 2 * self.f / (self.n - 2 * self.f) * float(distances[-1])
            if bound > 0:
                self.limit = max(self.limit, float(np.linalg.norm(mixed - fair)) / bound)
        return out

    def judged(self, mixed: Array) -> tuple[float, float]:
        """Of ``mixed (H, d)``, alpha and lambda."""
        mean = mixed.mean(0)
        gamma = float(np.square(mixed - mean).sum(1).mean())
        return gamma / self.gamma, float(np.square(mean - self.mean).sum()) / self.gamma

    def everybody(self, vector: Array) -> Array:
        return self.mix(np.repeat(vector[None], len(self.honest), axis=0))

    def pushed(self, directions: Array) -> Iterator[Array]:
        """Each victim is sent a vector in its own direction ``(H, d)``: just nearer than one of the
        f + 1 farthest honest vectors, or 10 times as far as the farthest. Then the best for each:
        the one whose result lies farthest in that direction."""
        towards = directions / np.maximum(np.linalg.norm(directions, axis=1), 1e-300)[:, None]
        strengths = [
            np.array([distances[max(0, len(distances) - k)] for distances in self.distances])
            for k in range(1, self.f + 2)
        ]
        lengths = [_JUST * strength for strength in strengths] + [10 * strengths[0]]
        results = [self.mix(self.honest + length[:, None] * towards) for length in lengths]
        yield from results
        far = np.array([((result - self.mean) * towards).sum(1) for result in results])
        yield np.stack(results)[np.argmax(far, axis=0), np.arange(len(self.honest))]


def _negated(mixing: _Mixing) -> Iterator[Array]:
    yield mixing.everybody(inputs.negated_mean(mixing.honest))


def _shifted(mixing: _Mixing) -> Iterator[Array]:
    for vector in inputs.shifted_means(mixing.honest):
        yield mixing.everybody(vector)


def _copies(mixing: _Mixing) -> Iterator[Array]:
    away = np.square(mixing.honest - mixing.mean).sum(1)
    yield mixing.everybody(mixing.honest[int(np.argmax(away))])


def _away(mixing: _Mixing) -> Iterator[Array]:
    return mixing.pushed(mixing.honest - mixing.mean)


def _one_way(mixing: _Mixing) -> Iterator[Array]:
    _, _, axes = np.linalg.svd(mixing.honest - mixing.mean, full_matrices=False)
    return mixing.pushed(np.repeat(axes[:1], len(mixing.honest), axis=0))


_MODELS: dict[str, Callable[[Draws, int, int], Array]] = {
    "gaussian": inputs.gaussian_models,
    "two groups": inputs.grouped_models,
    "uneven": inputs.uneven_models,
}
_ATTACKS: dict[str, Callable[[_Mixing], Iterator[Array]]] = {
    "negated mean": _negated,
    "shifted mean": _shifted,
    "copies": _copies,
    "each away from the mean": _away,
    "all one way": _one_way,
}
