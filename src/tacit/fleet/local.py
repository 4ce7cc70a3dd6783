"""All workers in one process."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tacit.fleet.fleet import Fleet, Pending, Ready
from tacit.fleet.star import Lead, LocalStar, Settled, settle


class LocalFleet(Fleet):
    """A simulation: this process hosts all ``size`` workers.

    Two equal runs give equal bits in any case; ``deterministic`` gives those of a cluster.
    """

    def __init__(self, size: int, deterministic: bool = False) -> None:
        super().__init__(size, range(size), deterministic)

    def barrier(self) -> None:
        return None

    def total(self, values: Tensor) -> Tensor:
        return values.clone()

    def _sum_later(self, partial: Tensor) -> Pending:
        return Ready(partial)

    def _max(self, partial: Tensor) -> Tensor:
        return partial

    def _broadcast(self, row: Tensor) -> Tensor:
        return row

    def _gather_rows(self, rows: Tensor) -> Tensor:
        return rows

    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]:
        return list(lengths)

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        del lengths
        return list(messages)

    def _collect_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes] | None:
        return self._gather_bytes(messages, lengths)

    def _spread_length(self, length: int) -> int:
        return length

    def _spread_bytes(self, message: bytes | None, length: int) -> bytes:
        del length
        assert message is not None
        return message

    def _converse(self, rows: Tensor, reports: Tensor, lead: Lead) -> Settled:
        return settle(LocalStar(reports, rows), lead)
