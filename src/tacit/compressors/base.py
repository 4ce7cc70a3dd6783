"""What travels instead of a vector: the compressor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit import rng
from tacit.compressors import message as wire
from tacit.compressors.arrived import Arrived
from tacit.errors import PeerError, UserError
from tacit.setting import Setting

Array = npt.NDArray[Any]
#: Where a draw belongs, such as ``("worker", 3, "step", 17)``.
Name = tuple[rng.Name, ...]


class Compressor(ABC):
    """Turns a float32 vector ``(n,)`` into bytes, and bytes into a vector that resembles it.

    Both sides make it with the same arguments. It belongs to a process, not to a worker: a call's
    ``name``, ``("worker", w, ..., "step", t)``, says whose vector it is, and all randomness comes
    from it. What a worker leaves for its next message is in :meth:`state_dict`.

    A vector of no numbers is allowed: its message is a header. A vector of zeros decodes to zeros,
    whatever the compressor. Constants hold up to float32 rounding, to which subnormal numbers
    (below 2^-126) may lose all they have.
    """

    #: Its number on the wire. Never renumber.
    kind: int
    #: The number of its value code on the wire; 0: it has none.
    code: int = 0
    #: Whether the compressor is the same linear map for all workers at a step, with float32 values
    #: in the same places of every message: then messages can be added without decoding each.
    reducible: bool = False
    #: Whether C(t v) = t C(v) for t > 0 with the same draws, up to float32 rounding.
    homogeneous: bool = True
    #: Whether zero entries stay zero.
    keeps_zeros: bool = True
    #: Whether :meth:`encode` looks for NaN and inf; False where :meth:`write` finds them.
    checks: bool = True
    seed: int = 0

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        self.seed = setting.seed

    def encode(self, vector: Tensor, *name: rng.Name) -> bytes:
        """``vector`` (float32, ``(n,)``, on any device) as a message; its cost is its length.

        Raises UserError for another type or shape, and for a value that is not finite.
        """
        x = _flat(vector)
        if self.checks and (place := _not_finite(x)) is not None:
            raise UserError(
                f"{type(self).__name__}: {x[place]} at {place}; only finite values are sent"
            )
        count, body = self.write(x, name) if len(x) else (0, b"")
        return wire.pack(self._kind(len(x)), count, body, self.salt(len(x), name))

    def decode(self, message: bytes, n: int, sender: str, *name: rng.Name) -> Tensor:
        """The vector in ``message``, ``(n,)`` float32 on the CPU; ``name`` is that of
        :meth:`encode`.

        ``message`` is not trusted: time and memory are O(n + its length). Raises PeerError, naming
        the sender, for anything but a message of this compressor for ``n`` numbers.
        """
        return self.arrive(message, n, sender, *name).dense()

    def arrive(self, message: bytes, n: int, sender: str, *name: rng.Name) -> Arrived:
        """:meth:`decode`, without writing out entries that are not there."""
        count, body = wire.unpack(message, sender, self._kind(n), self.salt(n, name))
        try:
            if n == 0 and (count or body):
                raise ValueError("a body where there are no numbers")
            arrived = self.entries(count, body, n, name) if n else Arrived(0, torch.zeros(0))
            if (place := _not_finite(arrived.values.numpy())) is not None:
                at = place if arrived.positions is None else int(arrived.positions[place])
                raise ValueError(f"{float(arrived.values[place])} at {at}")
        except UserError:  # about this side's own arguments
            raise
        except ValueError as error:
            raise PeerError(f"message from {sender}: {error}") from None
        return arrived

    @abstractmethod
    def alpha(self, n: int) -> float | None:
        """Contraction: ``E ||C(v) - v||^2 <= (1 - alpha) ||v||^2`` for every ``v`` of ``n``
        numbers. None where none is guaranteed."""

    def omega(self, n: int) -> float | None:
        """Variance of an unbiased compressor: ``E C(v) = v`` and
        ``E ||C(v) - v||^2 <= omega ||v||^2``. None where it is biased."""
        del n
        return None

    @abstractmethod
    def write(self, x: Array, name: Name) -> tuple[int, bytes]:
        """Count and body for ``n >= 1`` finite numbers, which must stay as they are."""

    def entries(self, count: int, body: bytes, n: int, name: Name) -> Arrived:
        """What is in ``body``, of ``n >= 1`` numbers, in memory of its own; ValueError if it is
        nothing. A compressor has this one or :meth:`read`."""
        return Arrived(n, torch.from_numpy(self.read(count, body, n, name)))

    def read(self, count: int, body: bytes, n: int, name: Name) -> Array:
        """:meth:`entries` as a vector."""
        vector: Array = self.entries(count, body, n, name).dense().numpy()
        return vector

    def pick(self, vector: Tensor, *name: rng.Name) -> Tensor:
        """Of a reducible compressor: the numbers that :meth:`encode` would write, ``(k,)`` float32.
        Every worker's are in the same places, and a mean of them is one of the vectors."""
        del vector, name
        raise NotImplementedError(f"{type(self).__name__} is not reducible")

    def place(self, picked: Tensor, n: int, *name: rng.Name) -> Arrived:
        """The vector of ``n`` numbers of what :meth:`pick` gave, on its device."""
        del picked, n, name
        raise NotImplementedError(f"{type(self).__name__} is not reducible")

    @property
    def density(self) -> float | None:
        """The part of the entries that is sent, where :meth:`set_density` can change it."""
        return None

    def set_density(self, density: float) -> None:
        """Send this part of the entries from now on. Raises UserError where there is no density."""
        del density
        raise UserError(f"{type(self).__name__} has no density that could change in a warm-up")

    def for_shape(self, shape: tuple[int, ...]) -> Compressor:
        """This compressor for a tensor of this shape, of two or more dimensions."""
        del shape
        return self

    def salt(self, n: int, name: Name) -> int:
        """32 bits that depend on what both sides draw and nobody sends."""
        del n, name
        return 0

    def stream(self, *name: rng.Name) -> np.random.Generator:
        """The generator of this name."""
        return rng.numpy_stream(self.seed, "compressor", *name)

    def state_dict(self) -> dict[str, Any]:
        """What the hosted workers' next messages depend on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state

    def worker_state(self, worker: int) -> dict[str, Any]:
        """The part of :meth:`state_dict` that belongs to one worker."""
        del worker
        return {}

    def load_worker_state(self, worker: int, state: dict[str, Any]) -> None:
        del worker, state

    def _kind(self, n: int) -> wire.Kind:
        return wire.Kind(self.kind, self.code, n)


class Quantiser(Compressor):
    """A compressor that writes every entry, and so can also write the values a sparsifier picked.

    Its count is 0, and its constants get no better with more entries.
    """


def contraction(omega: float | None) -> float | None:
    """``alpha`` of an unbiased compressor: ``1 - omega``, where that is above 0."""
    return 1 - omega if omega is not None and omega < 1 else None


def without_worker(name: Name) -> Name:
    """The name that all workers share: less ``"worker"`` and the number behind it."""
    if "worker" not in name:
        return name
    at = name.index("worker")
    return name[:at] + name[at + 2 :]


def check_whole(what: str, number: int, least: int = 1) -> int:
    """Raises UserError for what is no whole number from ``least`` on."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise UserError(f"{what} must be a whole number, at least {least}, not {number!r}")
    return number


def _flat(vector: Tensor) -> Array:
    if vector.ndim != 1 or vector.dtype != torch.float32:
        raise UserError(
            f"a compressor takes a flat float32 vector, not {vector.dtype} of "
            f"{tuple(vector.shape)}; use vector.flatten().float()"
        )
    return vector.detach().cpu().contiguous().numpy()


def _not_finite(x: Array) -> int | None:
    """The first place of NaN or inf. One pass: a sum that is finite has only finite terms."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(x.sum()):
            return None
    finite = np.isfinite(x)
    return None if finite.all() else int(np.argmin(finite))
