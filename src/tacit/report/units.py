"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: What stands for a number that does not exist.
NONE = "—"

#: The sign in "3.2 times".
TIMES = "\N{MULTIPLICATION SIGN}"


def human_bytes(count: float) -> str:
    """Bytes with a decimal prefix and three digits: ``1.54 MB``."""
    for prefix in ("", "k", "M", "G", "T"):
        # 999.5 would round to four digits
        if count < 999.5:
            return f"{digits(count)} {prefix}B"
        count /= 1000
    return f"{digits(count)} PB"


def human_seconds(seconds: float) -> str:
    """A duration: ``12.3 ms``, ``45.2 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 0.9995:
        return f"{digits(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{digits(seconds)} s"
    if seconds < 3599.5:
        return _two(seconds, 60, "min", "s")
    if seconds < 86370:
        return _two(seconds / 60, 60, "h", "min")
    return _two(seconds / 3600, 24, "d", "h")


def _two(count: float, size: int, name: str, part: str) -> str:
    whole, rest = divmod(round(count), size)
    return f"{whole} {name} {rest} {part}" if rest else f"{whole} {name}"


def times(ratio: float) -> str:
    """How many times: ``41``, ``3.2``."""
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}"


def digits(value: float) -> str:
    """Three significant digits, without an exponent for anything below a million."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def short(accuracy: float) -> str:
    """An accuracy as ``--target`` takes it, with 2 to 4 decimals: ``0.95``, ``0.9528``."""
    return f"{accuracy:.4f}".rstrip("0").ljust(4, "0")


def percent(share: float | None) -> str:
    """A share with one decimal: ``12.5%``."""
    if share is None:
        return NONE
    return f"{share:.1%}" if share else "0%"


def versus(ratio: float | None) -> str:
    """``3.2`` times ``fewer`` if the ratio is above 1, else how many times ``more``."""
    if ratio is None:
        return NONE
    if ratio == 1:
        return f"1{TIMES}"
    if ratio > 1:
        return f"{times(ratio)}{TIMES} fewer"
    return f"{times(1 / ratio)}{TIMES} more"


def listed(items: Sequence[Any]) -> str:
    """``a, b and c``."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
