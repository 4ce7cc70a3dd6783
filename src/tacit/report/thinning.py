"""Fewer points for the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Check = tuple[int, float, bool]
Conversation = tuple[int, int, int, bool]


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


def thin_conversations(settled: Sequence[Conversation], limit: int = 2000) -> list[Conversation]:
    """At most about ``limit`` of the conversations (step, callers, members, whole), in order. Of
    each stretch: a full one, the partial ones with the fewest and the most members, and the one
    with the most callers. Stems of a stretch are nearer to each other than a screen shows."""
    if len(settled) <= limit:
        return list(settled)
    keep: set[int] = set()
    size = -(-len(settled) * 4 // limit)
    for start in range(0, len(settled), size):
        stretch = range(start, min(start + size, len(settled)))
        keep.add(max(stretch, key=lambda i: settled[i][1]))
        keep.add(max(stretch, key=lambda i: settled[i][3]))
        if partial := [i for i in stretch if not settled[i][3]]:
            keep.add(min(partial, key=lambda i: settled[i][2]))
            keep.add(max(partial, key=lambda i: settled[i][2]))
    return [settled[index] for index in sorted(keep)]
