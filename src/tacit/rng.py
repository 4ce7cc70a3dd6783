"""Named streams of randomness.

Every random draw in Tacit is a function of a seed and a name, such as
``("batches", worker, pass_number)``, never of a global generator. So the draw does not depend on
which process hosts the worker, nor on what was drawn before, and there is no generator state to
save: a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch

Name = str | int


def derive(seed: int, *name: Name) -> int:
    """A 63-bit integer from ``seed`` and ``name``: the same everywhere, unrelated between names."""
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in (seed, *name))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_stream(seed: int, *name: Name) -> np.random.Generator:
    """A fresh NumPy generator for this name."""
    return np.random.Generator(np.random.PCG64(derive(seed, *name)))


def torch_stream(seed: int, *name: Name, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh torch generator for this name."""
    return torch.Generator(device=device).manual_seed(derive(seed, *name))


@contextlib.contextmanager
def scoped(seed: int, *name: Name, device: torch.device | None = None) -> Iterator[None]:
    """Run a block of code that draws from torch's default generators (initialisers, dropout) from
    this named stream instead, and leave the default generators as they were."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_default(derive(seed, *name), devices)
        yield


def seed_default(value: int, devices: list[torch.device]) -> None:
    """Seed torch's default CPU generator and those of ``devices``; no other device is touched."""
    torch.default_generator.manual_seed(value)
    for device in devices:
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
