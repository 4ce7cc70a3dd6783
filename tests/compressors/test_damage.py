"""Messages that no honest sender wrote: a PeerError that names the sender, no third thing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from listed import PLUGINS, Plugin, gaussian

from tacit.compressors import (
    QSGD,
    Compressor,
    Identity,
    LowRank,
    Natural,
    RandomK,
    TopK,
    message,
)
from tacit.errors import PeerError
from tacit.rng import numpy_stream

NAME = ("worker", 3, "step", 17)
N = 37

every = pytest.mark.parametrize("plugin", PLUGINS.values(), ids=PLUGINS)


def refused(made: Compressor, damaged: bytes, n: int = N) -> None:
    with pytest.raises(PeerError, match=r"^message from bob: ") as error:
        made.decode(damaged, n, "bob", *NAME)
    assert len(str(error.value).splitlines()) == 1


@every
def test_cut_off_or_longer(plugin: Plugin) -> None:
    made = plugin.make()
    whole = made.encode(gaussian(N), *NAME)
    for length in range(len(whole)):
        refused(made, whole[:length])
    for more in (b"\0", b"\1", whole):
        refused(made, whole + more)


@every
def test_every_bit_counts(plugin: Plugin) -> None:
    made = plugin.make()
    whole = made.encode(gaussian(N), *NAME)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        refused(made, bytes(damaged))


@every
def test_noise(plugin: Plugin) -> None:
    made, rng = plugin.make(), numpy_stream(0, "noise")
    for length in range(60):
        refused(made, rng.bytes(length))
        refused(made, made.encode(gaussian(N), *NAME)[:9] + rng.bytes(length))


@every
def test_another_length_than_expected(plugin: Plugin) -> None:
    made = plugin.make()
    whole = made.encode(gaussian(N), *NAME)
    for n in (0, 1, N - 1, N + 1, 1 << 20):
        refused(made, whole, n)
    refused(made, made.encode(torch.zeros(0), *NAME))


@every
def test_a_message_of_another_compressor(plugin: Plugin) -> None:
    made = plugin.make()
    for other in PLUGINS.values():
        theirs = other.make()
        if (theirs.kind, theirs.code) != (made.kind, made.code):
            refused(made, theirs.encode(gaussian(N), *NAME))


@every
def test_sealed_by_someone_who_can_count(plugin: Plugin) -> None:
    """Damage under a right checksum: a valid vector or a PeerError, at any n."""
    made, rng = plugin.make(), numpy_stream(1, "sealed")
    decoded = named = 0
    for _ in range(250):
        n = int(rng.integers(0, 50))
        count, body = made.write(gaussian(n).numpy(), NAME) if n else (0, b"")
        count, body = _spoilt(rng, count, body)
        kind = message.Kind(made.kind, made.code, n)
        sealed = message.pack(kind, count, body, made.salt(n, NAME))
        try:
            vector = made.decode(sealed, n, "bob", *NAME)
        except PeerError as error:
            named += str(error).startswith("message from bob: ")
            continue
        decoded += 1
        assert vector.shape == (n,)
        assert vector.dtype == torch.float32
        assert vector.isfinite().all()
    assert named == 250 - decoded > 0


def _spoilt(rng: np.random.Generator, count: int, body: bytes) -> tuple[int, bytes]:
    changed = bytearray(body)
    kind = int(rng.integers(6))
    if kind == 0 and changed:
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    elif kind == 1 and changed:
        changed[int(rng.integers(min(8, len(changed))))] = int(rng.integers(256))
    elif kind == 2:
        del changed[int(rng.integers(len(changed) + 1)) :]
    elif kind == 3:
        changed += rng.bytes(int(rng.integers(1, 4)))
    elif kind == 4:
        count = max(0, count + int(rng.choice([-3, -1, 1, 2, 1 << 40])))
    else:
        changed = bytearray(rng.bytes(int(rng.integers(0, 60))))
    return count, bytes(changed)


def _floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


FAULTS: list[tuple[Compressor, int, int, bytes, str]] = [
    (Identity(), 2, 1, _floats(1, 2), "count of 1"),
    (Identity(), 0, 0, _floats(1), "where there are no numbers"),
    (Identity(), 0, 1, b"", "where there are no numbers"),
    (TopK(k=1), 4, 2, message.join(b"\1\3", _floats(1, 2)), "2 entries, where 1 are the most"),
    (TopK(k=1), 4, 0, message.join(b"\0", b"x"), "values of no entries"),
    (TopK(k=1), 4, 1, message.join(b"\1\3", _floats(1)), "bitmap that is not of 1"),
    (RandomK(k=2), 4, 1, _floats(1), "1 entries, where 2 are expected"),
    (LowRank(rank=1), 4, 2, message.join(_floats(1, 1), _floats(1, 1)), "rank 2, where 1"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(-1), b"\1\0", b""), "norm that is negative"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(math.nan), b"\1\0", b""), "or not finite"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(1, 1), b"\1\0", b""), "8 bytes of norms"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(1), b"\1\4", b"\1"), "number above 3"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(1), b"\1\3", b"\2"), "not filled up with zeros"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(1), b"\2\3", b"\1"), "unknown code"),
    (QSGD(3), 1, 0, message.join(b"\3", _floats(1), b"\0\1\1\1", b""), "do not add up to 1"),
    (Natural(), 1, 0, message.join(b"\0\0", b"", b""), "natural: cut off"),
    (Natural(), 1, 0, message.join(b"\x80\0\0\0\1\0", b"\1\0", b"\0"), "inf at 0"),
]


@pytest.mark.parametrize(("made", "n", "count", "body", "said"), FAULTS)
def test_every_fault_has_its_reason(
    made: Compressor, n: int, count: int, body: bytes, said: str
) -> None:
    kind = message.Kind(made.kind, made.code, n)
    with pytest.raises(PeerError, match=f"^message from bob: .*{said}"):
        made.decode(message.pack(kind, count, body, made.salt(n, NAME)), n, "bob", *NAME)


def test_factors_whose_product_is_beyond_float32_are_clipped() -> None:
    """Rounding alone can do that to an honest sender's."""
    made, largest = LowRank(rank=1), torch.finfo(torch.float32).max
    body = message.join(_floats(1.0000001, -1), _floats(largest))
    sealed = message.pack(message.Kind(made.kind, made.code, 2), 1, body)
    assert made.decode(sealed, 2, "bob").tolist() == [largest, -largest]


def test_a_count_in_the_header_allocates_nothing() -> None:
    """A message of a few bytes that claims 2^50 entries."""
    for plugin in PLUGINS.values():
        made = plugin.make()
        kind = message.Kind(made.kind, made.code, N)
        refused(made, message.pack(kind, 1 << 50, b"\1\0", made.salt(N, NAME)))
