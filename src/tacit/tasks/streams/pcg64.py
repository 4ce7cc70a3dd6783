"""NumPy's PCG64 for many seeds at once, compiled (numba): the words of ``numpy_stream``.

NumPy opens a generator in the time in which it draws thousands of words. And what it draws ahead to
make up for that leaves the cache before it is used; here every round is drawn when it is needed.
Import this module lazily: it needs the extra ``speed``. It runs on one thread, without the GIL.

PCG64 is a linear congruential generator of 128 bits, ``s <- M s + c``, whose output is the xor of
the two halves, rotated by the six highest bits (O'Neill, "PCG: A Family of Simple Fast
Space-Efficient Statistically Good Algorithms for Random Number Generation", Harvey Mudd College,
HMC-CS-2014-0905: XSL-RR). ``SeedSequence`` makes ``s`` and ``c`` of a seed: its words are hashed
into a pool of four, every word of the pool is mixed into every other, and the pool is hashed into
the state. NumPy promises both for good (NEP 19).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped,unused-ignore]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tacit.jit import Array, jit

#: M, its high and its low half.
HIGH, LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)
POOL = 4


class Compiled:
    """See ``bits.Numbers``. ``seeds``: (W,) uint64. ``counts``: (W,) int64."""

    def __init__(self, seeds: Array, counts: Array) -> None:
        self._counts = counts
        self._opened: Array = np.empty((len(seeds), 4), np.uint64)
        _open_all(seeds, self._opened)
        self._words: Array = np.empty(int(counts.max()) // 4 + 2, np.uint64)
        self._out: Array = np.empty(int(counts.sum()), np.uint16)

    def read(self, round: int) -> Array:
        words = self._words
        _read(self._opened, self._counts, round, words, words.view(np.uint16), self._out)
        return self._out


def _times_plus_types(
    _typing: Any, high: Any, low: Any, by_high: Any, by_low: Any, add_high: Any, add_low: Any
) -> tuple[Any, Callable[..., Any]]:
    """(high, low) * (by_high, by_low) + (add_high, add_low) modulo 2^128."""
    word = types.uint64
    pair = types.UniTuple(word, 2)  # type: ignore[no-untyped-call,unused-ignore]

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        shift = ir.Constant(wide, 64)

        def join(high: Any, low: Any) -> Any:
            upper = builder.shl(builder.zext(high, wide), shift)
            return builder.or_(upper, builder.zext(low, wide))

        x, by, add = (join(args[i], args[i + 1]) for i in (0, 2, 4))
        x = builder.add(builder.mul(x, by), add)
        halves = builder.lshr(x, shift), x
        parts = [builder.trunc(half, ir.IntType(64)) for half in halves]
        return cgutils.pack_struct(builder, parts)  # type: ignore[no-untyped-call,unused-ignore]

    return pair(*[word] * 6), generate


_times_plus = cast(Callable[..., Any], intrinsic(_times_plus_types))


def _open(seed: Any) -> tuple[Any, Any, Any, Any]:
    """``s`` and ``c`` of ``PCG64(seed)``, high and low halves; ``seed`` < 2^64."""
    pool = np.zeros(POOL, np.uint32)
    pool[0], pool[1] = np.uint32(seed & np.uint64(0xFFFFFFFF)), np.uint32(seed >> np.uint64(32))
    key = np.uint32(0x43B0D7E5)
    for i in range(POOL):
        pool[i], key = _hash(pool[i], key, np.uint32(0x931E8875))
    for i in range(POOL):
        for j in range(POOL):
            if i != j:
                mixed, key = _hash(pool[i], key, np.uint32(0x931E8875))
                mixed = np.uint32(np.uint32(0xCA01F9DD) * pool[j] - np.uint32(0x4973F715) * mixed)
                pool[j] = mixed ^ (mixed >> np.uint32(16))
    state = np.zeros(4, np.uint64)
    key = np.uint32(0x8B51F9DD)
    for i in range(8):
        value, key = _hash(pool[i % POOL], key, np.uint32(0x58F38DED))
        state[i >> 1] |= np.uint64(value) << np.uint64(32 * (i & 1))
    one = np.uint64(1)
    add_high, add_low = (state[2] << one) | (state[3] >> np.uint64(63)), (state[3] << one) | one
    # s = M (c + state) + c
    high, low = _times_plus(state[0], state[1], np.uint64(0), one, add_high, add_low)
    high, low = _times_plus(high, low, HIGH, LOW, add_high, add_low)
    return high, low, add_high, add_low


def _hash_word(value: Any, key: Any, by: Any) -> tuple[Any, Any]:
    """The word hashed, and the next key."""
    after = np.uint32(key * by)
    value = np.uint32((value ^ key) * after)
    return value ^ (value >> np.uint32(16)), after


def _output_word(high: Any, low: Any) -> Any:
    word, turn = high ^ low, high >> np.uint64(58)
    return (word >> turn) | (word << ((np.uint64(64) - turn) & np.uint64(63)))


_hash = jit(_hash_word)
_output = jit(_output_word)
_opened = jit(_open)


def _open_all_loop(seeds: Array, opened: Array) -> None:
    for i in range(seeds.size):
        opened[i, 0], opened[i, 1], opened[i, 2], opened[i, 3] = _opened(seeds[i])


def _steps_at_once(steps: int) -> tuple[Any, Any, Any, Any]:
    """A and B, high and low halves, such that so many steps make ``A s + B c`` of ``s``."""
    zero, one = np.uint64(0), np.uint64(1)
    a_high, a_low, b_high, b_low = zero, one, zero, zero
    # of 1, 2, 4, ... steps
    m_high, m_low, n_high, n_low = HIGH, LOW, zero, one
    while steps > 0:
        if steps & 1:
            b_high, b_low = _times_plus(b_high, b_low, m_high, m_low, n_high, n_low)
            a_high, a_low = _times_plus(a_high, a_low, m_high, m_low, zero, zero)
        n_high, n_low = _times_plus(n_high, n_low, m_high, m_low, n_high, n_low)
        m_high, m_low = _times_plus(m_high, m_low, m_high, m_low, zero, zero)
        steps >>= 1
    return a_high, a_low, b_high, b_low


_open_all = jit(_open_all_loop)
_steps = jit(_steps_at_once)


def _read_loop(
    opened: Array, counts: Array, round: int, words: Array, numbers: Array, out: Array
) -> None:
    zero = np.uint64(0)
    start, last = 0, -1
    for i in range(counts.size):
        count = counts[i]
        if count != last:
            last, skipped = count, (round * count) & 3
            a_high, a_low, b_high, b_low = _steps((round * count) >> 2)
        add_high, add_low = opened[i, 2], opened[i, 3]
        high, low = _times_plus(add_high, add_low, b_high, b_low, zero, zero)
        high, low = _times_plus(opened[i, 0], opened[i, 1], a_high, a_low, high, low)
        for j in range((skipped + count + 3) >> 2):
            high, low = _times_plus(high, low, HIGH, LOW, add_high, add_low)
            words[j] = _output(high, low)
        source, target = numbers[skipped : skipped + count], out[start : start + count]
        for j in range(count):
            target[j] = source[j]
        start += count


_read = jit(_read_loop)
