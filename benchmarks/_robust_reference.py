"""The rules once more, in float64 and as plainly as they are defined, to judge arithmetic by."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def reference(name: str, rows: Array, f: int) -> Array:
    """``(n, d)`` float64 to ``(d,)``, or to the new rows."""
    return REFERENCES[name](rows, f)


def matched_buckets(rows: Array, buckets: Array) -> Array:
    """The means of two rows that ``buckets`` must be, whichever was drawn: each row once."""
    pairs = list(itertools.combinations(range(len(rows)), 2))
    some = rows[:, :100]
    means = np.array([(some[i] + some[j]) / 2 for i, j in pairs])
    found = [pairs[np.argmin(np.square(means - bucket[:100]).sum(1))] for bucket in buckets]
    if sorted(i for pair in found for i in pair) != list(range(len(rows))):
        raise AssertionError(f"buckets of rows {found}: not each row once")
    return np.array([(rows[i] + rows[j]) / 2 for i, j in found])


def chosen(rows: Array, mean: Array) -> list[int]:
    """Of which rows ``mean (d,)`` is the mean: the rows, seen from the first, are independent, so
    their weights follow; those of more than half of 1 / n count."""
    seen = rows[1:] - rows[0]
    weights = np.linalg.solve(seen @ seen.T, seen @ (mean - rows[0]))
    weights = np.concatenate([[1 - weights.sum()], weights])
    return np.flatnonzero(weights > 0.5 / len(rows)).tolist()


def distances(rows: Array) -> Array:
    return np.array([np.square(rows - row).sum(1) for row in rows])


def _krum(rows: Array, f: int, chosen: int) -> Array:
    scores = np.sort(distances(rows), axis=1)[:, 1 : len(rows) - f].mean(1)
    return rows[np.argsort(scores, kind="stable")[:chosen]].mean(0)


def _meamed(rows: Array, f: int) -> Array:
    away = np.abs(rows - np.median(rows, axis=0))
    nearest = np.argsort(away, axis=0, kind="stable")[: len(rows) - f]
    return np.take_along_axis(rows, nearest, axis=0).mean(0)


def _geometric_median(rows: Array, f: int) -> Array:
    point = rows.mean(0)
    for _ in range(300):
        weights = 1 / np.sqrt(np.square(rows - point).sum(1))
        point = weights @ rows / weights.sum()
    return point


def _centered_clipping(rows: Array, f: int) -> Array:
    return _clipped(rows, 100.0).mean(0)


def _subsets(n: int, f: int) -> Iterator[list[int]]:
    return (list(subset) for subset in itertools.combinations(range(n), n - f))


def _mda(rows: Array, f: int) -> Array:
    squared = distances(rows)
    return rows[min(_subsets(len(rows), f), key=lambda s: squared[np.ix_(s, s)].max())].mean(0)


def _smea(rows: Array, f: int) -> Array:
    inner = rows @ rows.T

    def top(subset: list[int]) -> float:
        m = len(subset)
        centring = np.eye(m) - 1 / m
        return float(np.linalg.eigvalsh(centring @ inner[np.ix_(subset, subset)] @ centring)[-1])

    return rows[min(_subsets(len(rows), f), key=top)].mean(0)


def _caf(rows: Array, f: int) -> Array:
    left, least, best = np.ones(len(rows)), np.inf, rows.mean(0)
    while left.sum() > len(rows) - 2 * f:
        mean = left @ rows / left.sum()
        away = rows - mean
        scaled = np.sqrt(left / left.sum())[:, None] * away
        _, values, axes = np.linalg.svd(scaled, full_matrices=False)
        if values[0] ** 2 < least:
            least, best = values[0] ** 2, mean
        outlying = np.square(away @ axes[0])
        left = left * (1 - outlying / outlying[left > 0].max())
        left[left < 1e-12] = 0
    return best


def _nna(rows: Array, f: int) -> Array:
    return rows[nearest(rows, f)].mean(0)


def nearest(rows: Array, f: int) -> npt.NDArray[np.intp]:
    """The n - f nearest to the first row, in ascending order of index."""
    away = np.square(rows - rows[0]).sum(1)
    return np.sort(np.argsort(away, kind="stable")[: len(rows) - f])


def _nnm(rows: Array, f: int) -> Array:
    order = np.argsort(distances(rows), axis=1, kind="stable")[:, : len(rows) - f]
    return np.array([rows[chosen].mean(0) for chosen in order])


def _clipped(rows: Array, norm: float) -> Array:
    norms = np.linalg.norm(rows, axis=1)
    return rows * np.minimum(1, norm / norms)[:, None]


def _arc(rows: Array, f: int) -> Array:
    n = len(rows)
    shortened = 2 * f * (n - f) // n
    return _clipped(rows, float(np.sort(np.linalg.norm(rows, axis=1))[n - shortened - 1]))


REFERENCES: dict[str, Callable[[Array, int], Array]] = {
    "mean": lambda rows, f: rows.mean(0),
    "median": lambda rows, f: np.median(rows, axis=0),
    "trimmed_mean": lambda rows, f: np.sort(rows, axis=0)[f : len(rows) - f].mean(0),
    "meamed": _meamed,
    "geometric_median": _geometric_median,
    "krum": lambda rows, f: _krum(rows, f, 1),
    "multi_krum": lambda rows, f: _krum(rows, f, len(rows) - f),
    "centered_clipping": _centered_clipping,
    "mda": _mda,
    "nna": _nna,
    "caf": _caf,
    "smea": _smea,
    "nnm": _nnm,
    "clipping": lambda rows, f: _clipped(rows, 2.0),
    "arc": _arc,
}
