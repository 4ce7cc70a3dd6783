"""The hash family of the AMS sketch: a bucket and a sign for every coordinate and sketch row.

Coordinate ``i`` lies in block ``q = i // m`` at place ``r = i % m``, where ``m`` is the number of
columns. What follows is for one sketch row; rows draw their keys independently.

**Buckets**, pairwise independent up to rounding. ``bucket(i) = (r + a_q) mod m``, with
``a_q = u_q mod m``, ``u_q = (A q + B) mod p``, ``p = 2^31 - 1`` and ``A, B`` uniform over 0..p-1.

- Two coordinates of one block never collide.
- For blocks ``q != q'`` the pair ``(u_q, u_q')`` is uniform over ``[p]^2``, because
  ``(A, B) -> (A q + B, A q' + B)`` is a bijection modulo the prime ``p``. Given ``u_q'``, a
  collision asks for one residue of ``u_q`` modulo ``m``, which at most ``ceil(p / m)`` of the
  ``p`` values have. So P(collision) <= ceil(p / m) / p <= 1/m + 1/p.

A whole block is thus added to the sketch row as one contiguous rotated vector, with no scatter.

**Signs**, exactly 5-wise independent, hence 4-wise. Let ``t = ceil(log2 m)`` and give ``i`` the
code ``c = (q << t) | r``, an element of GF(2^32). With ``<x, y>`` the parity of ``x & y``,
``sign(i) = (-1)^(e + <alpha, c> + <gamma, c^3>)``, ``e`` a uniform bit and ``alpha``, ``gamma``
uniform 32-bit words.

- The exponent is a uniform linear form of the column ``(1, c, c^3)``, so the signs of a set of
  coordinates are independent and fair if their columns are linearly independent over GF(2).
- Any 5 columns are. A vanishing sum of at most 5 of them has an even number of terms (the 1s).
  Two terms: ``c1 = c2``. Four: ``s = c1 + c2 = c3 + c4``, not 0, and as
  ``(x + y)^3 = x^3 + y^3 + x y (x + y)``, the cubes give ``c1 c2 = c3 c4``; then ``{c1, c2}`` and
  ``{c3, c4}`` are the roots of the same quadratic, so the four are not distinct.
  (These columns are the check matrix of the extended double-error-correcting BCH code; the use
  of that code for 4-wise independent signs is in Alon, Matias and Szegedy, STOC 1996.)

**Why no table of d entries is needed.** With ``Q = q << t``, ``c = Q + r`` and
``c^3 = Q^3 + (Q^2 r + Q r^2) + r^3``. The bracket is linear in the bits of ``r``, so

    sign(i) = flip_q * (-1)^popcount(w_q & r) * pattern(r)

where ``flip_q`` is the sign of the code ``Q``, bit ``k`` of the t-bit number ``w_q`` is
``<gamma, Q^2 x^k + Q x^(2k)>``, and ``pattern(r) = (-1)^(<alpha, r> + <gamma, r^3>)``. Kept are,
per block and row, ``a_q`` and ``w_q`` (2 bytes each, 4 where m > 2^15) and ``flip_q`` (1 byte), and
``m`` bytes of ``pattern`` per row: ``5 l ceil(d / m) + l m`` bytes for ``l`` rows. That is 1.0 MB
at d = 10^7, l = 5, m = 250, 2.5 % of the vector, where a bucket (2 bytes) and a sign (1 byte) for
every coordinate and row would take 150 MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tacit.errors import UserError
from tacit.rng import numpy_stream

Words = npt.NDArray[np.uint64]
Array = npt.NDArray[Any]

PRIME = 2**31 - 1
# x^32 + x^7 + x^3 + x^2 + 1, irreducible over GF(2); bit 32 is what `_times_x` shifts out.
POLYNOMIAL = (1 << 32) | 0b10001101
MAX_COLUMNS = 1 << 24


def multiply(a: Words, b: Words) -> Words:
    """Products in GF(2^32), elementwise with broadcasting; words below 2^32."""
    product = np.zeros(np.broadcast_shapes(a.shape, b.shape), dtype=np.uint64)
    for bit in range(32):
        product ^= a * ((b >> np.uint64(bit)) & np.uint64(1))
        a = _times_x(a)
    return product


def cube(a: Words) -> Words:
    """Third powers in GF(2^32)."""
    return multiply(multiply(a, a), a)


def parity(a: Words) -> Words:
    """The number of set bits modulo 2, of words below 2^32."""
    for shift in (16, 8, 4, 2, 1):
        a = a ^ (a >> np.uint64(shift))
    return a & np.uint64(1)


def walsh_signs(size: int) -> Array:
    """``(size, size)`` float32: entry ``(w, r)`` is ``(-1)^popcount(w & r)``."""
    index = np.arange(size, dtype=np.uint64)
    return _signs(parity(index[:, None] & index)).astype(np.float32)


class BlockHash:
    """The hash functions of ``rows`` sketch rows, tabulated by block (see the module's text).

    ``rotation``, ``walsh``: ``(blocks, rows)`` integers ``a_q`` and ``w_q``.
    ``flip``: ``(blocks, rows)`` int8, ``pattern``: ``(rows, columns)`` int8; both -1 or +1.
    Raises ``UserError`` where the codes of ``d`` coordinates do not fit in 32 bits.
    """

    def __init__(self, d: int, rows: int, columns: int, seed: int) -> None:
        if not 1 <= columns <= MAX_COLUMNS:
            raise UserError(f"columns must be between 1 and {MAX_COLUMNS}, not {columns}")
        if d < 1 or rows < 1:
            raise UserError(f"d and rows must be at least 1, not d={d} and rows={rows}")
        self.d, self.rows, self.columns = d, rows, columns
        self.bits = (columns - 1).bit_length()
        self.blocks = -(-d // columns)
        limit = min(1 << (32 - self.bits), PRIME)
        if self.blocks > limit:
            raise UserError(
                f"d={d} is too large for a sketch of {columns} columns: its hash reaches "
                f"{limit * columns} coordinates; take more columns, or sketch the vector in parts"
            )
        keys = numpy_stream(seed, "sketch", "buckets").integers(0, PRIME, size=(2, rows))
        self._slope, self._offset = keys.astype(np.int64)
        bits = numpy_stream(seed, "sketch", "signs").integers(0, 1 << 32, (3, rows), np.uint64)
        self._alpha, self._gamma, self._e = bits[0], bits[1], bits[2] & np.uint64(1)

        small = np.int16 if columns <= 1 << 15 else np.int32
        block = np.arange(self.blocks, dtype=np.uint64)
        place = np.arange(columns, dtype=np.uint64)
        high = block << np.uint64(self.bits)
        self.rotation: Array = self._rotations(block).astype(small)
        self.walsh: Array = self._walsh(high).astype(small)
        self.flip: Array = _signs(self._e ^ self._form(high))
        self.pattern: Array = np.ascontiguousarray(_signs(self._form(place)).T)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(x.nbytes for x in (self.rotation, self.walsh, self.flip, self.pattern))

    def buckets(self, coordinates: npt.ArrayLike) -> Array:
        """``(rows, n)`` int64 buckets of ``n`` coordinates, straight from the definition."""
        block, place = np.divmod(np.asarray(coordinates, dtype=np.int64), self.columns)
        return np.asarray((place[:, None] + self._rotations(block)) % self.columns).T

    def signs(self, coordinates: npt.ArrayLike) -> Array:
        """``(rows, n)`` int8 signs of ``n`` coordinates, straight from the definition."""
        return _signs(self._e ^ self._form(self.codes(coordinates))).T

    def codes(self, coordinates: npt.ArrayLike) -> Words:
        """The field elements ``(q << t) | r`` of the coordinates."""
        block, place = np.divmod(np.asarray(coordinates, dtype=np.uint64), np.uint64(self.columns))
        return np.asarray((block << np.uint64(self.bits)) | place, dtype=np.uint64)

    def _rotations(self, block: Array) -> Array:
        """``a_q``: ``(n, rows)`` int64. Every product is below 2^62, so int64 is exact."""
        u = (block.astype(np.int64)[:, None] * self._slope + self._offset) % PRIME
        return np.asarray(u % self.columns)

    def _form(self, code: Words) -> Words:
        """``<alpha, c> + <gamma, c^3>``: ``(n, rows)`` bits."""
        return parity((code[:, None] & self._alpha) ^ (cube(code)[:, None] & self._gamma))

    def _walsh(self, high: Words) -> Words:
        """``w_q``: ``(n, rows)`` words of ``bits`` bits."""
        word = np.zeros((len(high), self.rows), dtype=np.uint64)
        square, line = multiply(high, high), high
        for bit in range(self.bits):
            word |= parity((square ^ line)[:, None] & self._gamma) << np.uint64(bit)
            square, line = _times_x(square), _times_x(_times_x(line))
        return word


def _times_x(a: Words) -> Words:
    doubled = a << np.uint64(1)
    return np.asarray(doubled ^ ((doubled >> np.uint64(32)) * np.uint64(POLYNOMIAL)))


def _signs(bit: Words) -> Array:
    """Bit 0 gives +1, bit 1 gives -1."""
    return 1 - 2 * bit.astype(np.int8)
