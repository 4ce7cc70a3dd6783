"""Fewer points for the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Check = tuple[int, float, bool]


def thin(checks: Sequence[Check], limit: int = 3000) -> list[Check]:
    """About ``limit`` of the checks (step, estimate, fired), in order: all that fired, what came
    right after them, and of stretches in between the lowest and the highest."""
    if len(checks) <= limit:
        return list(checks)
    keep = {0, len(checks) - 1}
    for index, (_, _, fired) in enumerate(checks):
        if fired:
            # the fall after a synchronisation is steep; without its foot it would look slanted
            keep.update((index, min(index + 1, len(checks) - 1)))
    stretches = max(1, (limit - len(keep)) // 2)
    size = -(-len(checks) // stretches)
    for start in range(0, len(checks), size):
        stretch = range(start, min(start + size, len(checks)))
        keep.add(min(stretch, key=lambda i: checks[i][1]))
        keep.add(max(stretch, key=lambda i: checks[i][1]))
    return [checks[index] for index in sorted(keep)]


def spread(items: Sequence[T], limit: int = 1000) -> list[T]:
    """At most about ``limit`` of the items, evenly spread, with the last."""
    stride = -(-len(items) // limit) or 1
    chosen = list(items[::stride])
    return chosen if (len(items) - 1) % stride == 0 else [*chosen, items[-1]]
