"""An open connection with a peer, and the messages on it.

After the greetings (``contacts.py``) messages follow each other in both directions:

    magic "TCTP" | step u64 | crc32 u32 of step and row | row

All integers little-endian; every row has the same length, which both sides know beforehand, so a
peer cannot make this process allocate more than one row at a time.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections import deque

import torch
from torch import Tensor

from tacit.errors import PeerError
from tacit.fleet.contacts import GREETING_BYTES

_MAGIC = b"TCTP"
_HEADER = struct.Struct("<4sQI")
_STEP = slice(4, 12)

_CUT_OFF = "it closed the connection in the middle of a message"

HEADER_BYTES = _HEADER.size
#: Messages that wait for a slow peer; one more may be on its way.
_WAITING = 2
#: Bytes that are written at a time.
_PIECE = 1 << 17


def encode(step: int, row: Tensor) -> bytearray:
    """A row ``(width,)`` on any device as a message; a copy."""
    message = bytearray(_HEADER.size + row.numel() * row.element_size())
    torch.frombuffer(message, dtype=row.dtype, offset=_HEADER.size).copy_(row.detach())
    _HEADER.pack_into(message, 0, _MAGIC, step, 0)
    view = memoryview(message)
    checksum = zlib.crc32(view[_HEADER.size :], zlib.crc32(view[_STEP]))
    _HEADER.pack_into(message, 0, _MAGIC, step, checksum)
    return message


class Ended(PeerError):
    """The peer has ended its direction, between two messages."""


class Line:
    """Made, used and closed in an event loop. Where it breaks, also in the middle of a message,
    raises OSError; PeerError if the peer is to blame."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def connect(self, host: str, port: int) -> None:
        await self._loop.sock_connect(self._sock, (host, port))

    async def write(self, message: bytes | memoryview) -> None:
        await self._loop.sock_sendall(self._sock, message)

    async def read_greeting(self) -> bytes:
        message = bytearray(GREETING_BYTES)
        if await self._fill(memoryview(message)) < len(message):
            raise ConnectionError("it closed the connection instead of a greeting")
        return bytes(message)

    async def read(self, blank: Tensor) -> tuple[int, Tensor]:
        """The next message: its step, and a new row like ``blank``. Raises Ended after the last."""
        header = bytearray(_HEADER.size)
        there = await self._fill(memoryview(header))
        if not there:
            raise Ended("it closed the connection")
        if not _MAGIC.startswith(header[: min(there, len(_MAGIC))]):
            raise PeerError("it sent something that is no message")
        if there < len(header):
            raise ConnectionError(_CUT_OFF)
        _, step, checksum = _HEADER.unpack(header)
        row = torch.empty_like(blank)
        view = row.view(torch.uint8).numpy().data
        if await self._fill(view) < len(view):
            raise ConnectionError(_CUT_OFF)
        if zlib.crc32(view, zlib.crc32(header[_STEP])) != checksum:
            raise PeerError("it sent a message with a wrong checksum")
        return step, row

    async def _fill(self, view: memoryview) -> int:
        """Read until the view is full or the other side has ended; the bytes read."""
        filled = 0
        while filled < len(view):
            count = await self._loop.sock_recv_into(self._sock, view[filled:])
            if not count:
                break
            filled += count
            await asyncio.sleep(0)  # a peer that never pauses must not keep others waiting
        return filled

    def end(self) -> None:
        """Say that nothing more will be written."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


class Outbox:
    """What waits for one peer: the newest messages. ``sent``: bytes of those that have left whole;
    ``moved``: of parts too."""

    def __init__(self) -> None:
        self.sent = self.moved = 0
        #: All has left, and the line has been ended.
        self.finished = False
        self._messages: deque[bytearray] = deque(maxlen=_WAITING)
        #: The last one that was begun to be written, of which nobody knows whether it arrived.
        self._unsure: bytearray | None = None
        self._changed = asyncio.Event()
        self._ended = self._discarded = False

    def put(self, message: bytearray) -> None:
        if not self._discarded:
            self._messages.append(message)
            self._changed.set()

    def discard(self) -> None:
        """The peer is gone: nothing need be kept for it."""
        self._discarded = True
        self._unsure = None
        self._messages.clear()

    def end(self) -> None:
        """What is there still leaves, then the line is ended."""
        self._ended = True
        self._changed.set()

    async def empty_into(self, line: Line) -> None:
        """Write what comes, until the end. Where this fails, what the peer has sent can still be
        read, so it is the reader who finds that the line is broken. On the next line all goes on,
        with the message that may have been lost, unless two newer ones wait."""
        if self._unsure is not None and len(self._messages) < _WAITING:
            self._messages.appendleft(self._unsure)
            self._changed.set()
        while True:
            await self._changed.wait()
            if self._messages:
                message = self._unsure = self._messages.popleft()
                for start in range(0, len(message), _PIECE):
                    piece = memoryview(message)[start : start + _PIECE]
                    await line.write(piece)
                    self.moved += len(piece)
                self.sent += len(message)
            elif self._ended:
                self.finished = True
                line.end()
                return
            else:
                self._changed.clear()
