"""Compressors that send some entries: their positions, and their values in a code of its own."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import TypeVar

import numpy as np

from tacit.codecs import VALUE_CODES, decode_positions, encode_positions
from tacit.compressors.arrived import Arrived
from tacit.compressors.base import Array, Compressor, Name, Quantiser, check_whole
from tacit.compressors.coded import Coded
from tacit.compressors.message import join, split
from tacit.compressors.natural import Natural
from tacit.errors import UserError, check_number, unknown
from tacit.setting import Setting


class Sparsifier(Compressor):
    """Sends the positions of some entries and their values; the others decode to zero.

    ``values``: how the values are written, by default exactly. The name of a value code, rounding
    to the nearest level, or ``"natural"``, or any :class:`Quantiser`. An entry that is zero is
    never sent.

    With a share a of the squared norm in the selection, and values that keep b of theirs,
    ``alpha = a b``: the two errors have no entry in common.
    """

    def __init__(self, values: str | Quantiser = "fp32") -> None:
        self.use(values)

    def use(self, values: str | Quantiser) -> None:
        """Write values so from now on."""
        self.values = as_quantiser(values)
        self.code = self.values.code
        self.homogeneous = self.values.homogeneous

    def start(self, setting: Setting) -> None:
        super().start(setting)
        self.values.start(setting)

    @abstractmethod
    def most(self, n: int) -> int:
        """The most entries that are sent of ``n``."""

    @abstractmethod
    def share(self, n: int) -> float | None:
        """The part of ``||v||^2`` that the selection has for certain, or on average; None where
        that may be none."""

    @abstractmethod
    def select(self, x: Array, name: Name) -> tuple[Array, Array]:
        """Positions (int64, ascending) and values there (float32)."""

    def alpha(self, n: int) -> float | None:
        return product(self.share(n), self.values.alpha(self.most(n)))

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        positions, values = self.select(x, name)
        if not values.all():
            positions, values = positions[values != 0], values[values != 0]
        content = self.values.write(values, (*name, "values"))[1] if len(values) else b""
        return len(positions), join(encode_positions(positions, len(x)), content)

    def entries(self, count: int, body: bytes, n: int, name: Name) -> Arrived:
        if count > self.most(n):
            raise ValueError(f"{count} entries, where {self.most(n)} are the most")
        places, content = split(body, 2)
        positions = decode_positions(places, count, n)
        if not count:
            if content:
                raise ValueError("values of no entries")
            return Arrived.of(n, np.zeros(0, np.float32), positions)
        return Arrived.of(n, self.values.read(0, content, count, (*name, "values")), positions)


Some = TypeVar("Some", bound=Sparsifier)


def chain(sparsifier: Some, values: str | Quantiser) -> Some:
    """First ``sparsifier``, then ``values`` on what it selects: a copy of it that writes values so,
    such as ``chain(TopK(density=0.01), QSGD(16))``."""
    twin = copy.copy(sparsifier)
    twin.use(values)
    return twin


def as_quantiser(values: str | Compressor) -> Quantiser:
    """The quantiser of this name. Raises UserError for an unknown one."""
    if isinstance(values, Quantiser):
        return values
    if isinstance(values, Compressor):
        raise UserError(f"values cannot be written by {type(values).__name__}: it drops entries")
    if values == "natural":
        return Natural()
    if values not in VALUE_CODES:
        raise unknown("value code", str(values), [*VALUE_CODES, "natural"])
    return Coded(values)


def product(*factors: float | None) -> float | None:
    """None if a factor is."""
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


class Part:
    """How many of n: ``ceil(density n)``, or ``k``, and at least one."""

    def __init__(self, density: float | None, k: int | None = None) -> None:
        if (density is None) == (k is None):
            raise UserError("give either a density or k, such as density=0.01")
        self.density = None if density is None else check_number("density", density, "(0, 1]")
        self.k = None if k is None else check_whole("k", k)

    def set(self, density: float) -> None:
        """Raises UserError where it is ``k`` that was given."""
        if self.k is not None:
            raise UserError("a number of entries k has no warm-up; give a density")
        self.__init__(density)  # type: ignore[misc]

    def of(self, n: int) -> int:
        if self.k is not None:
            return min(n, self.k)
        assert self.density is not None
        # 0.07 * 100 is a little more than 7
        return min(n, max(1, math.ceil(self.density * n - 1e-9)))
