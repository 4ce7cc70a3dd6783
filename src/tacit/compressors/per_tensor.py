"""A compressor for each parameter tensor by itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from tacit.compressors.arrived import Arrived
from tacit.compressors.base import Array, Compressor, Name, Quantiser
from tacit.compressors.message import join, read_varint, split, varint
from tacit.compressors.sparse import as_quantiser
from tacit.errors import UserError
from tacit.setting import Setting


class PerTensor(Compressor):
    """``inner`` on each parameter tensor of two or more dimensions, all in one message. Biases and
    weights of normalisations, few and touchy, go whole, their values in ``dense`` (Lin et al., DGC,
    ICLR 2018; the authors' code). ``alpha`` is the least of the parts'.

    Before :meth:`start` says how the vector is made of tensors, it is one.
    """

    kind = 48

    def __init__(self, inner: Compressor, dense: str | Quantiser = "fp32") -> None:
        self.inner, self.dense = inner, as_quantiser(dense)
        self.homogeneous = inner.homogeneous and self.dense.homogeneous
        self.keeps_zeros = inner.keeps_zeros and self.dense.keeps_zeros
        self.code = inner.code
        self._shapes: tuple[tuple[int, ...], ...] = ()
        #: What :func:`split_by_size` says of them.
        self._split: tuple[list[slice], Array] = ([], np.zeros(0, np.int64))
        self._inners: list[Compressor] = []

    def start(self, setting: Setting) -> None:
        super().start(setting)
        self.inner.start(setting)
        self.dense.start(setting)
        self._shapes = setting.parameter_shapes()
        self._split = split_by_size(self._shapes)
        large = [shape for shape in self._shapes if _is_large(shape)]
        self._inners = [self.inner.for_shape(shape) for shape in large]

    @property
    def density(self) -> float | None:
        return self.inner.density

    def set_density(self, density: float) -> None:
        self.inner.set_density(density)

    def alpha(self, n: int) -> float | None:
        large, small = self._parts(n)
        lengths = [len(range(*part.indices(n))) for part in large]
        alphas = [self.inner.alpha(length) for length in lengths]
        alphas += [self.dense.alpha(len(small))] if len(small) else []
        known = [alpha for alpha in alphas if alpha is not None]
        return min(known, default=1.0) if len(known) == len(alphas) else None

    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        large, small = self._parts(len(x))
        bodies = []
        for tensor, part in enumerate(large):
            count, body = self._of(tensor).write(x[part], _within(name, tensor))
            bodies.append(varint(count) + body)
        rest = self.dense.write(x[small], (*name, "dense"))[1] if len(small) else b""
        return 0, join(*bodies, rest)

    def entries(self, count: int, body: bytes, n: int, name: Name) -> Arrived:
        large, small = self._parts(n)
        if count:
            raise ValueError(f"a count of {count}, where every tensor has its own")
        *bodies, rest = split(body, len(large) + 1)
        parts: list[tuple[slice, Arrived]] = []
        for tensor, (part, content) in enumerate(zip(large, bodies, strict=True)):
            of_it, at = read_varint(content)
            length = part.stop - part.start
            own = self._of(tensor).entries(of_it, content[at:], length, _within(name, tensor))
            parts.append((part, own))
        if rest and not len(small):
            raise ValueError("values of no entries")
        others = np.zeros(0, np.float32)
        if len(small):
            others = self.dense.read(0, rest, len(small), (*name, "dense"))
        if any(own.positions is None for _, own in parts):  # positions would be twice as long
            vector = np.zeros(n, np.float32)
            for part, own in parts:
                vector[part] = own.dense().numpy()
            vector[small] = others
            return Arrived(n, torch.from_numpy(vector))
        values = [*(own.values.numpy() for _, own in parts), others]
        places = [own.positions.numpy() + p.start for p, own in parts if own.positions is not None]
        return Arrived.of(n, np.concatenate(values), np.concatenate([*places, small]))

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def worker_state(self, worker: int) -> dict[str, Any]:
        return self.inner.worker_state(worker)

    def load_worker_state(self, worker: int, state: dict[str, Any]) -> None:
        self.inner.load_worker_state(worker, state)

    def _of(self, tensor: int) -> Compressor:
        return self._inners[tensor] if self._inners else self.inner

    def _parts(self, n: int) -> tuple[list[slice], Array]:
        """The large tensors, and the entries of the others."""
        if not self._shapes:
            return [slice(0, n)], np.zeros(0, np.int64)
        if n != sum(map(math.prod, self._shapes)):
            raise UserError(f"a vector of {n} numbers is not made of these tensors: {self._shapes}")
        return self._split


def split_by_size(shapes: tuple[tuple[int, ...], ...]) -> tuple[list[slice], Array]:
    """The places of tensors of two or more dimensions in the flat vector, and all other entries."""
    large, small, start = [], [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        if _is_large(shape):
            large.append(slice(start, stop))
        else:
            small.append(np.arange(start, stop))
        start = stop
    return large, np.concatenate(small) if small else np.zeros(0, np.int64)


def _is_large(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and math.prod(shape) > 0


def _within(name: Name, tensor: int) -> Name:
    """The name of one tensor's part: in front of the step, as it belongs to the owner."""
    at = name.index("step") if "step" in name else len(name)
    return (*name[:at], "tensor", tensor, *name[at:])
