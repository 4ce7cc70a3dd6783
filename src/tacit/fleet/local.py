"""All workers in one process."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tacit.fleet.fleet import Fleet, Pending, Ready


class LocalFleet(Fleet):
    """A simulation: this process hosts all ``size`` workers. Every reduction is deterministic."""

    def __init__(self, size: int) -> None:
        super().__init__(size, range(size), deterministic=False)

    def barrier(self) -> None:
        return None

    def total(self, values: Tensor) -> Tensor:
        return values.clone()

    def _sum_later(self, partial: Tensor) -> Pending:
        return Ready(partial)

    def _max(self, partial: Tensor) -> Tensor:
        return partial

    def _gather_rows(self, rows: Tensor) -> Tensor:
        return rows

    def _gather_bytes(self, messages: Sequence[bytes]) -> list[bytes]:
        return list(messages)
