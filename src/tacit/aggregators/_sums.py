"""Compiled weighted sums of rows (numba), ten rows at a time while the sum stays in registers.

Import this module lazily: it needs the extra ``speed``.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tacit.aggregators._memory import STRIP, memory
from tacit.jit import Array, jit


def weighted_sum(rows: Tensor, weights: Array, out: Tensor) -> None:
    """``out = sum_i weights_i rows_i``, summed in float64."""
    _weighted(memory(rows), rows.stride(0), weights, out.numpy())


def narrow_sum(rows: Tensor, weights: Array, out: Tensor) -> None:
    """The same, summed in the rows' own precision."""
    _narrow(memory(rows), rows.stride(0), weights, out.numpy())


def _ten_rows(
    total: Array, x0: Array, x1: Array, x2: Array, x3: Array, x4: Array,
    x5: Array, x6: Array, x7: Array, x8: Array, x9: Array, w: Array,
) -> None:  # fmt: skip
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    w5, w6, w7, w8, w9 = w[5], w[6], w[7], w[8], w[9]
    for c in range(total.size):
        here = total[c] + w0 * x0[c]
        here += w1 * x1[c]
        here += w2 * x2[c]
        here += w3 * x3[c]
        here += w4 * x4[c]
        here += w5 * x5[c]
        here += w6 * x6[c]
        here += w7 * x7[c]
        here += w8 * x8[c]
        total[c] = here + w9 * x9[c]


def _weighed(stride: int, weights: Array, like: Array) -> tuple[Array, Array]:
    """Where the rows that have weight begin, and the weights; up to a multiple of 10, -1 and 0."""
    count = np.count_nonzero(weights)
    starts = np.full(count + -count % 10, -1)
    shares = np.zeros(starts.size, like.dtype)
    k = 0
    for i in range(weights.size):
        if weights[i] != 0:
            starts[k], shares[k] = i * stride, weights[i]
            k += 1
    return starts, shares


def _columns(flat: Array, starts: Array, k: int, begin: int, zeros: Array) -> Array:
    start = starts[k] + begin
    return flat[start : start + zeros.size] if starts[k] >= 0 else zeros


_add_ten = jit(_ten_rows, fastmath={"contract"})  # products are added unrounded, as by torch
_parts = jit(_weighed)
_of = jit(_columns)


def _sum_loop(
    total: Array, flat: Array, starts: Array, shares: Array, begin: int, zeros: Array
) -> None:
    none = zeros[: total.size]
    total[:] = 0
    for k in range(0, starts.size, 10):
        x0, x1 = _of(flat, starts, k, begin, none), _of(flat, starts, k + 1, begin, none)
        x2, x3 = _of(flat, starts, k + 2, begin, none), _of(flat, starts, k + 3, begin, none)
        x4, x5 = _of(flat, starts, k + 4, begin, none), _of(flat, starts, k + 5, begin, none)
        x6, x7 = _of(flat, starts, k + 6, begin, none), _of(flat, starts, k + 7, begin, none)
        x8, x9 = _of(flat, starts, k + 8, begin, none), _of(flat, starts, k + 9, begin, none)
        _add_ten(total, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, shares[k : k + 10])


_sum = jit(_sum_loop)


def _weighted_loop(flat: Array, stride: int, weights: Array, out: Array) -> None:
    strip = np.zeros(min(STRIP, out.size))
    zeros = np.zeros(strip.size, flat.dtype)
    starts, shares = _parts(stride, weights, strip)
    for begin in range(0, out.size, STRIP):
        total = strip[: min(STRIP, out.size - begin)]
        _sum(total, flat, starts, shares, begin, zeros)
        out[begin : begin + total.size] = total


def _narrow_loop(flat: Array, stride: int, weights: Array, out: Array) -> None:
    zeros = np.zeros(min(STRIP, out.size), flat.dtype)
    starts, shares = _parts(stride, weights, flat)
    for begin in range(0, out.size, STRIP):
        total = out[begin : min(begin + STRIP, out.size)]
        _sum(total, flat, starts, shares, begin, zeros)


_weighted = jit(_weighted_loop)
_narrow = jit(_narrow_loop)
