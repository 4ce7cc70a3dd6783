"""Values as bytes: errors within their bounds, unbiased where they say so, safe to read."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tacit.codecs import VALUE_CODES, decode_values, encode_values, value_code
from tacit.errors import UserError
from tacit.rng import numpy_stream

FLOAT_MAX = np.finfo(np.float32).max
vectors = hnp.arrays(
    np.float32,
    st.integers(0, 70),
    elements=st.one_of(
        st.floats(-1, 1, width=32),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.floats(-(2.0**-120), 2.0**-120, width=32),
    ),
)
chunks = st.sampled_from([None, 1, 4, 32, 4096])


def bound(code: str, values: np.ndarray, chunk: int | None, random: bool = False) -> np.ndarray:
    """The largest error of each value that the documentation allows, in float64."""
    size = np.abs(values.astype(np.float64))
    if code == "fp32":
        return np.zeros_like(size)
    if code == "fp16":
        return np.maximum(size * 2.0**-11, size.max() * 2.0**-39) + 2.0**-149
    if code == "bf16":
        return size * 2.0**-8 + 2.0**-149 * 2.0**16
    step = {"int8": 1 / 254, "int4": 1 / 14, "int2": 1 / 3}[code] * (2 if random else 1)
    starts = np.arange(0, len(size), chunk or len(size))
    scale = np.repeat(np.maximum.reduceat(size, starts), np.diff(starts, append=len(size)))
    return scale * step * (1 + 1e-6) + scale * 2.0**-24 + 2.0**-149


@pytest.mark.parametrize("code", [code for code in VALUE_CODES if code != "sign"])
@given(values=vectors, chunk=chunks, random=st.booleans())
def test_errors_are_within_their_bounds(
    code: str, values: np.ndarray, chunk: int | None, random: bool
) -> None:
    random = random and VALUE_CODES[code].stochastic
    rng = numpy_stream(len(values), "values") if random else None
    body = encode_values(code, values, rng, chunk=chunk)
    decoded = decode_values(code, body, len(values))
    assert decoded.dtype == np.float32
    assert decoded.shape == values.shape
    if len(values):
        error = np.abs(decoded.astype(np.float64) - values)
        assert np.all(error <= bound(code, values, chunk, random))
        if not random:
            assert encode_values(code, values, chunk=chunk) == body


@given(values=vectors, chunk=chunks)
def test_signs_carry_the_mean_magnitude_of_their_chunk(
    values: np.ndarray, chunk: int | None
) -> None:
    decoded = decode_values("sign", encode_values("sign", values, chunk=chunk), len(values))
    assert np.array_equal(np.signbit(decoded), values < 0) or not decoded.all()
    for start in range(0, len(values), chunk or max(1, len(values))):
        part = slice(start, start + (chunk or len(values)))
        mean = np.float32(np.abs(values[part].astype(np.float64)).mean())
        assert np.all(np.abs(decoded[part]) == mean)


@pytest.mark.parametrize("code", VALUE_CODES)
@pytest.mark.parametrize("k", [1, 7, 8, 9, 4096, 4097, 10_000])
def test_lengths(code: str, k: int) -> None:
    values = numpy_stream(k, "values").standard_normal(k).astype(np.float32)
    body = encode_values(code, values)
    front = {"fp32": 0, "bf16": 0, "fp16": 4}.get(code, 1 + 4 * math.ceil(k / 4096))
    assert len(body) == front + math.ceil(k * VALUE_CODES[code].bits / 8)
    for wrong in (body[:-1], body + b"\0", b""):
        with pytest.raises(ValueError, match=r"^values: "):
            decode_values(code, wrong, k)
    assert encode_values(code, values[:0]) == b""
    assert decode_values(code, b"", 0).shape == (0,)


@pytest.mark.parametrize("code", ["fp32", "fp16", "bf16", "int8", "int4"])
def test_zeros_stay_zeros(code: str) -> None:
    values = np.array([0, 3, 0, -2, 0], dtype=np.float32)
    for given_ in (values, np.zeros(5, np.float32)):
        assert np.all(decode_values(code, encode_values(code, given_), 5)[[0, 2, 4]] == 0)


@pytest.mark.parametrize("code", VALUE_CODES)
def test_the_ends_of_float32_stay_finite(code: str) -> None:
    ends = np.array([FLOAT_MAX, -FLOAT_MAX, 1e-45, -1e-45, 65505, 0], dtype=np.float32)
    for values in (ends, ends[2:4], ends[:2], ends[5:]):
        decoded = decode_values(code, encode_values(code, values), len(values))
        assert np.isfinite(decoded).all()
        assert np.all(np.abs(decoded) <= FLOAT_MAX)


def test_half_precision_neither_overflows_nor_loses_small_gradients() -> None:
    for scale in (1e-12, 1e-3, 1e6, 1e30):
        values = (scale * np.array([1, -0.5, 1e-3])).astype(np.float32)
        decoded = decode_values("fp16", encode_values("fp16", values), 3)
        np.testing.assert_allclose(decoded, values, rtol=2.0**-11)


@pytest.mark.parametrize("code", ["int8", "int4", "int2"])
def test_random_rounding_is_unbiased(code: str) -> None:
    """The mean over many draws, against its standard error; nearest rounding fails this."""
    values = np.array([1, -1, 0.9, -0.77, 0.31, 0.05, -0.004, 0.5003], dtype=np.float32)
    draws = 20_000
    rng = numpy_stream(0, "unbiased", code)
    many = np.tile(values, draws)
    decoded = decode_values(code, encode_values(code, many, rng, chunk=None), len(many))
    rows = decoded.reshape(draws, -1).astype(np.float64)
    error = np.abs(rows.mean(0) - values)
    assert np.all(error <= 4.5 * rows.std(0) / math.sqrt(draws) + 1e-6)
    nearest = decode_values(code, encode_values(code, values, chunk=None), len(values))
    assert np.any(np.abs(nearest - values) > 4.5 * rows.std(0) / math.sqrt(draws) + 1e-6)


def test_the_same_generator_gives_the_same_bytes() -> None:
    values = numpy_stream(1, "values").standard_normal(999).astype(np.float32)
    first, again, other = (
        encode_values("int4", values, numpy_stream(seed, "draws")) for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("code", VALUE_CODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_place(code: str, bad: float) -> None:
    values = np.ones(9, dtype=np.float32)
    values[[4, 6]] = bad
    with pytest.raises(UserError, match="at 4; only finite"):
        encode_values(code, values)


@pytest.mark.parametrize(
    ("code", "body", "k", "said"),
    [
        ("fp32", np.array([1, np.nan], "<f4").tobytes(), 2, "nan at 1"),
        ("bf16", b"\x80\x7f", 1, "inf at 0"),
        ("fp16", b"\0\0\x80\x3f\0\x7c", 1, "inf at 0"),
        ("fp16", b"\xff\xff\x7f\x7f\xff\x7b", 1, "inf at 0"),
        ("int8", b"\x0c\0\0\x80\xbf\1", 1, "negative"),
        ("int8", b"\x0c\0\0\x80\x7f\1", 1, "not finite"),
        ("int8", b"\x0c\0\0\x80\x3f\xff", 1, "one of 255"),
        ("int4", b"\x0c\0\0\x80\x3f\x0f", 1, "one of 15"),
        ("int4", b"\x0c\0\0\x80\x3f\x10", 1, "filled up"),
        ("sign", b"\x0c\0\0\x80\x3f\x02", 1, "filled up"),
        ("sign", b"\x3f\0\0\x80\x3f\x01", 1, "chunks of 2"),
        ("sign", b"\0\0\0\x80\x3f\x01", 1 << 60, "6 bytes for"),
        ("sign", b"\1", 0, "1 bytes for 0"),
        ("sign", b"\1", -1, "bytes for -1"),
    ],
)
def test_malformed_bytes_are_refused(code: str, body: bytes, k: int, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^values: .*{said}"):
        decode_values(code, body, k)


def test_the_registry() -> None:
    numbers = [code.id for code in VALUE_CODES.values()]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]  # on the wire: never renumber
    assert [value_code(number) for number in numbers] == list(VALUE_CODES)
    with pytest.raises(ValueError, match="unknown code 0"):
        value_code(0)
    with pytest.raises(UserError, match="did you mean 'int8'"):
        encode_values("int-8", np.ones(1, np.float32))


def test_misuse_is_refused() -> None:
    values = np.ones(3, np.float32)
    with pytest.raises(UserError, match="power of two"):
        encode_values("int8", values, chunk=100)
    with pytest.raises(UserError, match="generator"):
        encode_values("fp16", values, numpy_stream(0, "x"))
    with pytest.raises(UserError, match="flat float32"):
        encode_values("fp16", values.astype(np.float64))
