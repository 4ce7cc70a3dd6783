"""The framing, and small numbers as bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.compressors import message, numbers
from tacit.errors import PeerError
from tacit.rng import numpy_stream

KIND = message.Kind(16, 4, 1_000_000)


@given(st.integers(0, 1 << 53), st.integers(0, 1 << 53), st.binary(max_size=30))
def test_round_trip(n: int, count: int, body: bytes) -> None:
    kind = message.Kind(1, 2, n)
    assert message.unpack(message.pack(kind, count, body), "bob", kind) == (count, body)


@pytest.mark.parametrize(("n", "size"), [(1, 9), (127, 9), (10_000, 11), (1_000_000, 13)])
def test_the_header_is_short(n: int, size: int) -> None:
    assert len(message.pack(message.Kind(1, 2, n), n, b"")) == size


def test_what_is_refused_says_why() -> None:
    good = message.pack(KIND, 5, b"body", salt=7)
    for damaged, kind, salt, said in (
        (b"\xc2" + good[1:], KIND, 7, "of another version"),
        (good, KIND._replace(compressor=17), 7, "of compressor 16 with values 4, not of 17 with 4"),
        (good, KIND._replace(n=5), 7, "of 1000000 numbers, where 5 are expected"),
        (good, KIND, 8, "the checksum is wrong, or its random positions are others"),
        (good[:8], KIND, 7, "cut off in its header"),
        (good[:7] + b"\xff" * 30, KIND, 7, "cut off in its header"),
    ):
        with pytest.raises(PeerError, match=f"^message from bob: .*{said}"):
            message.unpack(damaged, "bob", kind, salt)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_parts(parts: list[bytes]) -> None:
    body = message.join(*parts)
    assert message.split(body, len(parts)) == parts
    if len(parts) > 1 and len(parts[0]) > 1:
        with pytest.raises(ValueError, match="cut off"):
            message.split(body[: len(parts[0])], len(parts))


@given(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 70_000)), max_size=90))
def test_numbers_round_trip(values: list[int]) -> None:
    given_ = np.array(values, dtype=np.int64)
    body = numbers.encode_numbers(given_)
    most = max(values, default=0)
    found = numbers.decode_numbers(body, len(values), most)
    assert found.dtype == np.int64
    assert np.array_equal(found, given_)
    if most:
        with pytest.raises(ValueError, match=f"above {most - 1}"):
            numbers.decode_numbers(body, len(values), most - 1)


@given(st.integers(0, 20), st.integers(0, 20))
def test_folding_is_one_to_one_and_the_nearest_come_first(below: int, above: int) -> None:
    values = np.arange(-below, above + 1)
    folded = numbers.fold(values, below, above)
    assert np.array_equal(np.sort(folded), np.arange(below + above + 1))
    assert np.array_equal(numbers.unfold(folded, below, above), values)
    assert np.all(np.diff(np.abs(values)[np.argsort(folded)]) >= 0)


@given(st.lists(st.booleans(), max_size=40))
def test_signs_round_trip(negative: list[bool]) -> None:
    values = np.where(negative, -2.0, 3.0).astype(np.float32)
    found = numbers.decode_signs(numbers.encode_signs(values), len(values))
    assert np.array_equal(found, np.sign(values))


@pytest.mark.parametrize("mean", [0.01, 0.3, 1.0, 20.0])
def test_geometric_numbers_are_near_their_entropy(mean: float) -> None:
    k, p = 50_000, 1 / (1 + mean)
    values = numpy_stream(0, "geometric").geometric(p, k) - 1
    entropy = -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) / p * k
    assert 8 * len(numbers.encode_numbers(values)) <= 1.05 * entropy + 100


def test_numbers_without_structure_take_a_byte_each() -> None:
    values = numpy_stream(0, "uniform").integers(0, 256, 10_000)
    assert len(numbers.encode_numbers(values)) <= 10_001
