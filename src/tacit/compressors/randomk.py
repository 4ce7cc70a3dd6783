"""Random entries, whose positions both sides draw and nobody sends."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from tacit import rng
from tacit.compressors.arrived import Arrived
from tacit.compressors.base import Array, Name, Quantiser, contraction, without_worker
from tacit.compressors.coded import Coded
from tacit.compressors.sparse import Part, Sparsifier, as_quantiser


class RandomK(Sparsifier):
    """``ceil(density n)`` entries, or ``k``, at random, all sets being equally likely. Only their
    values are sent: the positions are a function of the seed and the name.

    ``shared``: the name less the worker, so that all workers send the same positions at a step, and
    their messages can be added (with values in fp32). ``scaled``: times n/k, which is unbiased with
    ``omega = n/k - 1``; int values then round at random, so that it stays so. Without,
    ``alpha = k/n`` on average.

    The draw is NumPy's, which a future version may change; then a message has another checksum than
    the receiver expects, and is refused.
    """

    kind = 20

    def __init__(
        self,
        density: float | None = None,
        k: int | None = None,
        scaled: bool = False,
        shared: bool = True,
        values: str | Quantiser = "fp32",
    ) -> None:
        self.part = Part(density, k)
        self.scaled, self.shared = scaled, shared
        self._drawn: tuple[object, Array] | None = None
        super().__init__(values)

    def use(self, values: str | Quantiser) -> None:
        quantiser = as_quantiser(values)
        drawn = self.scaled and isinstance(quantiser, Coded) and quantiser.spec.stochastic
        if isinstance(values, str) and drawn:
            quantiser = Coded(values, "random")
        super().use(quantiser)
        self.reducible = self.shared and quantiser.reducible
        self.keeps_zeros = quantiser.keeps_zeros

    def most(self, n: int) -> int:
        return self.part.of(n)

    def share(self, n: int) -> float | None:
        return self.most(n) / n if n else 1.0

    def alpha(self, n: int) -> float | None:
        if not self.scaled:
            return super().alpha(n)
        return contraction(self.omega(n))

    def omega(self, n: int) -> float | None:
        k = self.most(n)
        own = self.values.omega(k)
        if own is None or not (self.scaled or k == n):
            return None
        return (n / k if n else 1.0) * (1 + own) - 1

    def positions(self, n: int, name: Name) -> Array:
        """The positions of this name, int64, ascending."""
        if self.shared:
            name = without_worker(name)
        key = (self.seed, n, name)
        if self._drawn is None or self._drawn[0] != key:  # the other workers draw the same
            draw = self.stream(*name, "positions")
            chosen = draw.choice(n, self.most(n), replace=False, shuffle=False)
            self._drawn = key, np.sort(chosen.astype(np.int64))
        return self._drawn[1]

    def select(self, x: Array, name: Name) -> tuple[Array, Array]:
        positions = self.positions(len(x), name)
        values = x[positions]
        if self.scaled:
            with np.errstate(over="ignore"):  # what is not finite is refused
                values *= np.float32(len(x) / len(positions))
        return positions, values

    @property
    def density(self) -> float | None:
        return self.part.density

    def set_density(self, density: float) -> None:
        self.part.set(density)

    def pick(self, vector: Tensor, *name: rng.Name) -> Tensor:
        positions = self._places(vector, len(vector), name)
        return vector[positions] * (len(vector) / len(positions) if self.scaled else 1.0)

    def place(self, picked: Tensor, n: int, *name: rng.Name) -> Arrived:
        return Arrived(n, picked, self._places(picked, n, name))

    def _places(self, like: Tensor, n: int, name: Name) -> Tensor:
        return torch.from_numpy(self.positions(n, name)).to(like.device)

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        values = self.select(x, name)[1]
        return len(values), self.values.write(values, (*name, "values"))[1]

    def entries(self, count: int, body: bytes, n: int, name: Name) -> Arrived:
        positions = self.positions(n, name)
        if count != len(positions):
            raise ValueError(f"{count} entries, where {len(positions)} are expected")
        return Arrived.of(n, self.values.read(0, body, count, (*name, "values")), positions)

    def salt(self, n: int, name: Name) -> int:
        if not n:
            return 0
        return zlib.crc32(self.positions(n, name).astype("<i8").tobytes())
