"""Sorting networks, pruned to the ranks that a rule needs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """What a coordinate-wise rule does with the n values of a coordinate in ascending order.

    It averages ``count`` of them: those of ranks ``low <= rank < high``, and of each of the pairs
    ``(j, j + count)``, ``begin <= j < end``, the one nearer to the median; the lower where both are
    as near. ``first``, ``second``: the comparators, in order; each puts the smaller number first.
    """

    n: int
    count: int
    low: int
    high: int
    begin: int
    end: int
    first: Array
    second: Array


@functools.lru_cache(maxsize=256)
def between(n: int, low: int, high: int) -> Plan:
    """The mean of the ranks from ``low`` up to, not with, ``high``."""
    ends: list[int | None] = [(rank >= high) - (rank < low) for rank in range(n)]
    first, second = _pruned(merge_exchange(n), ends)
    return Plan(n, high - low, low, high, 0, 0, first, second)


@functools.lru_cache(maxsize=256)
def nearest(n: int, count: int) -> Plan:
    """The mean of the ``count`` values nearest to the median.

    They are the smallest of two ascending lists of distances, ``a`` downwards and ``b`` upwards
    from the middle, and of two sorted lists the p smallest are ``min(a[k], b[p - 1 - k])``, the
    first half of a bitonic merge. With p = ``count`` those are ranks ``count`` apart. Where one of
    the two does not exist, the other is always averaged.
    """
    half = n // 2
    if count > half:
        low, high, begin, end = n - count, count, 0, n - count
    else:
        low, high, begin, end = half, half, half - count, half
    ordered = {*range(begin, end), *range(begin + count, end + count), (n - 1) // 2, half}
    ends = [None if rank in ordered else (rank >= high) - (rank < low) for rank in range(n)]
    first, second = _pruned(merge_exchange(n), ends)
    return Plan(n, count, low, high, begin, end, first, second)


def merge_exchange(n: int) -> list[tuple[int, int]]:
    """Batcher's sorting network for n values (Knuth, The Art of Computer Programming 3, 5.2.2,
    Algorithm M): comparators ``(i, j)``, i < j, to be applied in order."""
    comparators = []
    p = top = 1 << max(0, (n - 1).bit_length() - 1)
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            comparators += [(i, i + distance) for i in range(n - distance) if i & p == r]
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2
    return comparators


def _pruned(comparators: list[tuple[int, int]], ends: list[int | None]) -> tuple[Array, Array]:
    """The comparators whose work is seen. ``ends``: the class of each rank; the order within a
    class does not matter; None: this one does. Where both wires of a comparator are of the same
    class from there on, an exchange changes only the order within it."""
    label, kept = list(ends), []
    for i, j in reversed(comparators):
        if label[i] is not None and label[i] == label[j]:
            continue
        label[i] = label[j] = None
        kept.append((i, j))
    pairs = np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()
