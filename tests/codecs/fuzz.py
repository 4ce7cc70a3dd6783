"""Bytes that no encoder wrote: every decoder gives a valid result or a ValueError, no third thing.

    python tests/codecs/fuzz.py 1000000 [seed]

Half of the inputs are noise behind a code's first byte, the others messages with a fault: a byte
changed, cut off, added, or another k or n. Every message goes through the compiled and the plain
decoder, which must agree.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np

from tacit.codecs import (
    VALUE_CODES,
    decode_positions,
    decode_values,
    encode_positions,
    encode_values,
)

#: The first bytes worth trying; others are drawn too.
_FIRST = (0, 1, 2, 130, 64, 65, 66, 68, 71, 76, 117, 192, 194, 200)


def fuzz(count: int, seed: int = 0) -> Counter[str]:
    """How ``count`` inputs ended, by decoder and outcome. AssertionError if one was wrong."""
    rng = np.random.default_rng(seed)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        if number % 4 == 3:
            outcomes[_values(rng)] += 1
        else:
            outcomes[_positions(rng)] += 1
    return outcomes


def _positions(rng: np.random.Generator) -> str:
    n = int(rng.integers(1, 1 << int(rng.integers(1, 12))))
    if rng.random() < 0.1:
        n = int(rng.integers(1, 1 << 53))
    k = int(rng.integers(0, min(n, 40) + 1))
    if rng.random() < 0.5:
        first = int(rng.choice(_FIRST)) if rng.random() < 0.8 else int(rng.integers(256))
        exact = (n + 7) // 8 if first == 1 and n < 4096 else int(rng.integers(0, 40))
        body = bytes([first]) + rng.bytes(exact)
    else:
        k = min(k, n)
        width = n if rng.random() < 0.7 else min(n, 4 * k + 1)  # crowded: the nested code
        chosen = np.unique(rng.integers(0, width, k))
        if rng.random() < 0.2 and n < 4096:  # most of all: the absent ones are coded
            chosen = np.setdiff1d(np.arange(n), chosen)
        k = len(chosen)
        body, k, n = _spoilt(rng, encode_positions(chosen, n), k, n)
    results = [_run(decode_positions, body, k, n, kernel=kernel) for kernel in (False, None)]
    if isinstance(results[0], str):
        assert isinstance(results[1], str), (body, k, n, results)
        return f"{_name(body)}: refused"
    for found in results:
        assert found.dtype == np.int64, (body, k, n)
        assert len(found) == k, (body, k, n)
        assert np.all(np.diff(found, prepend=-1) > 0), (body, k, n)
        assert not k or found[-1] < n, (body, k, n)
    assert np.array_equal(*results), (body, k, n)
    return f"{_name(body)}: decoded"


def _name(body: bytes) -> str:
    code = body[0] & 127 if body else -1
    return {-1: "nothing", 0: "all", 1: "bitmap", 2: "nested"}.get(
        code, "rice" if code >= 64 else "unknown"
    )


def _values(rng: np.random.Generator) -> str:
    code = str(rng.choice(list(VALUE_CODES)))
    k = int(rng.integers(0, 40))
    if rng.random() < 0.5:
        exact = 5 + (k * VALUE_CODES[code].bits + 7) // 8
        body = rng.bytes(exact if rng.random() < 0.7 else int(rng.integers(0, 60)))
        if body and rng.random() < 0.8:
            body = bytes([int(rng.choice([0, 3, 12, 62, 255]))]) + body[1:]
    else:
        values = rng.standard_normal(k).astype(np.float32)
        chunk = None if rng.random() < 0.3 else 1 << int(rng.integers(0, 6))
        body, k, _ = _spoilt(rng, encode_values(code, values, chunk=chunk), k, 1 << 40)
    found = _run(decode_values, code, body, k)
    if isinstance(found, str):
        return f"{code}: refused"
    assert found.dtype == np.float32, (code, body, k)
    assert found.shape == (k,), (code, body, k)
    assert np.isfinite(found).all(), (code, body, k)
    return f"{code}: decoded"


def _spoilt(rng: np.random.Generator, body: bytes, k: int, n: int) -> tuple[bytes, int, int]:
    """The message with one fault, of a kind drawn from ``rng``."""
    changed = bytearray(body)
    kind = int(rng.integers(6))
    if kind == 0 and changed:
        at = int(rng.integers(len(changed)))
        changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 1 and changed:
        changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    elif kind == 2:
        del changed[int(rng.integers(len(changed) + 1)) :]
    elif kind == 3:
        changed += rng.bytes(int(rng.integers(1, 4)))
    elif kind == 4:
        k = max(0, k + int(rng.integers(-3, 4)))
    else:
        n = max(0, n + int(rng.integers(-9, 10)))
    return bytes(changed), k, n


def _run(decode: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return decode(*arguments, **options)
    except ValueError as error:
        if not str(error).startswith(("positions: ", "values: ")):
            raise AssertionError(f"{arguments}: {error!r}") from error
        return "refused"


if __name__ == "__main__":
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for outcome, times in sorted(fuzz(inputs, start).items()):
        print(f"{outcome:20}{times:>10,}")
