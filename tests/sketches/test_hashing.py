"""The hash family: the field, the signs' independence, the buckets' collisions, the tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.sketches import hashing
from tacit.sketches.hashing import POLYNOMIAL, PRIME, BlockHash, cube, multiply, parity

WORDS = st.integers(0, 2**32 - 1)


def product(a: int, b: int) -> int:
    """Carry-less product of two polynomials over GF(2)."""
    total = 0
    while b:
        if b & 1:
            total ^= a
        a, b = a << 1, b >> 1
    return total


def remainder(a: int, modulus: int) -> int:
    while a.bit_length() >= modulus.bit_length():
        a ^= modulus << (a.bit_length() - modulus.bit_length())
    return a


def gcd(a: int, b: int) -> int:
    while b:
        a, b = b, remainder(a, b)
    return a


def irreducible(polynomial: int) -> bool:
    """Rabin's test for degree 32, whose only prime factor is 2."""
    power, half = 2, 0
    for square in range(1, 33):
        power = remainder(product(power, power), polynomial)
        if square == 16:
            half = power
    return power == 2 and gcd(polynomial, half ^ 2) == 1


def rank(rows: list[int]) -> int:
    """Rank over GF(2) of rows given as integers."""
    pivots: list[int] = []
    for row in rows:
        for pivot in pivots:
            row = min(row, row ^ pivot)
        if row:
            pivots.append(row)
    return len(pivots)


def column(code: int) -> int:
    """The vector (1, c, c^3) as 65 bits."""
    third = remainder(product(product(code, code), code), POLYNOMIAL)
    return 1 | code << 1 | third << 33


def word(value: int) -> np.ndarray:
    return np.array([value], dtype=np.uint64)


def test_the_polynomial_is_irreducible() -> None:
    assert irreducible(POLYNOMIAL)
    assert not irreducible(POLYNOMIAL ^ 0b10)  # an even number of terms: divisible by x + 1
    assert not irreducible(POLYNOMIAL ^ 0b100011)


@given(WORDS, WORDS)
def test_field_products(a: int, b: int) -> None:
    assert multiply(word(a), word(b)) == remainder(product(a, b), POLYNOMIAL)
    assert cube(word(a)) == remainder(product(product(a, a), a), POLYNOMIAL)
    assert parity(word(a)) == a.bit_count() % 2


def test_any_five_columns_are_independent_exhaustively() -> None:
    """All 5-subsets of the first 4 blocks of 4, where additive structure is densest."""
    h = BlockHash(d=16, rows=1, columns=4, seed=0)
    columns = [column(int(code)) for code in h.codes(np.arange(16))]
    assert all(rank(list(five)) == 5 for five in itertools.combinations(columns, 5))


def test_the_cube_is_needed() -> None:
    """Two places in two blocks: without c^3 their four columns (1, c) are always dependent."""
    h = BlockHash(d=1000, rows=1, columns=250, seed=0)
    codes = [int(c) for c in h.codes([3, 17, 503, 517])]
    assert rank([1 | code << 1 for code in codes]) == 3
    assert rank([column(code) for code in codes]) == 4


@given(st.lists(WORDS, min_size=5, max_size=5, unique=True))
def test_any_five_columns_are_independent(codes: list[int]) -> None:
    assert rank([column(code) for code in codes]) == 5


def test_signs_are_the_linear_form_of_the_columns() -> None:
    h = BlockHash(d=10_000, rows=3, columns=250, seed=6)
    coordinates = [0, 1, 249, 250, 5003, 9999]
    for j in range(3):
        key = int(h._e[j]) | int(h._alpha[j]) << 1 | int(h._gamma[j]) << 33
        bits = [(key & column(int(code))).bit_count() % 2 for code in h.codes(coordinates)]
        assert h.signs(coordinates)[j].tolist() == [1 - 2 * bit for bit in bits]


def test_four_signs_take_all_patterns_equally_often() -> None:
    """16 patterns of 4 signs at corners of a rectangle over 16,384 keys: chi-square with 15 degrees
    of freedom, below its 99.9 % point. And 4 other coordinates, in one block."""
    h = BlockHash(d=10_000, rows=1 << 14, columns=250, seed=3)
    for four in ([3, 17, 5003, 5017], [500, 501, 502, 503], [0, 250, 500, 9999]):
        bits = (h.signs(four) < 0).astype(int)
        counts = np.bincount(bits @ [8, 4, 2, 1], minlength=16)
        expected = h.rows / 16
        assert ((counts - expected) ** 2 / expected).sum() < 37.7


def test_collisions() -> None:
    """Never within a block; between blocks with probability 1/m, here over 2^15 independent rows,
    within 4 standard deviations (probability 0.99994 for each of the 6 pairs)."""
    m = 50
    h = BlockHash(d=100 * m, rows=1 << 15, columns=m, seed=1)
    buckets = h.buckets([0, 7, m, 4 * m + 7, 99 * m + 49])
    assert (buckets[:, 0] != buckets[:, 1]).all()
    spread = np.sqrt((1 - 1 / m) / m / h.rows)
    for a, b in [(0, 2), (0, 3), (1, 3), (1, 4), (2, 4), (3, 4)]:
        rate = (buckets[:, a] == buckets[:, b]).mean()
        assert abs(rate - 1 / m) < 4 * spread


@pytest.mark.parametrize("m", [1, 2, 3, 250, 1 << 15, hashing.MAX_COLUMNS])
def test_collision_bound_holds_for_the_exact_residue_counts(m: int) -> None:
    assert -(-PRIME // m) / PRIME <= 1 / m + 1 / PRIME


@pytest.mark.parametrize(
    ("d", "m"), [(1, 1), (7, 1), (9, 2), (40, 3), (1000, 250), (70_000, 40_000)]
)
def test_tables_agree_with_the_definition(d: int, m: int) -> None:
    h = BlockHash(d=d, rows=3, columns=m, seed=5)
    i = np.arange(d)
    q, r = np.divmod(i, m)
    walsh_bits = parity((h.walsh[q].astype(np.uint64)) & r[:, None].astype(np.uint64))
    signs = h.flip[q] * (1 - 2 * walsh_bits.astype(int)) * h.pattern.T[r]
    np.testing.assert_array_equal(signs.T, h.signs(i))
    np.testing.assert_array_equal(((r[:, None] + h.rotation[q]) % m).T, h.buckets(i))
    assert 0 <= h.rotation.min() <= h.rotation.max() < m
    assert 0 <= h.walsh.min() <= h.walsh.max() < 1 << h.bits


def test_every_block_fills_every_bucket_once() -> None:
    h = BlockHash(d=3 * 250, rows=5, columns=250, seed=0)
    buckets = np.sort(h.buckets(np.arange(750)).reshape(5, 3, 250), axis=-1)
    np.testing.assert_array_equal(buckets, np.broadcast_to(np.arange(250), (5, 3, 250)))


def test_the_seed_decides() -> None:
    a, b, c = (BlockHash(d=5000, rows=3, columns=250, seed=seed) for seed in (1, 1, 2))
    for table in ("rotation", "walsh", "flip", "pattern"):
        np.testing.assert_array_equal(getattr(a, table), getattr(b, table))
        assert (getattr(a, table) != getattr(c, table)).any()
    assert (a.rotation[:, 0] != a.rotation[:, 1]).any()


def test_memory_is_as_stated() -> None:
    assert BlockHash(d=100_001, rows=5, columns=250, seed=0).nbytes == 5 * 5 * 401 + 5 * 250


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"too large .* 4194304000 coordinates"):
        BlockHash(d=250 * 2**24 + 1, rows=1, columns=250, seed=0)
    with pytest.raises(UserError, match="too large"):
        BlockHash(d=PRIME + 1, rows=1, columns=1, seed=0)
    with pytest.raises(UserError, match="columns must be between"):
        BlockHash(d=10, rows=1, columns=0, seed=0)
    with pytest.raises(UserError, match="columns must be between"):
        BlockHash(d=10, rows=1, columns=hashing.MAX_COLUMNS + 1, seed=0)
    with pytest.raises(UserError, match="at least 1"):
        BlockHash(d=0, rows=1, columns=250, seed=0)
    with pytest.raises(UserError, match="at least 1"):
        BlockHash(d=10, rows=0, columns=250, seed=0)
