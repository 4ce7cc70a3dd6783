"""``k`` float32 values as bytes, from 32 bits to one bit each.

======  ====  ================================================================================
code    bits  a decoded value
======  ====  ================================================================================
fp32    32    exact
fp16    16    off by at most 2^-11 of itself and 2^-39 of the largest one (a). A power of two
              in front (4 bytes) brings the largest value to [2^14, 2^15): nothing overflows,
              and small gradients do not vanish
bf16    16    off by at most 2^-8 of itself (a)
int8    8     one of 255 uniform levels from -s to s, where s is the largest magnitude of its
              chunk: off by at most s/254. Zero stays zero
int4    4     one of 15 levels: off by at most s/14. Zero stays zero
int2    2     one of four levels -s, -s/3, s/3, s: off by at most s/3. No zero: what is
              selected is not zero, and three levels are off by s/2
sign    1     its sign (plus for zero) and the mean magnitude of its chunk
======  ====  ================================================================================

(a) or 2^-149, float32's smallest number, if that is more.

Codes with chunks begin with a byte, log2 of the chunk (255: one chunk for all), then a float32
scale per chunk, then the levels, lowest bits first, filled up with zeros to a byte. No values are
no bytes. With a generator the int codes round at random, so that the mean over draws is the value;
the error is then at most twice as large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tacit.errors import UserError, unknown

Array = npt.NDArray[Any]
Random = np.random.Generator | None
#: Values that share a scale. A scale of four bytes then costs 0.008 bits a value.
CHUNK = 4096
_WHOLE = 255


class ValueCode(NamedTuple):
    """One way to write values. ``id`` is its number on the wire. ``levels``: 0 where values keep an
    exponent of their own. ``stochastic``: takes a generator."""

    id: int
    bits: int
    levels: int
    stochastic: bool


VALUE_CODES = {
    "fp32": ValueCode(1, 32, 0, False),
    "fp16": ValueCode(2, 16, 0, False),
    "bf16": ValueCode(3, 16, 0, False),
    "int8": ValueCode(4, 8, 255, True),
    "int4": ValueCode(5, 4, 15, True),
    "int2": ValueCode(6, 2, 4, True),
    "sign": ValueCode(7, 1, 2, False),
}


def value_code(number: int) -> str:
    """The name of the code with this number on the wire. ValueError if there is none."""
    for name, code in VALUE_CODES.items():
        if code.id == number:
            return name
    raise ValueError(f"values: unknown code {number}")


def encode_values(
    code: str, values: Array, rng: Random = None, *, chunk: int | None = CHUNK
) -> bytes:
    """``values`` (float32, flat) as bytes.

    ``rng``: round int codes at random with draws from it; None rounds to the nearest level.
    ``chunk``: how many values share a scale, a power of two; None: all. UserError for an unknown
    code, a generator where nothing is drawn, and a value that is not finite.
    """
    spec = _spec(code)
    v = np.ascontiguousarray(values)
    if v.ndim != 1 or v.dtype != np.float32:
        raise UserError(f"values: a flat float32 array is needed, not {v.dtype} of {v.shape}")
    if rng is not None and not spec.stochastic:
        raise UserError(f"values: {code} has no random rounding; leave the generator out")
    if chunk is not None and (chunk < 1 or chunk & (chunk - 1) or chunk > 1 << 62):
        raise UserError(f"values: chunk = {chunk} is not a power of two; try {CHUNK}")
    _finite(v, UserError)
    if not len(v):
        return b""
    if spec.levels == 0:
        return _FLOATS[code][0](v)
    scales = _scales(v, chunk, mean=code == "sign")
    head = _WHOLE if chunk is None else chunk.bit_length() - 1
    levels = _levels(v, _spread(scales, len(v), chunk), spec.levels, rng)
    return bytes([head]) + scales.astype("<f4").tobytes() + _pack(levels, spec.bits)


def decode_values(code: str, body: bytes, k: int) -> Array:
    """The ``k`` values in ``body``, float32. ``body`` is not trusted: ValueError unless it has
    exactly their length and every value is finite."""
    spec = _spec(code)
    if k == 0 and not body:
        return np.zeros(0, dtype=np.float32)
    if k < 1 or not body:
        raise ValueError(f"values: {len(body)} bytes for {k} values")
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and inf are looked for below
        read = _from_levels if spec.levels else _from_floats
        values = read(code, spec, body, k)
    _finite(values, ValueError)
    return values


def _from_floats(code: str, spec: ValueCode, body: bytes, k: int) -> Array:
    front = 4 if code == "fp16" else 0
    _length(code, body, k, front + k * spec.bits // 8)
    return _FLOATS[code][1](body)


def _from_levels(code: str, spec: ValueCode, body: bytes, k: int) -> Array:
    if body[0] > 62 and body[0] != _WHOLE:
        raise ValueError(f"values: {code} with chunks of 2^{body[0]}")
    chunk = None if body[0] == _WHOLE else 1 << body[0]
    end = 1 + 4 * (1 if chunk is None else -(-k // chunk))
    _length(code, body, k, end + (k * spec.bits + 7) // 8)
    scales = np.frombuffer(body[1:end], dtype="<f4").astype(np.float64)
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise ValueError(f"values: {code} with a scale that is negative or not finite")
    levels = _unpack(body[end:], k, spec)
    top = spec.levels - 1
    table = (2 * np.arange(spec.levels) - top) / top
    return np.asarray((table[levels] * _spread(scales, k, chunk)).astype(np.float32))


def _spec(code: str) -> ValueCode:
    if code not in VALUE_CODES:
        raise unknown("value code", code, VALUE_CODES)
    return VALUE_CODES[code]


def _length(code: str, body: bytes, k: int, expected: int) -> None:
    if len(body) != expected:
        raise ValueError(f"values: {len(body)} bytes for {k} values in {code}, not {expected}")


def _finite(values: Array, error: type[ValueError]) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        raise error(f"values: {values[first]} at {first}; only finite values are sent")


def _starts(k: int, chunk: int | None) -> Array:
    return np.arange(0, k, min(chunk or k, k))


def _scales(values: Array, chunk: int | None, mean: bool) -> Array:
    """The largest, or the mean, magnitude of each chunk, as float32 numbers in float64."""
    size = np.abs(values).astype(np.float64)
    starts = _starts(len(values), chunk)
    if not mean:
        return np.asarray(np.maximum.reduceat(size, starts))
    lengths = np.diff(starts, append=len(values))
    return np.asarray((np.add.reduceat(size, starts) / lengths).astype(np.float32), np.float64)


def _spread(scales: Array, k: int, chunk: int | None) -> Array:
    """The scale of every value; one number if it is the same for all."""
    if len(scales) == 1:
        return scales
    return np.repeat(scales, np.diff(_starts(k, chunk), append=k))


def _levels(values: Array, scale: Array, levels: int, rng: Random) -> Array:
    """Which level each value becomes: 0 is minus the scale, ``levels - 1`` the scale."""
    if levels == 2:
        return (values >= 0).astype(np.uint8)
    place = (values / np.where(scale > 0, scale, 1) + 1) * ((levels - 1) / 2)
    draws = 0.5 if rng is None else rng.random(len(values))
    return np.clip(np.floor(place + draws), 0, levels - 1).astype(np.uint8)


def _pack(levels: Array, bits: int) -> bytes:
    per = 8 // bits
    padded = np.zeros((-(-len(levels) // per), per), dtype=np.uint8)
    padded.ravel()[: len(levels)] = levels
    padded <<= np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(padded, axis=1)).tobytes()


def _unpack(body: bytes, k: int, spec: ValueCode) -> Array:
    rows = np.frombuffer(body, dtype=np.uint8)[:, None]
    levels = (rows >> np.arange(0, 8, spec.bits, dtype=np.uint8)) & ((1 << spec.bits) - 1)
    levels = levels.ravel()
    if levels[k:].any():
        raise ValueError("values: the last byte is not filled up with zeros")
    if int(levels[:k].max()) >= spec.levels:
        raise ValueError(f"values: a level that is not one of {spec.levels}")
    return levels[:k]


def _to_fp16(values: Array) -> bytes:
    largest = float(np.abs(values).max())
    top = int(np.frexp(largest)[1]) - 1 if largest else 14
    scale = np.float32(2.0 ** max(top - 14, -126))
    half = (values / scale).astype("<f2")
    if top == 127:  # rounded up to 2^15, it would not fit into float32 any more
        np.clip(half, -32752, 32752, out=half)
    return bytes(scale.astype("<f4").tobytes() + half.tobytes())


def _from_fp16(body: bytes) -> Array:
    scale = np.frombuffer(body[:4], dtype="<f4").astype(np.float32)
    return np.frombuffer(body[4:], dtype="<f2").astype(np.float32) * scale


def _to_bf16(values: Array) -> bytes:
    bits = values.view(np.uint32)
    sign, size = bits & np.uint32(1 << 31), bits & np.uint32((1 << 31) - 1)
    even = (size >> np.uint32(16)) & np.uint32(1)
    rounded = (size + np.uint32(0x7FFF) + even) >> np.uint32(16)
    rounded = np.minimum(rounded, np.uint32(0x7F7F))  # the largest that is finite
    return bytes(((sign >> np.uint32(16)) | rounded).astype("<u2").tobytes())


def _from_bf16(body: bytes) -> Array:
    wide = np.frombuffer(body, dtype="<u2").astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)


_FLOATS: dict[str, tuple[Callable[[Array], bytes], Callable[[bytes], Array]]] = {
    "fp32": (
        lambda values: values.astype("<f4").tobytes(),
        lambda body: np.frombuffer(body, dtype="<f4").astype(np.float32),
    ),
    "fp16": (_to_fp16, _from_fp16),
    "bf16": (_to_bf16, _from_bf16),
}
