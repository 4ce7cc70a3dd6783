"""Sets of positions as bytes: exact, short, and safe to read."""

from __future__ import annotations

import importlib
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.codecs import decode_positions, encode_positions, plain
from tacit.codecs.positions import MAX_N
from tacit.errors import MissingExtra, UserError
from tacit.rng import numpy_stream


def entropy(n: int, k: int) -> float:
    """log2 C(n, k)."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def uniform(n: int, k: int) -> np.ndarray:
    return np.sort(numpy_stream(n, "uniform", k).choice(n, k, replace=False)).astype(np.int64)


def crowded(rows: int, width: int, k: int) -> np.ndarray:
    """k positions in a few rows, and more in some columns, as in a layer's gradient."""
    rng = numpy_stream(k, "crowded")
    row, column = np.exp(2 * rng.standard_normal(rows)), np.exp(rng.standard_normal(width))
    size = np.outer(row, column) * np.abs(rng.standard_normal((rows, width)))
    return np.sort(np.argpartition(size.ravel(), -k)[-k:])


def round_trip(positions: np.ndarray, n: int) -> bytes:
    body = encode_positions(positions, n, kernel=False)
    assert encode_positions(positions, n) == body
    for kernel in (None, False):
        found = decode_positions(body, len(positions), n, kernel=kernel)
        assert found.dtype == np.int64
        assert np.array_equal(found, positions)
    return body


@st.composite
def sets(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    n = draw(st.one_of(st.integers(1, 300), st.integers(1, 1 << 20), st.integers(1 << 31, MAX_N)))
    chosen = draw(st.sets(st.integers(0, n - 1), max_size=min(n, 90)))
    if n <= 300 and draw(st.booleans()):
        chosen = set(range(n)) - chosen
    return np.array(sorted(chosen), dtype=np.int64), n


@given(sets())
def test_round_trip_of_any_set_compiled_and_plain(case: tuple[np.ndarray, int]) -> None:
    round_trip(*case)


@given(sets())
def test_both_codes_round_trip_and_the_compiled_bytes_are_the_plain_ones(
    case: tuple[np.ndarray, int],
) -> None:
    """Each code on its own: the choice between them would hide one of the two."""
    kernel = pytest.importorskip("tacit.codecs.kernel")
    positions, n = case
    k = len(positions)
    if not k:
        return
    gaps = np.diff(positions, prepend=-1) - 1
    fenced = np.concatenate([[-1], positions, [n]])
    top = n.bit_length() - 1
    for b in {max(0, top - 6), top - 1, top} - {-1}:
        body = plain.rice_pack(gaps, b)
        assert kernel.rice_pack(gaps, b) == body
        for module in (plain, kernel):
            assert np.array_equal(
                module.rice_unpack(np.frombuffer(body, np.uint8), k, n, b), positions
            )
    bits = plain.nested_bits(fenced)
    assert kernel.nested_bits(fenced) == bits
    body = plain.nested_pack(fenced, bits)
    assert len(body) == (bits + 7) // 8
    assert kernel.nested_pack(fenced, bits) == body
    for module in (plain, kernel):
        assert np.array_equal(module.nested_unpack(np.frombuffer(body, np.uint8), k, n), positions)


@given(st.integers(2, 5000), st.data())
def test_any_bytes_of_the_right_length_are_a_nested_set(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, min(n - 1, 60)))
    noise = np.frombuffer(data.draw(st.binary(min_size=200, max_size=200)), np.uint8)
    for length in range(200):
        try:
            found = plain.nested_unpack(noise[:length], k, n)
        except ValueError as error:
            if "cut off" in str(error):
                continue
            return  # the bits after its end are not zero
        assert len(found) == k
        assert np.all(np.diff(found, prepend=-1) > 0)
        assert found[-1] < n
        return
    raise AssertionError("200 bytes are enough for 60 positions below 5000")


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 64, 65])
def test_none_all_first_last_and_all_but_one(n: int) -> None:
    everything = np.arange(n)
    assert round_trip(everything, n) == round_trip(everything[:0], n) == b"\0"
    for one in {0, n // 2, n - 1}:
        round_trip(everything[one : one + 1], n)
        round_trip(np.delete(everything, one), n)


def test_few_positions_beyond_32_bits() -> None:
    n = 3 << 31
    positions = np.array([0, 1, (1 << 31) - 1, 1 << 31, 1 << 32, n - 1])
    assert len(round_trip(positions, n)) < 32
    round_trip(np.array([MAX_N - 1]), MAX_N)


@pytest.mark.parametrize("density", [0.0001, 0.001, 0.01, 0.1])
def test_uniform_sets_are_near_entropy_and_no_longer_than_golomb_rice(density: float) -> None:
    n = 2_000_000
    k = int(n * density)
    positions = uniform(n, k)
    gaps = np.diff(positions, prepend=-1) - 1
    best = min(k * (b + 1) + int((gaps >> b).sum()) for b in range(21))
    bits = 8 * len(encode_positions(positions, n))
    assert bits <= 1.02 * best + 24
    assert bits <= 1.02 * entropy(n, k) + 24


@pytest.mark.parametrize("percent", range(2, 100, 2))
def test_no_density_costs_more_than_five_per_cent_over_entropy(percent: int) -> None:
    n = 60_000
    k = n * percent // 100
    assert 8 * len(encode_positions(uniform(n, k), n)) <= 1.05 * entropy(n, k) + 24


@pytest.mark.parametrize("k", [300, 3000])
def test_crowded_sets_are_far_below_the_entropy_of_uniform_ones(k: int) -> None:
    positions = crowded(600, 500, k)
    body = round_trip(positions, 300_000)
    assert body[0] == 2
    assert 8 * len(body) < 0.85 * entropy(300_000, k)
    gaps = np.diff(positions, prepend=-1) - 1
    rice = min(k * (b + 1) + int((gaps >> b).sum()) for b in range(19))
    assert 8 * len(body) < 0.9 * rice


def test_a_run_costs_next_to_nothing() -> None:
    assert len(round_trip(np.arange(5000, 15_000), 1_000_000)) < 40


@pytest.mark.parametrize(
    ("positions", "n", "said"),
    [
        ([3, 2], 5, "sort them"),
        ([2, 2], 5, "distinct"),
        ([5], 5, r"in \[0, 5\)"),
        ([-1], 5, r"in \[0, 5\)"),
        ([0], -1, "n = -1"),
        ([0], MAX_N + 1, "2\\^53"),
    ],
)
def test_what_is_no_set_is_refused(positions: list[int], n: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        encode_positions(np.array(positions), n)


@pytest.mark.parametrize("wrong", [np.arange(3, dtype=np.int32), np.zeros((1, 1), np.int64)])
def test_positions_of_another_type_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(UserError, match="flat int64"):
        encode_positions(wrong, 5)


def _malformed() -> list[tuple[str, bytes, int, int]]:
    rice = encode_positions(uniform(10_000, 30), 10_000)
    nested = encode_positions(np.arange(100, 140), 10_000)
    bitmap = encode_positions(uniform(80, 40), 80)
    assert (rice[0], nested[0], bitmap[0]) == (72, 2, 1)
    ends = [
        (f"{name} {fault}", changed, k, n)
        for name, body, k, n in (
            ("rice", rice, 30, 10_000),
            ("nested", nested, 40, 10_000),
            ("bitmap", bitmap, 40, 80),
        )
        for fault, changed in (
            ("cut", body[:-1]),
            ("cut to its code", body[:1]),
            ("longer", body + b"\0"),
            ("longer by a bit", body + b"\1"),
        )
    ]
    return [
        *ends,
        ("empty", b"", 3, 10),
        ("more than there are", b"\0", 11, 10),
        ("negative", b"\0", -1, 10),
        ("beyond the limit", b"\0", 0, MAX_N + 1),
        ("all, but not all", b"\0", 9, 10),
        ("all with a body", b"\0\0", 10, 10),
        ("unknown code", b"\3\0", 3, 10),
        ("a bitmap of a huge n", b"\1\xff", 8, 1 << 50),
        ("a bitmap of absent ones", b"\x81\x07\0", 3, 10),
        ("bits beyond n", b"\1\3\x80", 3, 10),
        ("absent ones of a minority", bytes([rice[0] | 128]) + rice[1:], 30, 10_000),
        ("present ones of a majority", b"\x40\xff\1", 9, 10),
        ("a parameter above n", bytes([64 + 14]) + b"\xff" * 20, 5, 10_000),
        ("the largest parameter", b"\x7f" + b"\xff" * 40, 5, 10_000),
        ("positions beyond n", bytes([64 + 13]) + b"\x1f" + b"\xff" * 9, 5, 10_000),
        ("a gap beyond n", b"\x40" + b"\0" * 4 + b"\1", 1, 20),
        ("k far beyond the bytes", b"\x41\xff", 1 << 40, 1 << 50),
    ]


@pytest.mark.parametrize(
    ("body", "k", "n"), [pytest.param(*case[1:], id=case[0]) for case in _malformed()]
)
@pytest.mark.parametrize("kernel", [None, False])
def test_malformed_bytes_are_refused(body: bytes, k: int, n: int, kernel: bool | None) -> None:
    with pytest.raises(ValueError, match=r"^positions: "):
        decode_positions(body, k, n, kernel=kernel)


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tacit.codecs.kernel", None)
    importlib.invalidate_caches()
    positions = uniform(1000, 10)
    body = encode_positions(positions, 1000)
    assert np.array_equal(decode_positions(body, 10, 1000), positions)
    with pytest.raises(MissingExtra, match="speed"):
        encode_positions(positions, 1000, kernel=True)
