"""Compiled passes of the selection (numba). Import lazily; ``select`` has the plain versions.

What bounds the scan: memory. Magnitudes are compared as integers, since float32 numbers without
their sign bit are ordered as their bits are. So the largest of a group is a reduction that runs in
vector lanes, and only the few groups with a survivor are looked at number by number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tacit.jit import Array, jit

_GROUP = 32
_SIZE = np.int32(0x7FFFFFFF)


def survivors(bits: Array, threshold: int, positions: Array, found: Array) -> int:
    """Positions (int64) and bits (int32) of the entries whose bits without the sign reach
    ``threshold``, into ``positions`` and ``found``. Returns how many there are; those that find no
    room are only counted."""
    return int(_survivors(bits, np.int32(threshold), positions, found))


def take_and_clear(x: Array, positions: Array, values: Array) -> None:
    """``values = x[positions]``, and zeros in their place. The positions must be in range."""
    _take_and_clear(x, positions, values)


def add_at(x: Array, positions: Array, values: Array) -> None:
    """``x[positions] += values``. The positions must be in range."""
    _add_at(x, positions, values)


def _survivors_loop(bits: Array, threshold: Any, positions: Array, found: Array) -> int:
    count = 0
    room = positions.size
    n = bits.size
    for group in range(n // _GROUP):
        begin = group * _GROUP
        largest = np.int32(0)
        for i in range(begin, begin + _GROUP):
            largest = max(largest, np.int32(bits[i] & _SIZE))
        if largest < threshold:
            continue
        for i in range(begin, begin + _GROUP):
            if bits[i] & _SIZE >= threshold:
                if count < room:
                    positions[count] = i
                    found[count] = bits[i]
                count += 1
    for i in range(n // _GROUP * _GROUP, n):
        if bits[i] & _SIZE >= threshold:
            if count < room:
                positions[count] = i
                found[count] = bits[i]
            count += 1
    return count


def _take_and_clear_loop(x: Array, positions: Array, values: Array) -> None:
    for i in range(positions.size):
        values[i] = x[positions[i]]
        x[positions[i]] = 0


def _add_at_loop(x: Array, positions: Array, values: Array) -> None:
    for i in range(positions.size):
        x[positions[i]] += values[i]


_survivors = jit(_survivors_loop)
_take_and_clear = jit(_take_and_clear_loop)
_add_at = jit(_add_at_loop)
