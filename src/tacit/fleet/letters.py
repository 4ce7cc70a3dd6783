"""Messages of bytes, which may have any lengths: the lengths go first."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from tacit.errors import PeerError, UserError
from tacit.fleet.ledger import Kind, Ledger


class Letters(ABC):
    """What a fleet does with messages of bytes; ``size`` workers, of whom some are hosted here."""

    size: int
    hosted: range
    ledger: Ledger

    def gather_bytes(self, messages: Sequence[bytes], kind: Kind) -> list[bytes]:
        """Everybody's messages in worker order; ``messages``: the hosted workers', any lengths."""
        gathered = self.gather_within(messages, kind)
        assert gathered is not None
        return gathered

    def gather_within(
        self, messages: Sequence[bytes], kind: Kind, limit: float = math.inf
    ) -> list[bytes] | None:
        """:meth:`gather_bytes` where all messages together have at most ``limit`` bytes; else
        nothing is sent but their lengths (8 bytes each), and everybody gets None."""
        lengths = self._lengths(messages, kind)
        if sum(lengths) > limit:
            return None
        self.ledger.gather(kind, lengths)
        return self._gather_bytes(messages, lengths) if any(lengths) else [b""] * self.size

    def collect_bytes(
        self, messages: Sequence[bytes], kind: Kind, limit: float = math.inf
    ) -> list[bytes] | None:
        """Everybody's messages in worker order, for worker 0's process, which coordinates (see
        :attr:`leader`); None for the others. Raises PeerError, in every process and before anything
        is sent, where a message has more than ``limit`` bytes."""
        lengths = self._lengths(messages, kind)
        for worker, length in enumerate(lengths):
            _check_length(f"worker {worker}", length, limit)
        self.ledger.collect(kind, lengths)
        return self._collect_bytes(messages, lengths)

    def spread_bytes(self, message: bytes | None, kind: Kind, limit: float = math.inf) -> bytes:
        """The coordinator's message, in every process; the others give None. Its length goes first
        (8 bytes to each). Raises PeerError in every process if that is more than ``limit``."""
        everybody = np.ones(self.size, np.bool_)
        self.ledger.download(_kind_of_length(kind), 8, everybody)
        length = self._spread_length(len(message or b""))
        _check_length("the coordinator", length, limit)
        self.ledger.download(kind, length, everybody)
        return self._spread_bytes(message, length)

    def _lengths(self, messages: Sequence[bytes], kind: Kind) -> list[int]:
        if len(messages) != len(self.hosted):
            raise UserError(f"{len(messages)} messages from {len(self.hosted)} hosted workers")
        self.ledger.gather(_kind_of_length(kind), [8] * self.size)
        lengths = self._gather_lengths([len(message) for message in messages])
        for worker, length in enumerate(lengths):
            _check_length(f"worker {worker}", length)
        return lengths

    # -- what an implementation provides

    @abstractmethod
    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]: ...

    @abstractmethod
    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]: ...

    @abstractmethod
    def _collect_bytes(
        self, messages: Sequence[bytes], lengths: list[int]
    ) -> list[bytes] | None: ...

    @abstractmethod
    def _spread_length(self, length: int) -> int: ...

    @abstractmethod
    def _spread_bytes(self, message: bytes | None, length: int) -> bytes: ...


def _kind_of_length(kind: Kind) -> Kind:
    return "evaluation" if kind == "evaluation" else "control"


def _check_length(sender: str, length: int, limit: float = math.inf) -> None:
    """Raise PeerError for a length that no process should make room for."""
    if not 0 <= length <= limit:
        most = f"; at most {limit:,.0f} are expected" if length > 0 else ""
        raise PeerError(f"{sender} announces a message of {length:,} bytes{most}")
