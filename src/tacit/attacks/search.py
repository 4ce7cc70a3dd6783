"""The line search with which liars choose how far to go."""

from __future__ import annotations

from collections.abc import Callable


def maximise(
    function: Callable[[float], float],
    evaluations: int = 16,
    start: float = 0.0,
    delta: float = 1.0,
    ratio: float = 0.8,
) -> float:
    """The best x >= 0 of ``evaluations`` tries, the first at ``start``.

    Expansion: as long as ``delta`` beyond the best is strictly better, ``delta`` doubles; then it
    shrinks by ``ratio``. Contraction, until the tries are used up: from the last try, ``delta``
    towards the best (halfway back as often as needed to stay at 0 or above), and ``delta`` shrinks.
    A value that is NaN is never better. (As in the published code of Farhadkhani et al., "Robust
    Collaborative Learning with Linear Gradient Overhead", ICML 2023.)
    """
    best, value = start, function(start)
    tried, expanding = start, True
    for _ in range(evaluations - 1):
        if expanding:
            tried = best + delta
        elif tried < best:
            tried += delta
        else:
            tried = _back(tried, delta)
        found = function(tried)
        better = found > value
        if better:
            best, value = tried, found
        expanding = expanding and better
        delta *= 2 if expanding else ratio
    return best


def _back(tried: float, delta: float) -> float:
    new = tried - delta
    while new < 0:
        new = (new + tried) / 2
    return new
