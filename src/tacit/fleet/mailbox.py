"""Messages between workers of which some may be silent: a worker goes on once it has enough.

MoNNA (Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead", ICML 2023)
lets a worker go on once it holds n - f models, its own included, however silent the other f are. A
collective cannot do that: it ends when all have taken part, or breaks. So messages travel on plain
connections, one for each pair of workers, which a thread attends to (``carrier.py``).

A worker takes a peer's message "of this step or a later one". A sender whose peer is slow drops
what is old, so without the "later" the slow one would wait for messages that never come. No worker
waits for ever while n - f go on: of every peer the newest message is always kept, and the slowest
worker finds one of its step or later from each. Nor can a fast one run away: it is at most as far
ahead as n - f others allow.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from tacit.errors import PeerLost, UserError
from tacit.fleet.carrier import Carrier
from tacit.fleet.contacts import introduce, listen
from tacit.fleet.line import encode

#: Messages of a peer that are held; the newest ones.
_HELD = 4
#: A message for a step further ahead is ignored.
_AHEAD = 1 << 40


class Mailbox:
    """One worker's post with its peers: the other processes of ``group``, one worker each.

    ``width``, ``dtype``: of every row, the same in all processes. Collective: every process of the
    group must construct its own, and another one for every run: steps only go on. Raises UserError
    for a width below 1, PeerLost where a process does not take part. ``rank``, ``size``: as in the
    group.

    A peer whose connection breaks is written to again on the next one; without any for a minute it
    is gone. One that ends its connection in order is gone at once.

    Memory, on the CPU, in rows: for each peer at most 4 that came and one that is coming; of the
    own ones the last, and as long as some peer is slow at most 3 more for it. Peers share them: one
    copy of a row is sent to all.
    """

    def __init__(
        self, group: dist.ProcessGroup | None, width: int, *, dtype: torch.dtype = torch.float32
    ) -> None:
        if width < 1:
            raise UserError(f"the width of a mailbox must be at least 1, not {width}")
        blank = torch.empty(width, dtype=dtype)
        server = listen()
        try:
            self.rank, contacts = introduce(group, server.getsockname()[:2])
        except BaseException:
            server.close()
            raise
        self.size = len(contacts)
        peers = {rank: contact for rank, contact in enumerate(contacts) if rank != self.rank}
        self._width, self._dtype, self._posted = width, dtype, -1
        self._inbox = _Inbox(peers)
        self._carrier = Carrier(self.rank, peers, server, blank, self._inbox)
        # also when the program ends; neither the thread nor this holds on to the mailbox
        self._finalizer = weakref.finalize(self, self._carrier.close, 5.0)

    def post(self, step: int, row: Tensor | None) -> None:
        """Send every peer a copy of ``row``, shape ``(width,)`` on any device; None: nothing.

        Returns at once, and raises nothing for a peer that is dead or slow. For a slow one the 2
        newest messages wait, beside the one that is on its way; older ones are dropped. Raises
        UserError for a row of another shape or type, for a step that is not in [0, 2^64), and for
        one that is not later than the one before, which peers would ignore.
        """
        if row is None:
            return
        if row.shape != (self._width,) or row.dtype != self._dtype:
            raise UserError(
                f"a row of this mailbox has shape ({self._width},) and type {self._dtype}, "
                f"got {tuple(row.shape)} and {row.dtype}"
            )
        if not 0 <= step < 1 << 64:
            raise UserError(f"the step of a message must be in [0, 2^64), not {step}")
        if step <= self._posted:
            raise UserError(
                f"a message of step {self._posted} was sent before this one of step {step}; steps "
                "go on, so a run that begins again needs a new mailbox"
            )
        self._posted = step
        self._carrier.post(encode(step, row))

    def last_word(self, row: Tensor, linger: float = 30.0) -> None:
        """Send every peer ``row`` as this worker's message of every step to come, and begin to
        :meth:`close`; returns at once."""
        self.post(_AHEAD, row)
        self._carrier.leave(linger)

    def collect(self, step: int, enough: int, timeout: float | None = None) -> dict[int, Tensor]:
        """Wait until ``enough`` peers (oneself not counted) have sent a message of this step or of
        a later one; of all peers that have, by rank: the earliest such message that is held.

        At most 4 messages of a peer are held, the newest. Those before ``step`` are forgotten. Rows
        are as they came, NaN or not, on the CPU, and not to be written to: the row of a later step
        is given again when that step comes.

        A message that is not later than the one before it, or more than 2^40 steps ahead, is
        ignored. Raises PeerLost, which says who, as soon as so many peers are gone that there
        cannot be enough, and after ``timeout`` seconds; UserError where ``enough`` is more than
        there are peers, where the step is before that of another call, and where the mailbox is
        closed.
        """
        if not 0 <= enough < self.size:
            raise UserError(f"there are {self.size - 1} peers, so enough cannot be {enough}")
        return self._inbox.collect(step, enough, timeout)

    @property
    def gone(self) -> dict[int, str]:
        """The peers from which nothing more will come, and why. What came before stays usable."""
        return self._inbox.gone()

    @property
    def sent(self) -> int:
        """Bytes of the messages that have left altogether, headers included."""
        return self._carrier.sent

    @property
    def received(self) -> int:
        """Bytes of the messages that have arrived altogether, headers included."""
        return self._carrier.received

    def close(self, linger: float = 5.0) -> None:
        """End all connections and the thread. Idempotent. What is still on its way may go on until
        nothing has moved for ``linger`` seconds, or for 20 times as long; a peer to whom there is
        no connection is waited for 10 seconds."""
        self._finalizer.detach()
        self._carrier.close(linger)


class _Inbox:
    """What has arrived. Written by the carrier's thread, read by the worker's."""

    def __init__(self, peers: Iterable[int]) -> None:
        self._changed = threading.Condition()
        self._held: dict[int, deque[tuple[int, Tensor]]] = {p: deque(maxlen=_HELD) for p in peers}
        self._last = dict.fromkeys(self._held, -1)
        self._gone: dict[int, str] = {}
        self._step = 0
        self._ended = False

    def deliver(self, rank: int, step: int, row: Tensor) -> None:
        with self._changed:
            if not self._last[rank] < step <= self._step + _AHEAD:
                return
            self._last[rank] = step
            if step < self._step:
                return
            held = self._held[rank]
            held.append((step, row))
            if len(held) == 1:  # more of the same peer is of no use to who waits
                self._changed.notify_all()

    def lose(self, rank: int, why: str) -> None:
        with self._changed:
            self._gone[rank] = why
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def gone(self) -> dict[int, str]:
        with self._changed:
            return dict(sorted(self._gone.items()))

    def collect(self, step: int, enough: int, timeout: float | None) -> dict[int, Tensor]:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if step < self._step:
                raise UserError(
                    f"messages of step {self._step} were collected before those of step {step}; "
                    "steps go on, so a run that begins again needs a new mailbox"
                )
            self._step = step
            for held in self._held.values():
                while held and held[0][0] < step:
                    held.popleft()
            while True:
                there = {rank: held[0][1] for rank, held in self._held.items() if held}
                if len(there) >= enough:
                    return there
                if self._ended:
                    raise UserError("this mailbox is closed")
                gone = {rank: why for rank, why in self._gone.items() if rank not in there}
                silent = [rank for rank in self._held if rank not in there and rank not in gone]
                possible = len(there) + len(silent)
                needed = f"step {step} needs messages of {enough} peers, and only"
                if possible < enough:
                    raise PeerLost(f"{needed} {possible} can still have sent one; {_say(gone)}")
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    names = [f"nothing came from worker {rank}" for rank in silent]
                    said = ", ".join([*names, *filter(None, [_say(gone)])])
                    raise PeerLost(f"{needed} {len(there)} came within {timeout:g} s; {said}")
                self._changed.wait(left)


def _say(gone: dict[int, str]) -> str:
    return ", ".join(f"worker {rank} is gone: {why}" for rank, why in sorted(gone.items()))
