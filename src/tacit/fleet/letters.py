"""Messages of bytes, which may have any lengths: the lengths go first."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tacit.errors import PeerError, UserError
from tacit.fleet.ledger import Kind, Ledger


@dataclass(frozen=True)
class Distrust:
    """Where one bad sender must not stop all. A message that is announced with less than 0 or more
    than ``longest`` bytes does not travel, and nobody makes room for it: all hear ``instead``."""

    longest: int
    instead: bytes


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
        self,
        messages: Sequence[bytes],
        kind: Kind,
        limit: float = math.inf,
        distrust: Distrust | None = None,
    ) -> list[bytes] | None:
        """:meth:`gather_bytes` where all messages together have at most ``limit`` bytes; else
        nothing is sent but their lengths (8 bytes each), and everybody gets None. With
        ``distrust`` all of them count as long as the median of those that there are, which fewer
        liars than honest cannot make longer than what some honest worker sends."""
        lengths = self._lengths(messages, kind, distrust)
        if (sum(lengths) if distrust is None else _usual(lengths)) > limit:
            return None
        return self._move(messages, lengths, kind, distrust, self._gather)

    def collect_bytes(
        self,
        messages: Sequence[bytes],
        kind: Kind,
        limit: float = math.inf,
        distrust: Distrust | None = None,
    ) -> list[bytes] | None:
        """Everybody's messages in worker order, for worker 0's process, which coordinates (see
        :attr:`leader`); None for the others. Raises PeerError, in every process and before anything
        is sent, where a message has more than ``limit`` bytes, unless there is ``distrust``."""
        lengths = self._lengths(messages, kind, distrust)
        if distrust is None:
            for worker, length in enumerate(lengths):
                _check_length(f"worker {worker}", length, limit)
        return self._move(messages, lengths, kind, distrust, self._collect)

    def spread_bytes(self, message: bytes | None, kind: Kind, limit: float = math.inf) -> bytes:
        """The coordinator's message, in every process; the others give None. Its length goes first
        (8 bytes to each). Raises PeerError in every process if that is more than ``limit``."""
        everybody = np.ones(self.size, np.bool_)
        self.ledger.download(_kind_of_length(kind), 8, everybody)
        length = self._spread_length(len(message or b""))
        _check_length("the coordinator", length, limit)
        self.ledger.download(kind, length, everybody)
        return self._spread_bytes(message, length)

    def _lengths(
        self, messages: Sequence[bytes], kind: Kind, distrust: Distrust | None
    ) -> list[int]:
        """Everybody's; -1 of those that are not believed."""
        if len(messages) != len(self.hosted):
            raise UserError(f"{len(messages)} messages from {len(self.hosted)} hosted workers")
        self.ledger.gather(_kind_of_length(kind), [8] * self.size)
        lengths = self._gather_lengths([len(message) for message in messages])
        if distrust is not None:
            return [n if 0 <= n <= distrust.longest else -1 for n in lengths]
        for worker, length in enumerate(lengths):
            _check_length(f"worker {worker}", length)
        return lengths

    def _move(
        self,
        messages: Sequence[bytes],
        lengths: list[int],
        kind: Kind,
        distrust: Distrust | None,
        move: Callable[[Sequence[bytes], list[int], Kind], list[bytes] | None],
    ) -> list[bytes] | None:
        mine = lengths[self.hosted.start : self.hosted.stop]
        # nor does its own process send what the others do not wait for
        sent = [b"" if n < 0 else message for n, message in zip(mine, messages, strict=True)]
        every = move(sent, [max(n, 0) for n in lengths], kind)
        if every is None or distrust is None:
            return every
        heard = zip(lengths, every, strict=True)
        return [distrust.instead if n < 0 else message for n, message in heard]

    def _gather(self, messages: Sequence[bytes], lengths: list[int], kind: Kind) -> list[bytes]:
        self.ledger.gather(kind, lengths)
        return self._gather_bytes(messages, lengths) if any(lengths) else [b""] * self.size

    def _collect(
        self, messages: Sequence[bytes], lengths: list[int], kind: Kind
    ) -> list[bytes] | None:
        self.ledger.collect(kind, lengths)
        return self._collect_bytes(messages, lengths)

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


def _usual(lengths: list[int]) -> int:
    """The bytes of all messages that there are, were they as long as the (lower) median one."""
    there = sorted(length for length in lengths if length > 0)
    return len(there) * there[(len(there) - 1) // 2] if there else 0


def _check_length(sender: str, length: int, limit: float = math.inf) -> None:
    """Raise PeerError for a length that no process should make room for."""
    if not 0 <= length <= limit:
        most = f"; at most {limit:,.0f} are expected" if length > 0 else ""
        raise PeerError(f"{sender} announces a message of {length:,} bytes{most}")
