"""Rice and nested codes of sorted positions, in plain numpy. ``kernel`` writes the same bytes.

Bits are numbered from the lowest bit of the first byte on, and a number's lowest bit comes first.
Sections end on a byte; the bits that fill it up are zero.

**Rice.** A gap ``g`` (the absent positions before a present one) is ``g >> b`` zeros and a one, and
``b`` bits plain. All ones and zeros form the first section, all plain bits the second: an
interleaved code is as long, but only a loop can read it.

**Nested** (binary interpolative coding, Moffat and Stuiver 2000). With fences at -1 and n, the
middle position is a number between those that the fences leave possible, and then itself a fence
for both halves. Level by level: the entries at odd multiples of a power of two, from the highest
down. Of ``m`` possible numbers the first ``2^w - m`` take ``w - 1`` bits, the others ``w``, where
``2^w`` is the power of two from ``m`` on. A level is two runs: the first ``w - 1`` bits of every
entry, then the last bit of those that have one. So the widths of a run are known before it is read.
Crowded positions cost next to nothing, and every string of bits is a valid set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def rice_pack(gaps: Array, b: int) -> bytes:
    """``k >= 1`` gaps (int64) as bytes."""
    ends = np.cumsum((gaps >> b) + 1)
    unary = np.zeros(int(ends[-1]), dtype=bool)
    unary[ends - 1] = True
    rest = (gaps[:, None] >> np.arange(b)) & 1
    return _bytes(unary) + _bytes(rest.astype(bool).ravel())


def rice_unpack(body: Array, k: int, n: int, b: int) -> Array:
    """The ``k >= 1`` positions in ``body`` (uint8). ValueError unless it is exactly that."""
    split = len(body) - (k * b + 7) // 8
    if split < (k + 7) // 8:
        raise ValueError(f"a Rice code of {len(body)} bytes is too short for {k} positions")
    ends = np.flatnonzero(_bits(body[:split]))
    rest = _bits(body[split:])
    if len(ends) != k or body[split - 1] == 0 or rest[k * b :].any():
        raise ValueError(f"a Rice code that is not of {k} positions")
    quotients = np.diff(ends, prepend=-1) - 1
    if quotients.max() > n >> b:  # so no gap overflows
        raise ValueError(f"a Rice code of positions beyond {n}")
    gaps = quotients << b
    for bit in range(b):
        gaps |= rest[bit : k * b : b].astype(np.int64) << bit
    # A sum that runs over was n or more before: n is far below the largest integer.
    positions = np.cumsum(gaps + 1) - 1
    if gaps.max() >= n or positions.max() >= n or positions.min() < 0:
        raise ValueError(f"a Rice code of positions beyond {n}")
    return positions


def nested_bits(fenced: Array) -> int:
    """Length in bits of the nested code of ``fenced``: -1, the positions, n (int64)."""
    return int(
        sum((width - (x < short)).sum() for x, width, short in (_level(fenced, s) for s in
        _strides(len(fenced) - 2)))
    )  # fmt: skip


def nested_pack(fenced: Array, bits: int) -> bytes:
    """The nested code of ``fenced``; ``bits`` is its length."""
    out = np.zeros(bits, dtype=bool)
    at = 0
    for stride in _strides(len(fenced) - 2):
        x, width, short = _level(fenced, stride)
        long = x >= short
        y = x + short
        at = _put(out, at, np.where(long, y >> 1, x), np.maximum(width - 1, 0))
        long &= width > 0
        at = _put(out, at, y[long] & 1, np.ones(int(long.sum()), dtype=np.int64))
    return _bytes(out)


def nested_unpack(body: Array, k: int, n: int) -> Array:
    """The ``k >= 1`` positions in ``body`` (uint8). ValueError unless it has their length and ends
    in zeros; anything else is a valid set."""
    bits = _bits(body)
    fenced = np.empty(k + 2, dtype=np.int64)
    fenced[0], fenced[-1] = -1, n
    at = 0
    for stride in _strides(k):
        i, low, high = _places(k, stride)
        slack = fenced[high] - fenced[low] - (high - low)
        width = _width(slack)
        short = (1 << width) - 1 - slack
        x, at = _get(bits, at, np.maximum(width - 1, 0))
        long = np.flatnonzero((x >= short) & (width > 0))
        last, at = _get(bits, at, np.ones(len(long), dtype=np.int64))
        x[long] = 2 * x[long] + last - short[long]
        fenced[i] = fenced[low] + (i - low) + x
    if (at + 7) // 8 != len(body) or bits[at:].any():
        raise ValueError(f"a nested code of {len(body)} bytes is too long for its {k} positions")
    return fenced[1:-1]


def _strides(k: int) -> list[int]:
    return [1 << level for level in reversed(range(k.bit_length()))]


def _places(k: int, stride: int) -> tuple[Array, Array, Array]:
    """The entries of a level, and the fences below and above each, as indices."""
    i = np.arange(stride, k + 1, 2 * stride)
    return i, i - stride, np.minimum(i + stride, k + 1)


def _level(fenced: Array, stride: int) -> tuple[Array, Array, Array]:
    """Of each entry of a level: its number, its width in bits, how many numbers take one less."""
    i, low, high = _places(len(fenced) - 2, stride)
    slack = fenced[high] - fenced[low] - (high - low)
    width = _width(slack)
    return fenced[i] - fenced[low] - (i - low), width, (1 << width) - 1 - slack


def _width(slack: Array) -> Array:
    """How many bits each number has (0: none). Exact below 2^53."""
    return np.frexp(slack.astype(np.float64))[1].astype(np.int64)


def _put(out: Array, at: int, numbers: Array, widths: Array) -> int:
    """Write numbers of these widths from bit ``at`` on; returns where they end."""
    starts = at + np.cumsum(widths) - widths
    for bit in range(int(widths.max(initial=0))):
        wide = widths > bit
        out[starts[wide] + bit] = (numbers[wide] >> bit) & 1
    return at + int(widths.sum())


def _get(bits: Array, at: int, widths: Array) -> tuple[Array, int]:
    """Numbers of these widths from bit ``at`` on, and where they end."""
    end = at + int(widths.sum())
    if end > len(bits):
        raise ValueError("a nested code that is cut off")
    starts = at + np.cumsum(widths) - widths
    numbers = np.zeros(len(widths), dtype=np.int64)
    for bit in range(int(widths.max(initial=0))):
        wide = widths > bit
        numbers[wide] |= bits[starts[wide] + bit].astype(np.int64) << bit
    return numbers, end


def _bits(body: Array) -> Array:
    return np.unpackbits(body, bitorder="little")


def _bytes(bits: Array) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()
