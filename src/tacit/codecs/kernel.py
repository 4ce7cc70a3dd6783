"""Rice and nested codes of sorted positions, compiled (numba): the bytes of ``plain``.

Import this module lazily: it needs the extra ``speed``. Everything runs on one thread, without the
GIL. The loops read only indices that were checked before, whatever the bytes are.
"""

from __future__ import annotations

import numpy as np

from tacit.jit import Array, jit


def rice_pack(gaps: Array, b: int) -> bytes:
    """``k >= 1`` gaps (int64) as bytes."""
    unary = int((gaps >> b).sum()) + len(gaps)
    words = np.zeros(-(-unary // 64) + 1, dtype=np.uint64)
    rest = np.zeros(-(-len(gaps) * b // 64) + 1, dtype=np.uint64)
    _rice_pack(gaps, b, words, rest)
    return _bytes(words, unary) + _bytes(rest, len(gaps) * b)


def rice_unpack(body: Array, k: int, n: int, b: int) -> Array:
    """The ``k >= 1`` positions in ``body`` (uint8). ValueError unless it is exactly that."""
    split = len(body) - (k * b + 7) // 8
    if split < (k + 7) // 8:
        raise ValueError(f"a Rice code of {len(body)} bytes is too short for {k} positions")
    positions = np.empty(k, dtype=np.int64)
    fault = _rice_unpack(body[:split], _words(body[split:]), n, b, positions)
    if fault == 1 or body[split - 1] == 0 or _bits_after(body[split:], k * b):
        raise ValueError(f"a Rice code that is not of {k} positions")
    if fault == 2:
        raise ValueError(f"a Rice code of positions beyond {n}")
    return positions


def nested_bits(fenced: Array) -> int:
    """Length in bits of the nested code of ``fenced``: -1, the positions, n (int64)."""
    return int(_nested_bits(fenced))


def nested_pack(fenced: Array, bits: int) -> bytes:
    """The nested code of ``fenced``; ``bits`` is its length."""
    words = np.zeros(-(-bits // 64) + 1, dtype=np.uint64)
    _nested_pack(fenced, words)
    return _bytes(words, bits)


def nested_unpack(body: Array, k: int, n: int) -> Array:
    """The ``k >= 1`` positions in ``body`` (uint8). ValueError unless it has their length and ends
    in zeros; anything else is a valid set."""
    fenced = np.empty(k + 2, dtype=np.int64)
    fenced[0], fenced[-1] = -1, n
    end = _nested_unpack(_words(body), 8 * len(body), fenced)
    if end < 0:
        raise ValueError("a nested code that is cut off")
    if (end + 7) // 8 != len(body) or _bits_after(body, end):
        raise ValueError(f"a nested code of {len(body)} bytes is too long for its {k} positions")
    return fenced[1:-1]


def _bytes(words: Array, bits: int) -> bytes:
    return words.view(np.uint8)[: (bits + 7) // 8].tobytes()


def _words(body: Array) -> Array:
    """The bytes as 64-bit words, and one word of zeros more."""
    words = np.zeros(-(-len(body) // 8) + 1, dtype=np.uint64)
    words.view(np.uint8)[: len(body)] = body
    return words


def _bits_after(body: Array, end: int) -> bool:
    """Whether a bit is set from bit ``end`` on; less than a byte is left."""
    return end % 8 > 0 and int(body[-1]) >> (end % 8) != 0


def _put_bits(words: Array, at: int, number: int, width: int) -> int:
    """``width`` < 64 bits at bit ``at``; bits beyond the width must be zero. Returns the end."""
    word, offset = at >> 6, at & 63
    words[word] |= np.uint64(number) << np.uint64(offset)
    if offset + width > 64:
        words[word + 1] |= np.uint64(number) >> np.uint64(64 - offset)
    return at + width


def _get_bits(words: Array, at: int, width: int) -> int:
    if width == 0:  # even the word may not be there
        return np.int64(0)  # type: ignore[return-value]
    word, offset = at >> 6, at & 63
    number = words[word] >> np.uint64(offset)
    if offset + width > 64:
        number |= words[word + 1] << np.uint64(64 - offset)
    return np.int64(number & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))  # type: ignore[return-value]


def _bit_length(number: int) -> int:
    width = 0
    while number >> width > 0:
        width += 1
    return width


_put = jit(_put_bits)
_get = jit(_get_bits)
_width = jit(_bit_length)


def _rice_pack_loop(gaps: Array, b: int, words: Array, rest: Array) -> None:
    mask = (np.int64(1) << b) - 1
    at, end = 0, 0
    for i in range(gaps.size):
        end += gaps[i] >> b
        end = _put(words, end, 1, 1)
        at = _put(rest, at, gaps[i] & mask, b)


def _rice_unpack_loop(unary: Array, rest: Array, n: int, b: int, positions: Array) -> int:
    """0, or what is wrong: 1 the number of positions, 2 their size."""
    k = positions.size
    count, quotient, at = 0, 0, -1
    beyond = False
    for byte in range(unary.size):
        bits = unary[byte]
        if bits == 0:
            quotient += 8
            continue
        for bit in range(8):
            if (bits >> bit) & 1 == 0:
                quotient += 1
                continue
            if count == k:
                return 1
            if quotient > n >> b:
                beyond = True
                quotient = 0  # nothing overflows; the rest is only counted
            at += (quotient << b) + _get(rest, count * b, b) + 1
            if at >= n:
                beyond = True
                at = 0
            positions[count] = at
            count += 1
            quotient = 0
    if count != k:
        return 1
    return 2 if beyond else 0


def _nested_bits_loop(fenced: Array) -> int:
    k = fenced.size - 2
    total = 0
    stride = 1 << (_width(k) - 1)
    while stride > 0:
        for i in range(stride, k + 1, 2 * stride):
            low, high = i - stride, min(i + stride, k + 1)
            slack = fenced[high] - fenced[low] - (high - low)
            width = _width(slack)
            total += width
            if fenced[i] - fenced[low] - stride < (1 << width) - 1 - slack:
                total -= 1
        stride >>= 1
    return total


def _nested_pack_loop(fenced: Array, words: Array) -> None:
    k = fenced.size - 2
    stride = 1 << (_width(k) - 1)
    last = np.empty(k // 2 + 1, dtype=np.int64)
    at = 0
    while stride > 0:
        longs = 0
        for i in range(stride, k + 1, 2 * stride):
            low, high = i - stride, min(i + stride, k + 1)
            slack = fenced[high] - fenced[low] - (high - low)
            width = _width(slack)
            if width == 0:
                continue
            short = (1 << width) - 1 - slack
            x = fenced[i] - fenced[low] - stride
            if x >= short:
                x += short
                last[longs] = x & 1
                longs += 1
                x >>= 1
            at = _put(words, at, x, width - 1)
        for j in range(longs):
            at = _put(words, at, last[j], 1)
        stride >>= 1


def _nested_unpack_loop(words: Array, bits: int, fenced: Array) -> int:
    """Where the code ends, or -1 if it is cut off."""
    k = fenced.size - 2
    stride = 1 << (_width(k) - 1)
    long = np.empty(k // 2 + 1, dtype=np.int64)
    at = 0
    while stride > 0:
        longs = 0
        for i in range(stride, k + 1, 2 * stride):
            low, high = i - stride, min(i + stride, k + 1)
            slack = fenced[high] - fenced[low] - (high - low)
            width = _width(slack)
            x = 0
            if width > 0:
                if at + width - 1 > bits:
                    return -1
                x = _get(words, at, width - 1)
                at += width - 1
                short = (1 << width) - 1 - slack
                if x >= short:
                    x = 2 * x - short  # and one more, if the last bit says so
                    long[longs] = i
                    longs += 1
            fenced[i] = fenced[low] + stride + x
        if at + longs > bits:
            return -1
        for j in range(longs):
            fenced[long[j]] += _get(words, at, 1)
            at += 1
        stride >>= 1
    return at


_rice_pack = jit(_rice_pack_loop)
_rice_unpack = jit(_rice_unpack_loop)
_nested_bits = jit(_nested_bits_loop)
_nested_pack = jit(_nested_pack_loop)
_nested_unpack = jit(_nested_unpack_loop)
