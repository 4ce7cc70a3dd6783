"""QSGD: every entry as a random one of a few levels of the vector's norm."""

from __future__ import annotations

import math

import numpy as np

from tacit.compressors.base import Array, Name, Quantiser, check_whole, contraction
from tacit.compressors.message import join, split, varint
from tacit.compressors.numbers import decode_numbers, decode_signs, encode_numbers, encode_signs
from tacit.errors import UserError


class QSGD(Quantiser):
    """``||v|| sign(v_i) l_i / s``, where ``l_i`` is one of the two whole numbers next to
    ``s |v_i| / ||v||``, at random so that the mean is the entry (Alistarh et al., "QSGD", NeurIPS
    2017, section 3.1). ``omega = min(d/s^2, sqrt(d)/s)`` (Lemma 3.1).

    ``levels``: s, without zero. ``bucket``: so many entries have a norm of their own (d above), as
    in the paper's experiments; None: all. Unbiased, and sparse for s below sqrt(d): the levels are
    entropy-coded, so zeros cost little. UserError where the norm is no float32.
    """

    kind = 3
    code = 19

    def __init__(self, levels: int = 16, bucket: int | None = None) -> None:
        self.levels = check_whole("levels", levels)
        if levels > 1 << 16:
            raise UserError(f"levels = {levels} is above 65536; use uniform")
        self.bucket = None if bucket is None else check_whole("bucket", bucket)

    def alpha(self, n: int) -> float | None:
        return contraction(self.omega(n))

    def omega(self, n: int) -> float | None:
        d = n if self.bucket is None else min(n, self.bucket)
        return min(d / self.levels**2, math.sqrt(d) / self.levels)

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        starts = self._starts(len(x))
        wide = x.astype(np.float64)
        exact = np.sqrt(np.add.reduceat(wide * wide, starts))
        with np.errstate(over="ignore"):
            norms = exact.astype(np.float32)
            norms = np.where(norms < exact, np.nextafter(norms, np.float32(np.inf)), norms)
        if not np.isfinite(norms).all():
            raise UserError(f"QSGD: the norm {exact.max():g} is beyond float32")
        scale = self._spread(np.where(norms > 0, norms, 1), len(x))
        draws = self.stream(*name, "rounding").random(len(x))
        numbers = np.floor(np.abs(wide) * (self.levels / scale) + draws).astype(np.int64)
        np.minimum(numbers, self.levels, out=numbers)  # the norm itself, with rounding
        return 0, join(
            varint(self.levels),
            norms.astype("<f4").tobytes(),
            encode_numbers(numbers),
            encode_signs(x[numbers > 0]),
        )

    def read(self, count: int, body: bytes, n: int, name: Name) -> Array:
        del name
        levels, front, coded, signs = split(body, 4)
        if count or levels != varint(self.levels):
            raise ValueError(f"QSGD: with other levels than {self.levels}")
        if len(front) != 4 * len(self._starts(n)):
            raise ValueError(f"QSGD: {len(front)} bytes of norms")
        with np.errstate(invalid="ignore"):  # what is not finite is refused
            norms = np.frombuffer(front, "<f4").astype(np.float64)
        if not np.isfinite(norms).all() or (norms < 0).any():
            raise ValueError("QSGD: a norm that is negative or not finite")
        numbers = decode_numbers(coded, n, self.levels)
        out = (numbers * (self._spread(norms, n) / self.levels)).astype(np.float32)
        sent = np.flatnonzero(numbers)
        out[sent] *= decode_signs(signs, len(sent))
        return out

    def _starts(self, n: int) -> Array:
        return np.arange(0, n, self.bucket or n)

    def _spread(self, norms: Array, n: int) -> Array:
        """The norm of every entry's bucket, float64; one number if all share it."""
        if len(norms) == 1:
            return norms.astype(np.float64)
        lengths = np.diff(self._starts(n), append=n)
        return np.repeat(norms.astype(np.float64), lengths)
