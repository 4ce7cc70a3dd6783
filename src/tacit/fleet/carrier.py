"""The thread that carries a mailbox's messages: one connection to every peer.

What does not follow the format (``line.py``) ends a connection, and the peer is gone. Who wants to
leave ends its own direction; the other side, once it has read all of it, closes. So nothing is lost
that a peer still has to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from torch import Tensor

from tacit.errors import PeerError
from tacit.fleet.contacts import Contact, check_greeting, greeting
from tacit.fleet.line import HEADER_BYTES, Line, Outbox

#: Seconds in which a peer must have connected and greeted.
PATIENCE = 30.0
#: Connections beyond one a peer that may be open at a time.
_STRANGERS = 64


class Receiver(Protocol):
    """Who hears of what arrives. Called in the carrier's thread."""

    def deliver(self, rank: int, step: int, row: Tensor) -> None: ...

    def lose(self, rank: int, why: str) -> None: ...

    def end(self) -> None: ...


class Carrier:
    """Connects to the peers of higher rank and lets those of lower rank connect.

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
        self._expected = {peer for peer in contacts if peer < rank}
        self._settled, self._leave = asyncio.Event(), asyncio.Event()
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

    def close(self, linger: float) -> None:
        """Give what waits ``linger`` seconds to arrive, then end the thread. Idempotent; in a
        forked child, where the thread does not exist, it does nothing."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._start_leaving, linger)
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
        self._begin(self._keep_door())
        for rank in self._contacts:
            if rank > self._rank:
                self._dial(rank)
        await self._leave.wait()
        deadline = self._loop.time() + self._linger
        while self._tasks and self._loop.time() < deadline:
            await asyncio.wait(self._tasks, timeout=deadline - self._loop.time())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None], line: Line | None = None) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if line is not None:  # also when it is cancelled before it has begun
            task.add_done_callback(lambda _: line.close())

    def _put(self, message: bytearray) -> None:
        for outbox in self._outboxes.values():
            outbox.put(message)

    def _start_leaving(self, linger: float) -> None:
        self._linger = linger
        self._leave.set()
        for outbox in self._outboxes.values():
            outbox.end()

    def _lose(self, rank: int, why: str) -> None:
        self._outboxes[rank].discard()
        if not self._leave.is_set():
            self._receiver.lose(rank, why)

    # -- the door

    async def _keep_door(self) -> None:
        """Open until every peer of lower rank has come in, or had time enough to."""
        doorkeeper = self._loop.create_task(self._let_in())
        try:
            if self._expected:
                await asyncio.wait_for(self._settled.wait(), PATIENCE)
        except asyncio.TimeoutError:
            for rank in self._expected:
                self._lose(rank, f"it did not connect within {PATIENCE:g} s")
            self._expected.clear()
        finally:
            doorkeeper.cancel()
            await asyncio.gather(doorkeeper, return_exceptions=True)
            self._server.close()

    async def _let_in(self) -> None:
        while True:
            try:
                sock, _ = await self._loop.sock_accept(self._server)
                line = Line(sock)
            except OSError:  # it hung up again, or this process has too many files open
                await asyncio.sleep(0.1)
                continue
            if len(self._tasks) > len(self._contacts) + _STRANGERS:
                line.close()
            else:
                self._begin(self._answer(line), line)

    async def _answer(self, line: Line) -> None:
        """Who is it? A stranger is shown the door, and nobody is told."""
        waited_for = {rank: self._contacts[rank] for rank in self._expected}
        try:
            message = await asyncio.wait_for(line.read_greeting(), PATIENCE)
            rank, row_bytes = check_greeting(message, waited_for)
            if rank not in self._expected:
                raise PeerError("it has come in by another connection")
        except (OSError, PeerError, asyncio.TimeoutError):
            return
        self._expected.remove(rank)
        if not self._expected:
            self._settled.set()

        async def greet_back(line: Line) -> None:
            await self._greet(rank, line)
            self._check_rows(row_bytes)

        await self._attend(rank, line, greet_back)

    # -- one connection

    def _dial(self, rank: int) -> None:
        contact = self._contacts[rank]

        async def call(line: Line) -> None:
            await line.connect(contact.host, contact.port)
            await self._greet(rank, line)
            answer = await line.read_greeting()
            self._check_rows(check_greeting(answer, {rank: contact})[1])

        try:
            line = Line(socket.socket(socket.AF_INET6 if ":" in contact.host else socket.AF_INET))
        except OSError as error:
            self._lose(rank, _reason(error))
        else:
            self._begin(self._attend(rank, line, call), line)

    async def _attend(self, rank: int, line: Line, meet: Callable[[Line], Awaitable[None]]) -> None:
        """A connection from the greetings to its end."""
        sending = None
        try:
            await asyncio.wait_for(meet(line), PATIENCE)
            sending = self._loop.create_task(self._outboxes[rank].empty_into(line))
            while True:
                step, row = await line.read(self._blank)
                self.received += HEADER_BYTES + self._row_bytes
                self._receiver.deliver(rank, step, row)
        except Exception as error:  # whatever it is: of this peer nothing more will come
            self._lose(rank, _reason(error))
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
    if isinstance(error, asyncio.TimeoutError):
        return f"it did not answer within {PATIENCE:g} s"
    if isinstance(error, OSError):
        return f"its connection broke ({error.strerror or error})"
    return str(error)
