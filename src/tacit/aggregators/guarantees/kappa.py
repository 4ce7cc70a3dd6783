"""(f, kappa)-robustness: how far can a rule be from the mean of n - f vectors, in their variance?

A rule F is (f, kappa)-robust (Allouah et al., "Fixing by Mixing", AISTATS 2023) if for all vectors
x and all sets S of n - f of them

    |F(x) - mean_S|^2  <=  kappa / |S|  sum_{i in S} |x_i - mean_S|^2.

No rule has a kappa below f / (n - 2 f).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tacit.aggregators.base import Aggregator
from tacit.aggregators.coordinatewise import Median, TrimmedMean
from tacit.aggregators.geometric import GeometricMedian
from tacit.aggregators.guarantees import inputs
from tacit.aggregators.guarantees.inputs import Array, Draws
from tacit.aggregators.krum import Krum
from tacit.aggregators.nearest import PeerRule
from tacit.aggregators.preaggregators import NNM
from tacit.aggregators.robust import Robust
from tacit.errors import UserError
from tacit.rng import numpy_stream

#: The family of the lower bound.
LINE = "0 and 1 on a line"
#: All sets S are looked at up to this n.
ALL_SETS = 14
#: Beyond, so many random ones.
RANDOM_SETS = 300
# Squared lengths below this part of the largest are rounding.
_ROUNDING = 1e-24


@dataclass(frozen=True)
class Kappa:
    """What was found. ``found``: the largest ratio, so a lower bound of kappa; inf where vectors of
    S are all the same and the result is another. ``family``: the kind of input that attains it;
    ``rows (n, d)``: that input. ``families``: the largest ratio of each kind. ``line``: that of
    n - f zeros and f ones. ``lower``: f / (n - 2 f). ``quoted``: see :func:`quoted`."""

    n: int
    f: int
    found: float
    family: str
    rows: Array
    families: dict[str, float]
    line: float
    lower: float
    quoted: float | None


def kappa(
    rule: Aggregator,
    n: int,
    f: int,
    *,
    seed: int = 0,
    dimensions: Sequence[int] = (1, 2, 100),
    draws: int = 4,
    steps: int = 100,
) -> Kappa:
    """The largest ratio that ``rule`` has on the inputs below, in float64.

    For n up to :data:`ALL_SETS` with all sets S; beyond, with the honest set, the n - f nearest to
    each vector, and :data:`RANDOM_SETS` others. Inputs: 0 and 1 on a line; in each of
    ``dimensions``, ``draws`` times, Gaussian vectors with f that attack, and two clusters; the
    corners of a simplex; and random ascent of ``steps`` steps, on the f vectors from ``draws``
    starts, and on all vectors from the worst input of each dimension. Deterministic in ``seed``.

    UserError for a rule among peers, for one that refuses n vectors or stands fewer than f.
    """
    if isinstance(rule, PeerRule):
        raise UserError(f"{rule.name} is a rule among peers; reduction() is for those")
    if not 1 <= f < n / 2:
        raise UserError(f"kappa is about 1 <= f < n / 2, not f={f} of n={n}")
    if isinstance(rule, Robust):
        rule.check(n)
        if rule.stands(n) < f:
            raise UserError(f"{rule.name} stands {rule.stands(n)} of {n} senders, not f={f}")
    stream = numpy_stream(seed, "kappa", n, f)
    judge = _Judge(rule, n, f, stream)
    kept = _Kept()
    kept.see(LINE, judge(inputs.line(n, f)), inputs.line(n, f))
    for name, rows in _fixed(stream, n, f, dimensions, draws):
        kept.see(name, judge(rows), rows)
    for d in dimensions:
        for _ in range(draws):
            start = stream.standard_normal((n, d))
            start[n - f :] *= 3
            kept.see("ascent", *_ascent(judge, start, f, steps, stream))
    for _, start in list(kept.worst.values()):
        kept.see("ascent of all vectors", *_ascent(judge, start, n, draws * steps, stream))
    found, rows, family = kept.best
    lower, line = f / (n - 2 * f), kept.families[LINE]
    return Kappa(n, f, found, family, rows, kept.families, line, lower, quoted(rule, n, f))


def quoted(rule: Aggregator, n: int, f: int) -> float | None:
    """A bound of kappa for this rule with this f, None where there is none. Quoted from memory of
    Allouah et al., AISTATS 2023, and not verified: to be printed beside what was found, not to be
    relied on."""
    ratio = f / (n - 2 * f)
    if isinstance(rule, Robust) and rule.f not in (None, f):
        return None
    if isinstance(rule, NNM):
        then = quoted(rule.then, n, f)
        return None if then is None else 8 * f / (n - f) * (1 + then)
    if isinstance(rule, TrimmedMean):
        return 6 * ratio * (1 + ratio)
    if type(rule) is Krum:
        return 6 * (1 + ratio)
    if isinstance(rule, Median | GeometricMedian):
        return 4 * (1 + ratio) ** 2
    return None


def _fixed(
    stream: Draws, n: int, f: int, dimensions: Sequence[int], draws: int
) -> Iterator[tuple[str, Array]]:
    yield "simplex", inputs.simplex(n, f)
    for d in dimensions:
        for _ in range(draws):
            honest = stream.standard_normal((n - f, d))
            yield "negated mean", inputs.with_copies(honest, inputs.negated_mean(honest), f)
            for vector in inputs.shifted_means(honest):
                yield "shifted mean", inputs.with_copies(honest, vector, f)
            farthest = honest[int(np.argmax(np.square(honest - honest.mean(0)).sum(1)))]
            yield "copies", inputs.with_copies(honest, farthest, f)
            for gap in inputs.GAPS:
                yield "two clusters", inputs.clusters(stream, n, f, d, gap)


class _Kept:
    """The largest ratio of each family, and the worst input of all and of each dimension."""

    def __init__(self) -> None:
        self.families: dict[str, float] = {}
        self.worst: dict[int, tuple[float, Array]] = {}
        self.best: tuple[float, Array, str] = -1.0, np.empty((0, 0)), ""

    def see(self, family: str, value: float, rows: Array) -> None:
        self.families[family] = max(self.families.get(family, 0.0), value)
        d = rows.shape[1]
        if d not in self.worst or value > self.worst[d][0]:
            self.worst[d] = value, rows
        if value > self.best[0] * (1 + 1e-9) or not self.best[2]:  # more than by rounding
            self.best = value, rows, family


class _Judge:
    """The largest ratio over the sets S."""

    def __init__(self, rule: Aggregator, n: int, f: int, stream: Draws) -> None:
        self.rule, self.size = rule, n - f
        if n <= ALL_SETS:
            chosen: list[Sequence[int] | Array] = list(itertools.combinations(range(n), n - f))
        else:
            chosen = [range(n - f)]
            chosen += [stream.permutation(n)[: n - f] for _ in range(RANDOM_SETS)]
        self.sets = _masks(n, chosen)
        self.all = n <= ALL_SETS

    def __call__(self, rows: Array) -> float:
        result = self.rule(torch.from_numpy(np.ascontiguousarray(rows))).numpy()
        away = rows - result
        gram = away @ away.T
        norms = np.diagonal(gram)
        sets = self.sets
        if not self.all:
            apart = norms[:, None] + norms - 2 * gram
            nearest = np.argsort(apart, axis=1, kind="stable")[:, : self.size]
            sets = np.concatenate([sets, _masks(len(rows), list(nearest))])
        rounding = _ROUNDING * norms.max()
        bias = ((sets @ gram) * sets).sum(1) / self.size**2
        second = sets @ norms / self.size
        ratios = bias / np.maximum(second - bias, np.maximum(1e-9 * second, rounding) + 1e-300)
        ratios[bias <= rounding] = 0
        # with the variance found directly, where a difference of squares would lose digits
        chosen = away[sets[int(np.argmax(ratios))] > 0]
        centre = chosen.mean(0)
        variance = float(np.square(chosen - centre).sum(1).mean())
        squared = float(centre @ centre)
        if squared <= rounding:
            return 0.0
        return squared / variance if variance > rounding else math.inf


def _masks(n: int, chosen: Sequence[Sequence[int] | Array]) -> Array:
    """Sets of indices as rows of 0 and 1."""
    masks = np.zeros((len(chosen), n))
    for mask, indices in zip(masks, chosen, strict=True):
        mask[np.asarray(indices)] = 1
    return masks


def _ascent(
    judge: _Judge, rows: Array, moving: int, steps: int, stream: Draws
) -> tuple[float, Array]:
    """Random steps of the last ``moving`` vectors, all or one of them; those that help are kept,
    and steps become longer when they do and shorter when they do not."""
    value, n = judge(rows), len(rows)
    length = 0.3 * float(rows.std()) or 0.3
    for step in range(steps):
        if not math.isfinite(value):
            break
        new = rows.copy()
        some = np.arange(n - moving, n) if step % 2 else stream.integers(n - moving, n, size=1)
        new[some] += length * stream.standard_normal((len(some), rows.shape[1]))
        found = judge(new)
        if found > value:
            value, rows, length = found, new, 1.6 * length
        else:
            length *= 0.92
    return value, rows
