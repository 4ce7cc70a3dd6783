"""A matrix of low rank in place of the vector."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from tacit.compressors.base import Array, Compressor, Name, Quantiser, check_whole
from tacit.compressors.message import join, split
from tacit.compressors.sparse import as_quantiser
from tacit.errors import UserError
from tacit.setting import Setting

_LARGEST = float(np.finfo(np.float32).max)


class LowRank(Compressor):
    """One power iteration (Vogels et al., "PowerSGD", NeurIPS 2019, Algorithm 1). The vector is
    seen as a matrix M ``(a, b)``, a >= b, with zeros behind its end. ``P = M Q``, orthonormalised,
    and ``R = M' P`` travel, ``rank (a + b)`` numbers; the decoded matrix is ``P R'``.

    ``shape``: a and b in either order, or ``"784x10"``; None: nearly square. ``warm``: R,
    orthonormalised, is the Q of the same worker's next vector of this length; else, and at first,
    Q is random. ``values``: how both factors are written, see :class:`Sparsifier`.

    ``alpha = rank/b`` with a random Q and fp32 values, on average, which is what the best matrix of
    that rank guarantees: the columns of M Q hold those of M G, with G an orthonormal basis of Q,
    so ``||P P' M||^2 >= ||M G||^2``, on average rank/b of ``||M||^2``. Mostly it is far more. A
    warm Q may be orthogonal to all of M: nothing is guaranteed.

    The message of one worker. The published method instead adds the workers' P, and then their R.
    """

    kind = 32
    keeps_zeros = False

    def __init__(
        self,
        rank: int = 1,
        shape: tuple[int, int] | str | None = None,
        warm: bool = True,
        values: str | Quantiser = "fp32",
    ) -> None:
        self.rank = check_whole("rank", rank)
        self.shape = None if shape is None else _sides(shape)
        self.warm = warm
        self.values = as_quantiser(values)
        self.code = self.values.code
        self.homogeneous = self.values.homogeneous
        #: The next Q, ``(b, rank)``, by worker and length.
        self._starts: dict[str, Array] = {}

    def start(self, setting: Setting) -> None:
        super().start(setting)
        self.values.start(setting)
        self._starts = {}

    def for_shape(self, shape: tuple[int, ...]) -> Compressor:
        """As PowerSGD takes a tensor: its first dimension by all others."""
        twin = copy.copy(self)  # which keeps its warm starts in the same place
        twin.shape = (shape[0], math.prod(shape[1:]))
        return twin

    def alpha(self, n: int) -> float | None:
        a, b = self.sides(n)
        if self.values.alpha(self._rank(n) * (a + b)) != 1 or self.warm:
            return None
        return min(1.0, self._rank(n) / b)

    def sides(self, n: int) -> tuple[int, int]:
        """a and b for a vector of ``n`` numbers. Raises UserError if they do not fit its shape."""
        if self.shape is None:
            a = max(1, math.isqrt(max(0, n - 1)) + 1)
            return a, max(1, -(-n // a))
        a, b = self.shape
        if not n <= a * b < n + a + b:
            raise UserError(f"a vector of {n} numbers is no {a}x{b} matrix")
        return max(a, b), min(a, b)

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        matrix, scale = self._matrix(x)
        key = _key(name, len(x))
        q = self._first(len(x), name)
        if self.warm and key in self._starts:
            q = self._starts[key]
        p = np.linalg.qr(_times(matrix, q))[0]
        r = _times(matrix.T, p)
        if self.warm and r.any():  # a vector of zeros says nothing about the next
            # Orthonormal: a column that this matrix did not need is not lost for the next.
            self._starts[key] = np.linalg.qr(r)[0]
        with np.errstate(over="ignore"):  # what is not finite is refused
            factors = [p, r * np.float32(scale)]
        parts = [
            self.values.write(np.ascontiguousarray(factor).ravel(), (*name, side))[1]
            for factor, side in zip(factors, ("left", "right"), strict=True)
        ]
        return q.shape[1], join(*parts)

    def read(self, count: int, body: bytes, n: int, name: Name) -> Array:
        (a, b), rank = self.sides(n), self._rank(n)
        if count != rank:
            raise ValueError(f"rank {count}, where {rank} is expected")
        left, right = split(body, 2)
        p = self.values.read(0, left, a * rank, (*name, "left")).reshape(a, rank)
        r = self.values.read(0, right, b * rank, (*name, "right")).reshape(b, rank)
        matrix = _times(p.astype(np.float64), r.T.astype(np.float64))
        rows = matrix.T if self._turned else matrix
        return np.clip(rows.ravel()[:n], -_LARGEST, _LARGEST).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._starts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._starts.clear()
        self._starts.update(state)

    def worker_state(self, worker: int) -> dict[str, Any]:
        mine = f"worker/{worker}/"
        return {key: start for key, start in self._starts.items() if key.startswith(mine)}

    def load_worker_state(self, worker: int, state: dict[str, Any]) -> None:
        del worker
        self._starts.update(state)

    @property
    def _turned(self) -> bool:
        return self.shape is not None and self.shape[0] < self.shape[1]

    def _rank(self, n: int) -> int:
        return min(self.rank, self.sides(n)[1])

    def _matrix(self, x: Array) -> tuple[Array, float]:
        """M and its scale, a power of two that is taken out so that no product overflows."""
        a, b = self.sides(len(x))
        largest = float(np.abs(x).max())
        scale = math.ldexp(1.0, max(-126, math.frexp(largest)[1] - 1))
        padded = np.zeros(a * b, dtype=np.float32)
        np.divide(x, np.float32(scale), out=padded[: len(x)])
        return (padded.reshape(b, a).T if self._turned else padded.reshape(a, b)), scale

    def _first(self, n: int, name: Name) -> Array:
        draws = self.stream(*name, "start")
        return draws.standard_normal((self.sides(n)[1], self._rank(n)), dtype=np.float32)


def _times(left: Array, right: Array) -> Array:
    """The product of finite matrices whose product is finite."""
    # Vectorised kernels look beyond the edges, and warn of what they find and do not use.
    with np.errstate(all="ignore"):
        return np.asarray(left @ right)


def _key(name: Name, n: int) -> str:
    """Whose vector it is: the name up to its step, and the length."""
    owner = name[: name.index("step")] if "step" in name else name
    return "/".join([*(str(part) for part in owner), str(n)])


def _sides(shape: tuple[int, int] | str) -> tuple[int, int]:
    sides = shape
    if isinstance(shape, str):
        a, _, b = shape.partition("x")
        sides = (int(a), int(b)) if a.isdecimal() and b.isdecimal() else ()  # type: ignore[assignment]
    if not isinstance(sides, tuple) or len(sides) != 2:
        raise UserError(f"a shape has two sides, such as 784x10, not {shape!r}")
    return check_whole("a side", sides[0]), check_whole("a side", sides[1])
