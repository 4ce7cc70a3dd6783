"""Which entries of a float32 vector to send: exact top-k by magnitude, and DGC's sampled policy.

Exact top-k by a sampled filter: a small sample gives a threshold that is too low on purpose, one
pass over memory finds the entries that reach it, and the top k among those few are the answer. If
fewer than k reach it, a larger sample decides, and then a full partition. So the sample changes the
time, never the set.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tacit.compiled import compiled_words
from tacit.errors import UserError

Array = npt.NDArray[Any]

#: How many entries of the sample should be above the threshold, and how large a sample is at least.
_HITS, _SAMPLE = 48, 8192
_CHUNK = 1 << 18
_SIZE = np.int32(0x7FFFFFFF)
#: The bits of infinity: those of NaN are above it, of finite magnitudes below.
_INFINITE = 0x7F800000


def top_k(
    x: Array | Tensor, k: int, *, offset: int | None = None, kernel: bool | None = None
) -> Array:
    """Positions of the ``k`` entries of ``x`` (flat, float32) with the largest magnitude: int64,
    ascending. Of equal magnitudes the lowest position wins.

    ``offset``: where the sample begins, by default a function of the length; it does not change the
    result. ``kernel``: None uses numba where it is installed, False never, True insists. A tensor
    is read where it is if it is on the CPU, else copied there. Raises UserError for a vector with
    NaN or inf, unless ``k`` is 0.
    """
    return take_top_k(x, k, offset=offset, kernel=kernel)[0]


def take_top_k(
    x: Array | Tensor,
    k: int,
    *,
    clear: bool = False,
    offset: int | None = None,
    kernel: bool | None = None,
) -> tuple[Array, Array]:
    """``top_k`` and the values there (float32). The pass that finds an entry keeps its value, so
    the memory is not read again. ``clear`` sets those entries of ``x`` to zero."""
    bits = _bits(x, written=clear)
    n = len(bits)
    if not 0 <= k <= n:
        raise UserError(f"top k: k = {k} is not in [0, {n}], the vector's length")
    positions, found = _candidates(bits, k, offset, compiled_words("tacit.codecs.scan", kernel))
    best = _largest(positions, found, k)
    positions, values = positions[best], found[best].view(np.float32)
    if clear:
        bits[positions] = 0
    return positions, values


def sampled_top_k(
    x: Array | Tensor,
    k: int,
    density: float,
    rng: np.random.Generator,
    *,
    ratio: float = 0.01,
    resample: bool = True,
    kernel: bool | None = None,
) -> Array:
    """DGC's selection: positions (int64, ascending) of about ``k`` entries, never more.

    The threshold is that of a strided sample with a random start. If fewer than 0.8 k entries reach
    it, it falls by a factor 0.8, at most ten times; if more than 1.3 k do, it rises by 1.3 unless
    ``resample``. Then the largest k are kept. The authors' code cuts what is left above k at the
    highest positions; here the smallest go, and an exact zero is never sent.

    ``k`` is ``ceil(n * density)`` in the authors' code. ``ratio``: the part that is sampled, 0.01
    at least. Raises UserError as ``top_k`` does.
    """
    bits = _bits(x)
    n = len(bits)
    if not 0 <= k <= n or not 0 < density <= 1 or not 0 < ratio <= 1:
        raise UserError(f"sampled top k: k = {k} of {n}, density {density} or ratio {ratio}")
    few = math.ceil(2 / density)
    if k == 0 or n <= few:
        return top_k(x, k, kernel=kernel)
    scan = compiled_words("tacit.codecs.scan", kernel)
    need = min(n, max(math.ceil(max(ratio, 0.01) * n), few))
    stride = math.ceil(n / need / 32) * 32 + 1
    while n // stride < need and stride > 1:
        stride -= 8
    sample = bits[int(rng.integers(stride)) :: stride] & _SIZE
    # Capped, so that whatever is not finite survives, and is refused.
    threshold = min(_nth_largest(sample, math.ceil(len(sample) * density)), _INFINITE - 1)
    for _ in range(11):
        positions, found = _survivors(bits, threshold, 2 * k, scan)
        wanted = 0.8 if len(positions) < 0.8 * k else 1.3
        if (wanted == 1.3 and (resample or len(positions) <= 1.3 * k)) or threshold == 1:
            break
        scaled = np.array([threshold], np.int32).view(np.float32) * np.float32(wanted)
        threshold = min(max(1, int(scaled.view(np.int32)[0])), _INFINITE - 1)
    return positions[_largest(positions, found, min(k, len(positions)))]


def take(
    x: Array | Tensor, positions: Array, *, clear: bool = False, kernel: bool | None = None
) -> Array:
    """``x[positions]`` (float32, distinct positions); ``clear`` sets those entries to zero."""
    flat = _bits(x, written=clear).view(np.float32)
    _check_range(positions, len(flat))
    scan = compiled_words("tacit.codecs.scan", kernel) if clear else None
    if scan is None:
        values = np.asarray(flat[positions])
        if clear:
            flat[positions] = 0
        return values
    values = np.empty(len(positions), dtype=np.float32)
    scan.take_and_clear(flat, positions, values)
    return values


def add_at(
    x: Array | Tensor, positions: Array, values: Array, *, kernel: bool | None = None
) -> None:
    """``x[positions] += values`` in place (float32, distinct positions)."""
    flat = _bits(x, written=True).view(np.float32)
    if len(positions) != len(values):
        raise UserError(f"{len(values)} values for {len(positions)} positions")
    _check_range(positions, len(flat))
    scan = compiled_words("tacit.codecs.scan", kernel)
    if scan is None:
        flat[positions] += values
    else:
        scan.add_at(flat, positions, values)


def _bits(x: Array | Tensor, written: bool = False) -> Array:
    """The memory of a flat float32 vector as int32; a copy of it for a tensor not on the CPU, which
    is refused if it is to be ``written``."""
    if written and isinstance(x, Tensor) and x.device.type != "cpu":
        raise UserError(f"entries of a tensor on {x.device} cannot be changed here; use the CPU")
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    if array.ndim != 1 or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise UserError(
            f"a flat, contiguous float32 vector is needed, not {array.dtype} of {array.shape}"
        )
    return np.asarray(array.view(np.int32))


def _check_range(positions: Array, n: int) -> None:
    if len(positions) and not 0 <= positions.min() <= positions.max() < n:
        raise IndexError(f"positions outside [0, {n})")


def _candidates(
    bits: Array, k: int, offset: int | None, scan: ModuleType | None
) -> tuple[Array, Array]:
    """Positions and bits of at least ``k`` entries, the top k among them."""
    n = len(bits)
    sample = max(_SAMPLE, _HITS * n // max(k, 1))
    for size in (sample, 4 * sample):
        if not 0 < k <= n // 4 or 4 * size > n:
            break
        stride = n // size | 1  # odd, so that it does not keep to one column of a matrix
        start = n // 3 if offset is None else offset
        thin = bits[start % stride :: stride] & _SIZE
        hits = len(thin) * k / n
        rank = min(len(thin), math.ceil(hits + 4 * math.sqrt(hits)))
        expected = rank * stride
        threshold = _nth_largest(thin, rank)
        positions, found = _survivors(bits, threshold, 2 * expected, scan)
        if len(positions) >= k:
            return positions, found
        if threshold == 1:  # all that is not zero, and the first zeros make it k
            positions = np.union1d(positions, np.arange(k))
            return positions, bits[positions]
    return np.arange(n), bits


def _survivors(
    bits: Array, threshold: int, room: int, scan: ModuleType | None
) -> tuple[Array, Array]:
    """Positions and bits of the entries whose magnitude's bits reach ``threshold``."""
    if scan is None:
        pieces = [
            begin + np.flatnonzero((bits[begin : begin + _CHUNK] & _SIZE) >= threshold)
            for begin in range(0, len(bits), _CHUNK)
        ]
        positions = np.concatenate([np.zeros(0, np.int64), *pieces])
        return positions, bits[positions]
    while True:
        positions, found = np.empty(room, np.int64), np.empty(room, np.int32)
        count = scan.survivors(bits, threshold, positions, found)
        if count <= room:
            return positions[:count], found[:count]
        room = count


def _nth_largest(sizes: Array, rank: int) -> int:
    """The ``rank``-th largest of some magnitudes' bits; at least 1, that is, not zero."""
    return max(1, int(np.partition(sizes, len(sizes) - rank)[len(sizes) - rank]))


def _largest(positions: Array, found: Array, k: int) -> Array:
    """Indices of the ``k`` largest candidates, ascending; the first of equal ones."""
    size = found & _SIZE
    if not k:
        return np.zeros(0, dtype=np.int64)
    bad = size >= _INFINITE
    if bad.any():
        first = int(np.argmax(bad))
        value = found[first : first + 1].view(np.float32)[0]
        raise UserError(f"top k: {value} at {positions[first]}; only finite values are sent")
    if k == len(size):
        return np.arange(k)
    least = np.partition(size, len(size) - k)[len(size) - k]
    above = size > least
    equal = np.flatnonzero(size == least)[: k - int(above.sum())]
    above[equal] = True
    return np.flatnonzero(above)
