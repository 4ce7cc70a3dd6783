"""Natural compression: every entry becomes a power of two."""

from __future__ import annotations

import struct

import numpy as np

from tacit.codecs import decode_positions, encode_positions
from tacit.compressors.base import Array, Name, Quantiser, contraction
from tacit.compressors.message import join, read_varint, split, varint
from tacit.compressors.numbers import (
    decode_numbers,
    decode_signs,
    encode_numbers,
    encode_signs,
    fold,
    unfold,
)
from tacit.errors import UserError

#: Exponents span at most this many powers of two, so that one is a byte.
_SPAN = 254
#: The most common exponent, and how far they go below and above it.
_FRONT = struct.Struct("<hBB")


class Natural(Quantiser):
    """A random one of the two powers of two next to an entry, so that the mean is the entry:
    ``omega = 1/8``, reached by entries of 4/3 times a power of two (Horvath et al., "Natural
    compression for distributed deep learning", 2019).

    Written are the places that are not zero, the exponents by their distance from the most
    common one, at most a byte each and far less for most vectors, and the signs. Entries more than
    2^253 times smaller than the largest become 0 or the smallest power written, without bias.
    Entries above 2^127 raise UserError: their upper neighbour is no float32.
    """

    kind = 2
    code = 18
    # Only scaling by a power of two keeps the neighbours.
    homogeneous = False

    def alpha(self, n: int) -> float | None:
        return contraction(self.omega(n))

    def omega(self, n: int) -> float | None:
        del n
        return 0.125

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        places = np.flatnonzero(x)
        sizes = np.abs(x[places]).astype(np.float64)  # where no float32 is subnormal
        largest = float(sizes.max(initial=0))
        if largest > 2.0**127:
            raise UserError(f"Natural: {largest:g} is above 2^127, the largest power of two")
        draws = self.stream(*name, "rounding")
        # A float32 has 23 bits of mantissa; one at random added carries as often as it should.
        carried = sizes.view(np.int64) + (draws.integers(0, 1 << 23, len(sizes)) << 29)
        exponents = (carried >> 52) - 1023
        top = int(np.frexp(largest)[1])
        least = top - _SPAN
        small = np.flatnonzero(sizes < np.ldexp(1.0, least))
        exponents[small] = least
        kept = np.ones(len(places), dtype=bool)
        kept[small] = draws.random(len(small)) < np.ldexp(sizes[small], -least)
        places, exponents = places[kept], exponents[kept]
        usual, below, above = _range(exponents)
        return 0, join(
            _FRONT.pack(usual, below, above)
            + varint(len(places))
            + encode_positions(places, len(x)),
            encode_numbers(fold(exponents - usual, below, above)),
            encode_signs(x[places]),
        )

    def read(self, count: int, body: bytes, n: int, name: Name) -> Array:
        del name
        front, numbers, signs = split(body, 3)
        if count or len(front) < _FRONT.size:
            raise ValueError("natural: cut off")
        usual, below, above = _FRONT.unpack_from(front)
        k, at = read_varint(front, _FRONT.size)
        places = decode_positions(front[at:], k, n)
        exponents = usual + unfold(decode_numbers(numbers, k, below + above), below, above)
        out = np.zeros(n, dtype=np.float32)
        with np.errstate(over="ignore"):  # what is not finite is refused
            out[places] = np.ldexp(decode_signs(signs, k), exponents)
        return out


def _range(exponents: Array) -> tuple[int, int, int]:
    """The most common exponent, and how far they go below and above it."""
    if not len(exponents):
        return 0, 0, 0
    least = int(exponents.min())
    usual = int(np.bincount(exponents - least).argmax())
    return least + usual, usual, int(exponents.max()) - least - usual
