"""Compiled CPU passes of the robust rules (numba).

Import this module lazily: it needs the extra ``speed``. Everything here reads float32 or float64
rows whose last dimension is contiguous, on one thread, without the GIL. ``passes`` has the plain
versions.

Distances are of direct differences, not from products of rows: rows with a large common part lose
nothing. Squares are summed in the rows' own precision over :data:`PIECE` columns, in vector lanes,
and the pieces in float64. All pairs of rows share a piece while it lies in the cache, 4 x 4 rows at
a time in registers, and every pair meets the same instructions wherever its rows lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from tacit.aggregators._memory import STRIP, memory
from tacit.aggregators._sums import narrow_sum, weighted_sum
from tacit.aggregators.network import Plan
from tacit.jit import Array, jit

__all__ = ["middle_means", "narrow_sum", "squared_distances", "squared_to", "weighted_sum"]

#: Columns whose squares are summed before they join a float64 sum.
PIECE = 1024
#: Columns that are sorted together, for up to 32 rows; half as many for more, to stay in the cache.
WIDTH = 256


def squared_distances(rows: Tensor) -> Array:
    """``(n, n)`` float64."""
    n, d = rows.shape
    out = np.zeros((n, n))
    _squares(memory(rows), rows.stride(0), n, d, out)
    return out + out.T


def squared_to(rows: Tensor, point: Tensor) -> Array:
    """Squared distances of the rows from ``point``, ``(n,)`` float64."""
    n, d = rows.shape
    out = np.zeros(n)
    _to_point(memory(rows), rows.stride(0), n, d, point.contiguous().numpy(), out)
    return out


def middle_means(rows: Tensor, chosen: Array, plan: Plan, out: Tensor) -> None:
    """What ``plan`` says of each column of ``rows[chosen]``, into ``out``."""
    starts = chosen.astype(np.int64) * rows.stride(0)
    width = WIDTH if plan.n <= 32 else WIDTH // 2
    tile = np.zeros((plan.n, width), dtype=out.numpy().dtype)
    span = np.array([plan.low, plan.high, plan.begin, plan.end, plan.count], dtype=np.int64)
    _middle(memory(rows), starts, plan.first, plan.second, span, tile, out.numpy())


def _tile_piece(
    x0: Array, x1: Array, x2: Array, x3: Array, y0: Array, y1: Array, y2: Array, y3: Array
) -> Any:
    zero = x0.dtype.type(0)
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
    for c in range(x0.size):
        a0, a1, a2, a3 = x0[c], x1[c], x2[c], x3[c]
        b0, b1, b2, b3 = y0[c], y1[c], y2[c], y3[c]
        s00 += (a0 - b0) * (a0 - b0)
        s01 += (a0 - b1) * (a0 - b1)
        s02 += (a0 - b2) * (a0 - b2)
        s03 += (a0 - b3) * (a0 - b3)
        s10 += (a1 - b0) * (a1 - b0)
        s11 += (a1 - b1) * (a1 - b1)
        s12 += (a1 - b2) * (a1 - b2)
        s13 += (a1 - b3) * (a1 - b3)
        s20 += (a2 - b0) * (a2 - b0)
        s21 += (a2 - b1) * (a2 - b1)
        s22 += (a2 - b2) * (a2 - b2)
        s23 += (a2 - b3) * (a2 - b3)
        s30 += (a3 - b0) * (a3 - b0)
        s31 += (a3 - b1) * (a3 - b1)
        s32 += (a3 - b2) * (a3 - b2)
        s33 += (a3 - b3) * (a3 - b3)
    return (s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23, s30, s31, s32, s33)


# Reassociation lets the sums run in vector lanes; NaN and inf keep their meaning.
_SUMS = {"fastmath": {"reassoc", "contract"}}
_tile = jit(_tile_piece, **_SUMS)


def _squares_loop(flat: Array, stride: int, n: int, d: int, out: Array) -> None:
    for begin in range(0, d, PIECE):
        end = min(begin + PIECE, d)
        for i in range(0, n, 4):
            # the last row again where there are fewer than 4
            i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
            x0 = flat[i * stride + begin : i * stride + end]
            x1 = flat[i1 * stride + begin : i1 * stride + end]
            x2 = flat[i2 * stride + begin : i2 * stride + end]
            x3 = flat[i3 * stride + begin : i3 * stride + end]
            for j in range(i, n, 4):
                j1, j2, j3 = min(j + 1, n - 1), min(j + 2, n - 1), min(j + 3, n - 1)
                y0 = flat[j * stride + begin : j * stride + end]
                y1 = flat[j1 * stride + begin : j1 * stride + end]
                y2 = flat[j2 * stride + begin : j2 * stride + end]
                y3 = flat[j3 * stride + begin : j3 * stride + end]
                sums = _tile(x0, x1, x2, x3, y0, y1, y2, y3)
                for a in range(min(4, n - i)):
                    for b in range(min(4, n - j)):
                        if j + b > i + a:
                            out[i + a, j + b] += sums[4 * a + b]


def _four_piece(x0: Array, x1: Array, x2: Array, x3: Array, point: Array) -> Any:
    s0 = s1 = s2 = s3 = point.dtype.type(0)
    for c in range(point.size):
        y = point[c]
        s0 += (x0[c] - y) * (x0[c] - y)
        s1 += (x1[c] - y) * (x1[c] - y)
        s2 += (x2[c] - y) * (x2[c] - y)
        s3 += (x3[c] - y) * (x3[c] - y)
    return s0, s1, s2, s3


_four = jit(_four_piece, **_SUMS)


def _to_point_loop(flat: Array, stride: int, n: int, d: int, point: Array, out: Array) -> None:
    for strip in range(0, d, STRIP):
        for i in range(0, n, 4):
            i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
            for begin in range(strip, min(strip + STRIP, d), PIECE):
                end = min(begin + PIECE, d)
                x0 = flat[i * stride + begin : i * stride + end]
                x1 = flat[i1 * stride + begin : i1 * stride + end]
                x2 = flat[i2 * stride + begin : i2 * stride + end]
                x3 = flat[i3 * stride + begin : i3 * stride + end]
                sums = _four(x0, x1, x2, x3, point[begin:end])
                for a in range(min(4, n - i)):
                    out[i + a] += sums[a]


def _exchange(a: Array, b: Array) -> None:
    for c in range(a.size):
        x, y = a[c], b[c]
        a[c] = y if y < x else x
        b[c] = x if y < x else y


_compare = jit(_exchange)


def _middle_loop(
    flat: Array, starts: Array, first: Array, second: Array, span: Array, tile: Array, out: Array
) -> None:
    low, high, begin_pairs, end_pairs, count = span
    n, width = tile.shape
    below, above = (n - 1) // 2, n // 2
    total = np.zeros(width)
    for begin in range(0, out.size, width):
        columns = min(width, out.size - begin)
        for i in range(n):
            row = flat[starts[i] + begin : starts[i] + begin + columns]
            to = tile[i]
            for c in range(columns):
                to[c] = row[c] if row[c] == row[c] else np.inf  # NaN: above all others
        for k in range(first.size):
            _compare(tile[first[k]], tile[second[k]])
        total[:] = 0
        for i in range(low, high):
            kept = tile[i]
            for c in range(width):
                total[c] += kept[c]
        for j in range(begin_pairs, end_pairs):
            lower, upper, left, right = tile[j], tile[j + count], tile[below], tile[above]
            for c in range(width):
                # in float64, so that sums of float32 numbers are compared as they are
                middle = np.float64(left[c]) + np.float64(right[c])
                near = middle <= np.float64(lower[c]) + np.float64(upper[c])
                total[c] += lower[c] if near else upper[c]
        for c in range(columns):
            out[begin + c] = total[c] / count


_squares = jit(_squares_loop)
_to_point = jit(_to_point_loop)
_middle = jit(_middle_loop)
