"""Every entry in a value code of :mod:`tacit.codecs`: plain, uniform levels, or signs."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from tacit import rng
from tacit.codecs import VALUE_CODES, decode_values, encode_values
from tacit.codecs.values import CHUNK
from tacit.compressors.arrived import Arrived
from tacit.compressors.base import Array, Name, Quantiser, check_whole, contraction
from tacit.errors import UserError, unknown

Rounding = Literal["nearest", "random"]


class Coded(Quantiser):
    """A value code as a compressor.

    ``rounding``: to the nearest level, or at random so that the mean is the value, which the int
    codes can. ``chunk``: how many entries share a scale, a power of two; None: all.

    Constants, with m the entries that share a scale, and L levels (derived here; those of int8 and
    int4 are reached by the vector with one entry at the scale and the rest where rounding is
    worst). An entry rounds by at most ``h = 1/(L - 1)`` of the scale, and with a level at zero by
    no more than itself: ``alpha = 1/(1 + (m - 1) h^2)`` to the nearest level. At random the
    variance of an entry x between 0 and the next level is ``x (2 h - x)``:
    ``omega = (sqrt(1 + 4 (m - 1) h^2) - 1) / 2``. Without a level at zero (int2) both errors are
    at most ``(m - 1) / 9``. Signs: ``alpha = ||v||_1^2 / (m ||v||_2^2) >= 1/m``.
    """

    kind = 1

    def __init__(
        self, code: str, rounding: Rounding = "nearest", chunk: int | None = CHUNK
    ) -> None:
        if code not in VALUE_CODES:
            raise unknown("value code", code, VALUE_CODES)
        if rounding not in ("nearest", "random"):
            raise UserError(f"rounding must be nearest or random, not {rounding!r}")
        self.spec = VALUE_CODES[code]
        if rounding == "random" and not self.spec.stochastic:
            raise UserError(f"{code} has no random rounding; use nearest")
        if chunk is not None and check_whole("chunk", chunk) & (chunk - 1):
            raise UserError(f"chunk = {chunk} is not a power of two; try {CHUNK}")
        self.values, self.rounding, self.chunk = code, rounding, chunk
        self.code = self.spec.id
        self.reducible = code == "fp32"
        # The floats keep an exponent, so scaling by a power of two alone keeps their rounding.
        self.homogeneous = code not in ("fp16", "bf16")
        self.keeps_zeros = code not in ("int2", "sign")

    def alpha(self, n: int) -> float | None:
        if self.rounding == "random":
            return contraction(self.omega(n))
        m = self._sharing(n)
        if self.values in ("int8", "int4"):
            return 1 / (1 + (m - 1) / (self.spec.levels - 1) ** 2)
        if self.values == "int2":
            return 1 - (m - 1) / 9 if m < 10 else None
        if self.values == "sign":
            return 1 / m
        relative = {"fp32": 0.0, "fp16": 2.0**-11 + 2.0**-39 * math.sqrt(n), "bf16": 2.0**-8}
        return 1 - relative[self.values] ** 2

    def omega(self, n: int) -> float | None:
        if self.rounding == "nearest":
            return 0.0 if self.values == "fp32" else None
        others = self._sharing(n) - 1
        if self.values == "int2":
            return others / 9
        return (math.sqrt(1 + 4 * others / (self.spec.levels - 1) ** 2) - 1) / 2

    def pick(self, vector: Tensor, *name: rng.Name) -> Tensor:
        return vector if self.reducible else super().pick(vector, *name)

    def place(self, picked: Tensor, n: int, *name: rng.Name) -> Arrived:
        return Arrived(n, picked) if self.reducible else super().place(picked, n, *name)

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        draws = self.stream(*name, "rounding") if self.rounding == "random" else None
        return 0, encode_values(self.values, x, draws, chunk=self.chunk)

    def read(self, count: int, body: bytes, n: int, name: Name) -> Array:
        del name
        if count:
            raise ValueError(f"a count of {count}, where every entry is sent")
        return decode_values(self.values, body, n)

    def _sharing(self, n: int) -> int:
        return max(1, n if self.chunk is None else min(n, self.chunk))


class Identity(Coded):
    """The vector itself, in ``values`` fp32, fp16 or bf16."""

    def __init__(self, values: str = "fp32") -> None:
        if values not in ("fp32", "fp16", "bf16"):
            raise UserError(f"identity has values fp32, fp16 or bf16, not {values!r}")
        super().__init__(values)


class Uniform(Coded):
    """Every entry as one of 2^``bits`` - 1 (8, 4) or four (2) evenly spaced levels up to the
    largest magnitude of its chunk, rounded at random: unbiased."""

    def __init__(
        self, bits: int = 8, rounding: Rounding = "random", chunk: int | None = CHUNK
    ) -> None:
        if bits not in (8, 4, 2):
            raise UserError(f"bits must be 8, 4 or 2, not {bits!r}")
        super().__init__(f"int{bits}", rounding, chunk)


class Sign(Coded):
    """Scaled sign, ``(||v||_1 / n) sign(v)`` (Karimireddy et al., "Error feedback fixes SignSGD",
    ICML 2019), one bit an entry. A zero counts as positive: one bit has no third value.

    ``chunk``: entries that share a scale; None, as published: all. 4096 costs 0.008 bits more an
    entry, and guarantees more.
    """

    def __init__(self, chunk: int | None = None) -> None:
        super().__init__("sign", "nearest", chunk)
