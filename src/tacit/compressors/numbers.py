"""Small numbers as bytes, the smaller the shorter.

Numbers ``g_1, g_2, ...`` become the set of positions whose gaps they are, in the codes of
:mod:`tacit.codecs`: in unary or Rice code where they are like geometric ones, and by their
exceptions where most are zero. So they are near their entropy without a table. A first byte says
whether they are coded so (0), or a byte each (1) because that is shorter.
"""

from __future__ import annotations

import numpy as np

from tacit.codecs import decode_positions, encode_positions
from tacit.codecs.positions import MAX_N
from tacit.compressors.base import Array
from tacit.compressors.message import read_varint, varint


def encode_numbers(numbers: Array) -> bytes:
    """``k`` numbers (int64, 0 or more); the reader must know ``k``."""
    ends = np.cumsum(numbers + 1)
    total = int(ends[-1]) - len(ends) if len(ends) else 0
    coded = varint(total) + encode_positions(ends - 1, len(ends) + total)
    if len(coded) > len(ends) and numbers.max(initial=0) < 256:
        return b"\1" + numbers.astype(np.uint8).tobytes()
    return b"\0" + coded


def decode_numbers(body: bytes, k: int, most: int) -> Array:
    """The ``k`` numbers in ``body``, int64 in [0, ``most``]. ValueError for anything else; memory
    is O(k + the length of ``body``)."""
    if body[:1] == b"\1":
        if len(body) != k + 1:
            raise ValueError(f"{len(body) - 1} bytes for {k} numbers")
        numbers = np.frombuffer(body[1:], np.uint8).astype(np.int64)
    elif body[:1] == b"\0":
        total, at = read_varint(body, 1)
        # Beyond twice the numbers, only positions that are there are coded.
        if total > MAX_N - k:
            raise ValueError(f"numbers that add up to {total}")
        positions = decode_positions(body[at:], k, k + total)
        numbers = np.diff(positions, prepend=-1) - 1
        if int(numbers.sum()) != total:
            raise ValueError(f"numbers that do not add up to {total}")
    else:
        raise ValueError("numbers in an unknown code")
    if numbers.max(initial=0) > most:
        raise ValueError(f"a number above {most}")
    return numbers


def fold(numbers: Array, below: int, above: int) -> Array:
    """Whole numbers in [-below, above] as 0, 1, ..., below + above: 0, -1, 1, -2, 2, ..., and from
    where one side has no more, the rest of the other."""
    sizes = np.abs(numbers)
    near = min(below, above)
    return np.where(sizes <= near, 2 * sizes - (numbers < 0), sizes + near)


def unfold(folded: Array, below: int, above: int) -> Array:
    """The inverse of :func:`fold`."""
    near = min(below, above)
    inside = folded <= 2 * near
    sizes = np.where(inside, (folded + 1) // 2, folded - near)
    return np.where(np.where(inside, folded % 2 == 1, below > above), -sizes, sizes)


def encode_signs(values: Array) -> bytes:
    """A bit for each value: 1 where it is negative."""
    return np.packbits(values < 0, bitorder="little").tobytes()


def decode_signs(body: bytes, k: int) -> Array:
    """``k`` factors, 1 or -1, float32. ValueError for anything but ``k`` bits filled with zeros."""
    if len(body) != (k + 7) // 8:
        raise ValueError(f"{len(body)} bytes for {k} signs")
    bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
    if bits[k:].any():
        raise ValueError("signs that are not filled up with zeros")
    return 1 - 2 * bits[:k].astype(np.float32)
