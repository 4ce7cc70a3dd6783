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

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import njit
from torch import Tensor

from tacit.aggregators.network import Plan

Array = npt.NDArray[Any]
#: Columns whose squares are summed before they join a float64 sum.
PIECE = 1024
#: Columns that are sorted together, for up to 32 rows; half as many for more, to stay in the cache.
WIDTH = 256
#: Columns of a weighted sum that are summed at a time.
STRIP = 16384


def squared_distances(rows: Tensor) -> Array:
    """``(n, n)`` float64."""
    n, d = rows.shape
    out = np.zeros((n, n))
    _squares(_flat(rows), rows.stride(0), n, d, out)
    return out + out.T


def squared_to(rows: Tensor, point: Tensor) -> Array:
    """Squared distances of the rows from ``point``, ``(n,)`` float64."""
    n, d = rows.shape
    out = np.zeros(n)
    _to_point(_flat(rows), rows.stride(0), n, d, point.contiguous().numpy(), out)
    return out


def weighted_sum(rows: Tensor, chosen: Array, weights: Array, out: Tensor) -> None:
    """``out = sum_k weights_k rows[chosen_k]``, summed in float64."""
    starts = chosen.astype(np.int64) * rows.stride(0)
    _weighted(_flat(rows), starts, weights.astype(np.float64), out.numpy())


def narrow_sum(rows: Tensor, weights: Array, out: Tensor) -> None:
    """``out = sum_i weights_i rows_i``, summed in the rows' own precision, one row after the other:
    what ``out.add_(rows[i], alpha=weights[i])`` gives, to the bit."""
    flat, starts = _flat(rows), np.arange(len(rows)) * rows.stride(0)
    _narrow(flat, starts, weights.astype(flat.dtype), out.numpy())


def middle_means(rows: Tensor, chosen: Array, plan: Plan, out: Tensor) -> None:
    """What ``plan`` says of each column of ``rows[chosen]``, into ``out``."""
    starts = chosen.astype(np.int64) * rows.stride(0)
    width = WIDTH if plan.n <= 32 else WIDTH // 2
    tile = np.zeros((plan.n, width), dtype=out.numpy().dtype)
    span = np.array([plan.low, plan.high, plan.begin, plan.end, plan.count], dtype=np.int64)
    _middle(_flat(rows), starts, plan.first, plan.second, span, tile, out.numpy())


def _flat(rows: Tensor) -> Array:
    n, d = rows.shape
    flat: Array = rows.detach().as_strided(((n - 1) * rows.stride(0) + d,), (1,)).numpy()
    return flat


def _jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``function`` compiled, with the machine code kept on disk where there is a place for it."""
    try:
        return cast(Callable[..., Any], njit(function, nogil=True, cache=True, **options))
    except RuntimeError:  # neither beside the source nor in the user's cache folder
        return cast(Callable[..., Any], njit(function, nogil=True, **options))


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
_tile = _jit(_tile_piece, **_SUMS)


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


def _distance_piece(x: Array, y: Array) -> Any:
    total = x.dtype.type(0)
    for c in range(x.size):
        total += (x[c] - y[c]) * (x[c] - y[c])
    return total


_distance = _jit(_distance_piece, **_SUMS)


def _to_point_loop(flat: Array, stride: int, n: int, d: int, point: Array, out: Array) -> None:
    for begin in range(0, d, PIECE):
        end = min(begin + PIECE, d)
        for i in range(n):
            piece = flat[i * stride + begin : i * stride + end]
            out[i] += _distance(piece, point[begin:end])


def _add_row(total: Array, x: Array, w: Any) -> None:
    for c in range(total.size):
        total[c] += w * x[c]


def _add_rows(
    total: Array, x0: Array, x1: Array, x2: Array, x3: Array, x4: Array, weights: Array
) -> None:
    w0, w1, w2, w3, w4 = weights[0], weights[1], weights[2], weights[3], weights[4]
    for c in range(total.size):
        here = total[c]
        here += w0 * x0[c]
        here += w1 * x1[c]
        here += w2 * x2[c]
        here += w3 * x3[c]
        here += w4 * x4[c]
        total[c] = here


# Products are added unrounded, as torch does.
_add_one = _jit(_add_row, fastmath={"contract"})
_add_five = _jit(_add_rows, fastmath={"contract"})


def _add_loop(total: Array, flat: Array, starts: Array, weights: Array) -> None:
    n, count = starts.size, total.size
    total[:] = 0
    for k in range(0, n - 4, 5):
        s0, s1, s2, s3, s4 = starts[k], starts[k + 1], starts[k + 2], starts[k + 3], starts[k + 4]
        x0, x1 = flat[s0 : s0 + count], flat[s1 : s1 + count]
        x2, x3 = flat[s2 : s2 + count], flat[s3 : s3 + count]
        _add_five(total, x0, x1, x2, x3, flat[s4 : s4 + count], weights[k : k + 5])
    for k in range(n - n % 5, n):
        _add_one(total, flat[starts[k] : starts[k] + count], weights[k])


_add = _jit(_add_loop)


def _weighted_loop(flat: Array, starts: Array, weights: Array, out: Array) -> None:
    strip = np.zeros(min(STRIP, out.size))
    for begin in range(0, out.size, STRIP):
        total = strip[: min(STRIP, out.size - begin)]
        _add(total, flat, starts + begin, weights)
        out[begin : begin + total.size] = total


def _narrow_loop(flat: Array, starts: Array, weights: Array, out: Array) -> None:
    for begin in range(0, out.size, STRIP):
        _add(out[begin : min(begin + STRIP, out.size)], flat, starts + begin, weights)


def _exchange(a: Array, b: Array) -> None:
    for c in range(a.size):
        x, y = a[c], b[c]
        a[c] = y if y < x else x
        b[c] = x if y < x else y


_compare = _jit(_exchange)


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


_squares = _jit(_squares_loop)
_to_point = _jit(_to_point_loop)
_weighted = _jit(_weighted_loop)
_narrow = _jit(_narrow_loop)
_middle = _jit(_middle_loop)
