"""The thread that carries a mailbox's messages: one connection to every peer.

Where a connection breaks, the one of the two who called calls again, until there has been none
for too long (``presence.py``). What does not follow the format (``line.py``) ends a connection for
good. Who wants to leave ends its own direction; the other side, once it has read all of it, closes.
So nothing is lost that a peer still has to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from torch import Tensor

from tacit.errors import PeerError
from tacit.fleet.contacts import Contact, check_greeting, greeting
from tacit.fleet.door import Door
from tacit.fleet.line import HEADER_BYTES, Ended, Line, Outbox
from tacit.fleet.presence import Presence

#: Seconds in which a new connection must have greeted.
GREETING = 10.0
#: Seconds between two calls to a peer.
_PAUSE = 0.2
#: Who leaves waits so many seconds for a peer that is without a connection, ...
_ABSENCE = 10.0
#: ... and for one to whom something still moves so many times as long as for one that is silent.
_PATIENCE = 20


class Receiver(Protocol):
    """Who hears of what arrives. Called in the carrier's thread."""

    def deliver(self, rank: int, step: int, row: Tensor) -> None: ...

    def lose(self, rank: int, why: str) -> None: ...

    def end(self) -> None: ...


class Carrier:
    """Calls the peers of higher rank and lets those of lower rank call.

    So worker 0 need not be reachable, which may know itself by its loopback address only.
    """

    def __init__(
        self,
        rank: int,
        contacts: dict[int, Contact],
        server: socket.socket,
        blank: Tensor,
        receiver: Receiver,
    ) -> None:
        """``contacts``: of the peers, by rank. ``blank``: a row, for its shape and type."""
        #: Bytes of whole messages that have come, headers included.
        self.received = 0
        self._rank, self._contacts, self._server = rank, contacts, server
        self._blank, self._receiver = blank, receiver
        self._row_bytes = blank.numel() * blank.element_size()
        self._outboxes = {peer: Outbox() for peer in contacts}
        #: Those who call, until they are gone.
        self._callers = {peer: contact for peer, contact in contacts.items() if peer < rank}
        self._attending: dict[int, asyncio.Task[None]] = {}
        self._leave, self._all_gone = asyncio.Event(), asyncio.Event()
        self._linger = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="tacit-mailbox", daemon=True)
        self._thread.start()

    @property
    def sent(self) -> int:
        """Bytes of whole messages that have left, headers included."""
        return sum(outbox.sent for outbox in self._outboxes.values())

    def post(self, message: bytearray) -> None:
        """Hand a message over for every peer that is not gone; returns at once."""
        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._put, message)

    def leave(self, linger: float) -> None:
        """Let what waits arrive, then end the thread: after ``linger`` seconds in which nothing
        moved, of which 10 for those to whom there is no connection; after 20 times as long in any
        case. Returns at once."""
        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._start_leaving, linger)

    def close(self, linger: float) -> None:
        """:meth:`leave`, and wait for the end. Idempotent; in a forked child, where the thread does
        not exist, it does nothing."""
        if not self._thread.is_alive():
            return
        self.leave(linger)
        if threading.current_thread() is not self._thread:  # it may collect the garbage
            self._thread.join()

    # -- all that follows runs in the thread

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._carry())
        finally:
            self._loop.close()
            self._receiver.end()

    async def _carry(self) -> None:
        door = Door(self._server, self._callers, self._welcome, GREETING)
        self._door = self._begin(door.keep(), self._server)
        own = "{}:{}".format(*self._server.getsockname())
        tried = {
            rank: f"it did not connect to {own}"
            if rank < self._rank
            else f"it was not reached at {contact.host}:{contact.port}"
            for rank, contact in self._contacts.items()
        }
        self._presence = Presence(tried, self._lose)
        for rank in self._contacts:
            if rank > self._rank:
                self._begin(self._call(rank))
        self._look_around()
        await self._leave.wait()
        self._presence.hurry(_ABSENCE)
        await self._part()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _part(self) -> None:
        """Wait until all are gone, as long as anything moves."""
        end, moved = self._loop.time() + _PATIENCE * self._linger, -1
        while not self._all_gone.is_set() and self._loop.time() < end and self._moved > moved:
            moved = self._moved
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), self._linger)

    @property
    def _moved(self) -> int:
        return sum(outbox.moved for outbox in self._outboxes.values())

    def _begin(
        self, work: Coroutine[Any, Any, None], closed: Line | socket.socket | None = None
    ) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if closed is not None:  # also when it is cancelled before it has begun
            task.add_done_callback(lambda _: closed.close())
        return task

    def _put(self, message: bytearray) -> None:
        for outbox in self._outboxes.values():
            outbox.put(message)

    def _start_leaving(self, linger: float) -> None:
        self._linger = linger
        self._leave.set()
        for outbox in self._outboxes.values():
            outbox.end()

    def _miss(self, rank: int, why: str) -> None:
        if self._outboxes[rank].finished:  # all has been said
            self._presence.lose(rank, why)
        else:
            self._presence.miss(rank, why)

    def _lose(self, rank: int, why: str) -> None:
        self._outboxes[rank].discard()
        self._callers.pop(rank, None)
        if not self._leave.is_set():
            self._receiver.lose(rank, why)
        self._look_around()

    def _look_around(self) -> None:
        if not self._callers:
            self._door.cancel()
        if not self._presence.here:
            self._all_gone.set()

    # -- one connection

    def _welcome(self, rank: int, row_bytes: int, line: Line) -> None:
        """A peer has called; if it has before, that connection is broken, known or not."""
        before = self._attending.get(rank)
        if before is not None:
            before.cancel()

        async def greet_back(line: Line) -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._greet(rank, line)
            self._check_rows(row_bytes)

        self._attending[rank] = self._begin(self._attend(rank, line, greet_back), line)

    async def _call(self, rank: int) -> None:
        """Until it is gone, or all has been said."""
        contact = self._contacts[rank]
        family = socket.AF_INET6 if ":" in contact.host else socket.AF_INET

        async def greet_first(line: Line) -> None:
            await line.connect(contact.host, contact.port)
            await self._greet(rank, line)
            answer = await line.read_greeting()
            self._check_rows(check_greeting(answer, {rank: contact})[1])

        while rank in self._presence.here and not self._outboxes[rank].finished:
            try:
                line = Line(socket.socket(family))
            except OSError as error:
                self._miss(rank, _reason(error))
            else:
                await self._begin(self._attend(rank, line, greet_first), line)
            await asyncio.sleep(_PAUSE)

    async def _attend(self, rank: int, line: Line, meet: Callable[[Line], Awaitable[None]]) -> None:
        """A connection from the greetings to its end."""
        sending = None
        try:
            await asyncio.wait_for(meet(line), GREETING)
            if not self._presence.meet(rank):
                return
            sending = self._loop.create_task(self._outboxes[rank].empty_into(line))
            while True:
                step, row = await line.read(self._blank)
                self.received += HEADER_BYTES + self._row_bytes
                self._receiver.deliver(rank, step, row)
        except (OSError, asyncio.TimeoutError) as error:
            self._miss(rank, _reason(error))
        except Exception as error:  # whatever it is: of this peer nothing more will come
            # a break that the sender is told of first looks like an end to the reader
            broken = sending is not None and sending.done() and sending.exception() is not None
            if isinstance(error, Ended) and broken:
                self._miss(rank, str(error))
            else:
                self._presence.lose(rank, str(error))
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _greet(self, rank: int, line: Line) -> None:
        await line.write(greeting(self._rank, self._row_bytes, self._contacts[rank].own))

    def _check_rows(self, row_bytes: int) -> None:
        if row_bytes != self._row_bytes:
            raise PeerError(f"its rows have {row_bytes:,} bytes, ours have {self._row_bytes:,}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or f"it did not answer within {GREETING:g} s"
