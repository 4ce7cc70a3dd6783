"""The largest entries: of the vector, by a sample, of each block, or above a threshold."""

from __future__ import annotations

import math

import numpy as np

from tacit.codecs import sampled_top_k, take, take_top_k
from tacit.compressors.base import Array, Name, Quantiser, check_whole
from tacit.compressors.sparse import Part, Sparsifier
from tacit.errors import UserError, check_number

#: Entries looked at in one go by the block-wise selection.
_CHUNK = 1 << 18


class TopK(Sparsifier):
    """The ``k`` entries with the largest magnitude, or ``ceil(density n)`` of them; the first of
    equal ones. ``alpha = k/n``, reached where all entries have equal size."""

    kind = 16
    checks = False  # what is not finite is largest, and found

    def __init__(
        self,
        density: float | None = None,
        k: int | None = None,
        values: str | Quantiser = "fp32",
    ) -> None:
        super().__init__(values)
        self.part = Part(density, k)

    @property
    def density(self) -> float | None:
        return self.part.density

    def set_density(self, density: float) -> None:
        self.part.set(density)

    def most(self, n: int) -> int:
        return self.part.of(n)

    def share(self, n: int) -> float | None:
        return self.most(n) / n if n else 1.0

    def select(self, x: Array, name: Name) -> tuple[Array, Array]:
        del name
        return take_top_k(x, self.most(len(x)))


class SampledTopK(Sparsifier):
    """DGC's policy (Lin et al., ICLR 2018): about ``ceil(density n)`` of the largest entries, never
    more, by a threshold from a strided sample of ``ratio`` of the vector, see
    :func:`tacit.codecs.sampled_top_k`.

    Guaranteed are as many of the largest entries as the sample alone has to send; mostly they are
    far more.
    """

    kind = 17
    checks = False  # as above

    def __init__(
        self, density: float, ratio: float = 0.01, values: str | Quantiser = "fp32"
    ) -> None:
        super().__init__(values)
        self.part = Part(density)
        self.ratio = check_number("ratio", ratio, "[0.01, 1]")

    def set_density(self, density: float) -> None:
        self.part.set(density)

    @property
    def density(self) -> float:
        assert self.part.density is not None
        return self.part.density

    def most(self, n: int) -> int:
        return self.part.of(n)

    def share(self, n: int) -> float | None:
        sample = min(n, max(math.ceil(self.ratio * n), math.ceil(2 / self.density)))
        sure = math.ceil(sample * self.density - 1e-9)
        return min(self.most(n), sure) / n if n else 1.0

    def select(self, x: Array, name: Name) -> tuple[Array, Array]:
        draws = self.stream(*name, "sample")
        positions = sampled_top_k(x, self.most(len(x)), self.density, draws, ratio=self.ratio)
        return positions, take(x, positions)


class BlockTopK(Sparsifier):
    """The ``k`` largest entries of each ``block`` entries, the first of equal ones; of a last,
    shorter block proportionally many. ``alpha = k/block``. Published for pseudo-gradients with 64
    of 4096 (Sarfi et al., "SparseLoCo", 2025), so that no layer goes without."""

    kind = 18

    def __init__(self, k: int = 64, block: int = 4096, values: str | Quantiser = "fp32") -> None:
        super().__init__(values)
        self.block = check_whole("block", block)
        self.k = check_whole("k", k)
        if k > block:
            raise UserError(f"k = {k} entries of a block of {block}; choose fewer")

    def most(self, n: int) -> int:
        return n // self.block * self.k + self._last(n % self.block)

    def share(self, n: int) -> float | None:
        return self.most(n) / n if 0 < n < self.block else self.k / self.block

    def select(self, x: Array, name: Name) -> tuple[Array, Array]:
        del name
        sizes = x.view(np.int32) & np.int32(0x7FFFFFFF)  # ordered as the magnitudes are
        whole = len(x) // self.block * self.block
        step = max(1, _CHUNK // self.block) * self.block
        found = [
            start + _largest(sizes[start : min(start + step, whole)], self.block, self.k)
            for start in range(0, whole, step)
        ]
        if rest := len(x) - whole:
            found.append(whole + _largest(sizes[whole:], rest, self._last(rest)))
        positions = np.concatenate(found)
        return positions, x[positions]

    def _last(self, length: int) -> int:
        return -(-self.k * length // self.block)


class Threshold(Sparsifier):
    """The entries of magnitude ``t`` and above, however many. Nothing is guaranteed relative to
    the vector; the squared error is at most ``n t^2``. ``C(v)`` depends on the size of ``v``."""

    kind = 19

    def __init__(self, t: float, values: str | Quantiser = "fp32") -> None:
        super().__init__(values)
        self.t = check_number("the threshold t", t, "(0, inf)")

    def use(self, values: str | Quantiser) -> None:
        super().use(values)
        self.homogeneous = False

    def most(self, n: int) -> int:
        return n

    def share(self, n: int) -> float | None:
        return None if n else 1.0

    def select(self, x: Array, name: Name) -> tuple[Array, Array]:
        del name
        positions = np.flatnonzero(np.abs(x) >= self.t)
        return positions, x[positions]


def _largest(sizes: Array, block: int, k: int) -> Array:
    """Positions of the ``k`` largest of each block of these, ascending; the first of equal ones."""
    rows = sizes.reshape(-1, block)
    least = np.partition(rows, block - k, axis=1)[:, block - k, None]
    chosen = rows > least
    room = k - chosen.sum(axis=1, keepdims=True)
    equal = rows == least
    chosen |= equal & (equal.cumsum(axis=1) <= room)
    return np.flatnonzero(chosen)
