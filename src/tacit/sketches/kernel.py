"""Compiled CPU passes of the sketches (numba): the AMS sketch and the moments of a drift.

Import this module lazily: it needs the extra ``speed``. Everything here reads float32 rows whose
last dimension is contiguous, on one thread, without the GIL. The plain versions in ``ams`` and
``moments`` compute the same.

What bounds the sketch kernel. For each block and sketch row it adds ``m`` signed numbers to an
accumulator: one load of the block, of the sign pattern and of the accumulator, and one store, all
from the first-level cache. So at 5 rows the arithmetic, not the memory, sets the time: each number
is read from memory once and used 5 times from cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped,unused-ignore]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from tacit.jit import Array, jit
from tacit.sketches.hashing import BlockHash, walsh_signs

# A 256-bit vector. Wider ones gain nothing here, and waste more of a block's last vector.
LANES = 8
# Blocks added in float32 before the accumulators move to float64. The rounding error of a column is
# then about 1e-7, and a few 1e-6 if all that falls into it has one sign and size, however long the
# vector is. The move is one or two per cent of the work.
FLUSH = 256
# Numbers whose products are summed in float32 before they join a float64 sum.
PIECE = 1024


class SketchTables:
    """A ``BlockHash`` laid out for the kernel."""

    def __init__(self, hashing: BlockHash) -> None:
        self.hashing = hashing
        m, groups = hashing.columns, -(-hashing.columns // LANES)
        self.pattern: Array = np.zeros((hashing.rows, groups * LANES), dtype=np.float32)
        self.pattern[:, :m] = hashing.pattern
        # sign(w, r) = low[w % LANES, r % LANES] * high[w // LANES & r // LANES]
        self.low: Array = walsh_signs(LANES)
        self.high: Array = _high_signs(max(1, (1 << hashing.bits) // LANES))


def sketch(tables: SketchTables, vectors: Tensor) -> Tensor:
    """``(L, d)`` rows to ``(L, rows, columns)`` float32. Every element is a sum in block order, so
    the result is the same bit for bit on every machine."""
    h = tables.hashing
    out = np.empty((vectors.shape[0], h.rows, h.columns), dtype=np.float32)
    flat, stride = _flat(vectors)
    _sketch(
        flat, stride, h.d, h.rotation, h.walsh, h.flip, tables.pattern, tables.low, tables.high, out
    )
    return torch.from_numpy(out)


def moments(rows: Tensor, reference: Tensor | None, xi: Tensor | None) -> Tensor:
    """Squared norm of each row of ``rows - reference``, and its inner product with ``xi``, if any:
    ``(L, 1)`` or ``(L, 2)`` float64, in one pass."""
    nothing = np.zeros(0, dtype=np.float32)
    flat, stride = _flat(rows)
    out = np.empty((rows.shape[0], 1 if xi is None else 2), dtype=np.float64)
    minus = nothing if reference is None else reference.detach().numpy()
    along = nothing if xi is None else xi.detach().numpy()
    _moments(flat, stride, rows.shape[1], minus, along, out)
    return torch.from_numpy(out)


def _flat(rows: Tensor) -> tuple[Array, int]:
    """The memory under ``rows`` as one contiguous array, and the distance between rows: the inner
    loops then see unit stride at compile time."""
    count, d = rows.shape
    stride = rows.stride(0) if count > 1 else d
    size = (count - 1) * stride + d if count else 0
    return rows.detach().as_strided((size,), (1,)).numpy(), stride


def _high_signs(size: int) -> Array:
    """Entry ``x`` is ``(-1)^popcount(x)``, for ``x`` below the power of two ``size``."""
    signs = np.ones(1, dtype=np.float32)
    while len(signs) < size:
        signs = np.concatenate([signs, -signs])
    return signs


def _add_signed_types(
    _typing: Any, total: Any, at: Any, block: Any, start: Any, count: Any,
    pattern: Any, low: Any, high: Any, walsh: Any, flip: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """``total[at + r] += flip * Walsh(walsh, r) * pattern[r] * block[start + r]`` for r < count.

    Written as explicit vector code because numba cannot promise LLVM that the arrays do not
    overlap: an ordinary loop tests that at run time for every block and row, and takes twice as
    long. Arrays are 1-d contiguous float32 (``low``: 2-d). Up to ``LANES - 1`` elements after
    ``block[start + count - 1]`` are read (not used), and as many of ``total`` are rewritten
    unchanged, so both must exist.
    """
    i, f = types.intp, types.float32
    signature = types.void(total, i, block, i, i, pattern, low, high, i, f)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, index, real = ir.IntType(64), ir.IntType(32), ir.FloatType()
        lanes, lane_index = ir.VectorType(real, LANES), ir.VectorType(index, LANES)
        zero = ir.Constant(lanes, [0.0] * LANES)

        def data(k: int) -> Any:
            return context.make_array(signature.args[k])(context, builder, arguments[k]).data

        def address(base: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(base, [offset]), lanes.as_pointer())

        def load(base: Any, offset: Any) -> Any:
            value = builder.load(address(base, offset))
            value.align = 4
            return value

        def splat(scalar: Any, kind: Any) -> Any:
            empty = ir.Constant(kind, ir.Undefined)
            first = builder.insert_element(empty, scalar, index(0))
            return builder.shuffle_vector(first, empty, ir.Constant(lane_index, [0] * LANES))

        to, source, shape, small, large = data(0), data(2), data(5), data(6), data(7)
        _, at, _, start, count, _, _, _, walsh, flip = arguments
        low_row = builder.mul(builder.and_(walsh, word(LANES - 1)), word(LANES))
        low_signs = builder.fmul(load(small, low_row), splat(flip, lanes))
        high_word = builder.lshr(walsh, word(LANES.bit_length() - 1))

        def add_group(group: Any, used: Any = None) -> None:
            offset = builder.mul(group, word(LANES))
            high_sign = builder.load(builder.gep(large, [builder.and_(high_word, group)]))
            x = load(source, builder.add(start, offset))
            if used is not None:  # a neighbour's inf or NaN must not come in as 0 * inf
                x = builder.select(used, x, zero)
            signs = builder.fmul(load(shape, offset), low_signs)
            # Products with signs are exact, so fusing them into the addition changes no bit.
            change = builder.fmul(builder.fmul(x, splat(high_sign, lanes)), signs, ("contract",))
            place = builder.add(at, offset)
            added = builder.fadd(load(to, place), change, ("contract",))
            builder.store(added, address(to, place)).align = 4

        groups = builder.sdiv(count, word(LANES))
        with cgutils.for_range(builder, groups) as loop:
            add_group(loop.index)
        rest = builder.trunc(builder.srem(count, word(LANES)), index)
        with builder.if_then(builder.icmp_signed(">", rest, index(0))):
            numbers = ir.Constant(lane_index, list(range(LANES)))
            add_group(groups, builder.icmp_signed("<", numbers, splat(rest, lane_index)))
        return context.get_dummy_value()

    return signature, generate


_add_signed: Callable[..., None] = intrinsic(_add_signed_types)


def _sketch_rows(
    flat: Array, stride: int, d: int, rotation: Array, walsh: Array, flip: Array,
    pattern: Array, low: Array, high: Array, out: Array,
) -> None:  # fmt: skip
    count, rows, m = out.shape
    blocks = rotation.shape[0]
    padded = pattern.shape[1]
    width = m + padded  # a rotated block may run past column m; the columns are folded at the end
    total = np.zeros(rows * width, dtype=np.float32)
    total64 = np.zeros(rows * width, dtype=np.float64)
    last = np.zeros(padded, dtype=np.float32)
    for k in range(count):
        base = k * stride
        for q in range(blocks):
            begin = q * m
            n = min(m, d - begin)
            if begin + padded <= d:
                source, start = flat, base + begin
            else:  # whole vectors would read past the end
                for r in range(n):
                    last[r] = flat[base + begin + r]
                source, start = last, 0
            for j in range(rows):
                _add_signed(
                    total, j * width + rotation[q, j], source, start, n,
                    pattern[j], low, high, walsh[q, j], flip[q, j],
                )  # fmt: skip
            if q % FLUSH == FLUSH - 1 or q == blocks - 1:
                for c in range(rows * width):
                    total64[c] += total[c]
                    total[c] = 0
        for j in range(rows):
            for c in range(m):
                out[k, j, c] = total64[j * width + c] + total64[j * width + m + c]
        for c in range(rows * width):
            total64[c] = 0


def _dot_piece(x: Array, y: Array) -> Any:
    sum32 = np.float32(0)
    for i in range(x.size):
        sum32 += x[i] * y[i]
    return sum32


# Reassociation is what lets the float32 sum run in vector lanes; NaN and inf keep their meaning.
_dot = jit(_dot_piece, fastmath={"reassoc", "contract"})


def _row_moments(flat: Array, stride: int, d: int, reference: Array, xi: Array, out: Array) -> None:
    drift = np.zeros(PIECE, dtype=np.float32)
    for k in range(out.shape[0]):
        square = 0.0
        inner = 0.0
        for begin in range(0, d, PIECE):
            n = min(PIECE, d - begin)
            piece = flat[k * stride + begin : k * stride + begin + n]
            if reference.size > 0:
                against = reference[begin : begin + n]
                for i in range(n):
                    drift[i] = piece[i] - against[i]
                piece = drift[:n]
            square += _dot(piece, piece)
            if xi.size > 0:
                inner += _dot(piece, xi[begin : begin + n])
        out[k, 0] = square
        if xi.size > 0:
            out[k, 1] = inner


_sketch = jit(_sketch_rows)
_moments = jit(_row_moments)
