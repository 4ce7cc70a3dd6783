"""Which ``k`` of ``n`` positions: a sorted set as bytes, in the cheapest of a few codes.

The first byte names the code, the rest is its body:

- 0: none, or all. No body.
- 1: bitmap. ``n`` bits.
- 2: nested, see ``plain``. Best where positions crowd, as gradients do by rows and channels.
- 64 + b: Rice code of the gaps with parameter ``b``. Best for a set without structure.

128 more: the code is of the absent positions. It is used for more than half of all, so any density
costs what its mirror image costs. The choice is by exact length. On sets without structure the Rice
code or the bitmap is within 4.2 % of the entropy ``log2 C(n, k)`` at any density (computed), plus
three bytes.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from tacit.codecs import plain
from tacit.compiled import compiled_words
from tacit.errors import UserError

Array = npt.NDArray[Any]

#: Positions are below this. Differences of such numbers are exact in float64.
MAX_N = 1 << 53
_UNIFORM, _BITMAP, _NESTED, _RICE, _ABSENT = 0, 1, 2, 64, 128


def encode_positions(positions: Array, n: int, *, kernel: bool | None = None) -> bytes:
    """``positions`` (int64, ascending, distinct, in [0, n)) as bytes.

    ``kernel``: None uses numba where it is installed, False never, True insists. The bytes are the
    same. Raises UserError for positions that are not such a set.
    """
    p = np.asarray(positions)
    if not 0 <= n <= MAX_N:
        raise UserError(f"positions: n = {n} is not in [0, 2^53]")
    if p.ndim != 1 or p.dtype != np.int64:
        raise UserError(f"positions: a flat int64 array is needed, not {p.dtype} of {p.shape}")
    k = len(p)
    if k and (p[0] < 0 or p[-1] >= n or not np.all(p[1:] > p[:-1])):
        raise UserError(f"positions: not ascending, distinct and in [0, {n}); sort them first")
    if k in (0, n):
        return bytes([_UNIFORM])
    codes = _codes(kernel)
    coded, flag = (p, 0) if 2 * k <= n else (_others(p, n), _ABSENT)
    gaps = np.diff(coded, prepend=-1) - 1
    b, rice = _rice_parameter(gaps, n)
    fenced = np.concatenate([[-1], coded, [n]])
    nested = codes.nested_bits(fenced)
    bitmap = (n + 7) // 8
    if bitmap <= min(rice, (nested + 7) // 8):
        mask = np.zeros(n, dtype=bool)
        mask[p] = True
        return bytes([_BITMAP]) + np.packbits(mask, bitorder="little").tobytes()
    if (nested + 7) // 8 < rice:
        return bytes([_NESTED | flag]) + bytes(codes.nested_pack(fenced, nested))
    return bytes([_RICE + b | flag]) + bytes(codes.rice_pack(gaps, b))


def decode_positions(body: bytes, k: int, n: int, *, kernel: bool | None = None) -> Array:
    """The ``k`` of ``n`` positions in ``body``: int64, ascending, distinct, in [0, n).

    ``body`` is not trusted: anything else raises ValueError, and time and memory are O(k + its
    length). ``k`` and ``n`` are: check them against what the receiver expects before.
    """
    if not 0 <= k <= n <= MAX_N:
        raise ValueError(f"positions: {k} of {n} is impossible")
    if not body:
        raise ValueError("positions: no bytes")
    code, content = body[0], np.frombuffer(body, dtype=np.uint8)[1:]
    if k in (0, n):
        if code != _UNIFORM or len(content):
            raise ValueError(f"positions: code {code} where {k} of {n} leave no choice")
        return np.arange(k, dtype=np.int64)
    absent = bool(code & _ABSENT)
    code &= ~_ABSENT
    if absent != (2 * k > n) and code != _BITMAP:
        raise ValueError(f"positions: {k} of {n} with the wrong half coded")
    count = n - k if absent else k
    try:
        if code == _BITMAP and not absent:
            return _from_bitmap(content, k, n)
        if code == _NESTED:
            coded = _codes(kernel).nested_unpack(content, count, n)
        elif _RICE <= code < _ABSENT and 1 << (code - _RICE) <= n:
            coded = _codes(kernel).rice_unpack(content, count, n, code - _RICE)
        else:
            raise ValueError(f"unknown code {body[0]}")
    except ValueError as error:
        raise ValueError(f"positions: {error}") from None
    return _others(coded, n) if absent else coded


def _codes(kernel: bool | None) -> ModuleType:
    return compiled_words("tacit.codecs.kernel", kernel) or plain


def _others(positions: Array, n: int) -> Array:
    mask = np.ones(n, dtype=bool)
    mask[positions] = False
    return np.flatnonzero(mask)


def _from_bitmap(content: Array, k: int, n: int) -> Array:
    if len(content) != (n + 7) // 8:
        raise ValueError(f"a bitmap of {len(content)} bytes for {n} bits")
    positions = np.flatnonzero(np.unpackbits(content, bitorder="little"))
    if len(positions) != k or positions[-1] >= n:
        raise ValueError(f"a bitmap that is not of {k} out of {n}")
    return positions


def _rice_parameter(gaps: Array, n: int) -> tuple[int, int]:
    """The parameter with the shortest code, and that code's bytes.

    The length is convex in b, so the walk from the density rule ends at the best of all.
    """
    k = len(gaps)

    def length(b: int) -> int:
        return (k + int((gaps >> b).sum()) + 7) // 8 + (k * b + 7) // 8

    b = max(0, round(float(np.log2(0.69 * n / k))))
    best = length(b)
    for step in (-1, 1):
        while b + step >= 0 and 1 << (b + step) <= n and (other := length(b + step)) < best:
            b, best = b + step, other
    return b, best
