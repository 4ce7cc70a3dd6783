"""Mailboxes in this process, and one worker that is made of bare sockets."""

from __future__ import annotations

import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from tacit.fleet.contacts import GREETING_BYTES, Contact, check_greeting, greeting, listen
from tacit.fleet.mailbox import Mailbox

WIDTH = 5
ROW_BYTES = 4 * WIDTH


def values(step: float) -> torch.Tensor:
    return torch.arange(WIDTH) + float(step)


def read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, and no more; less at the end."""
    message = b""
    while len(message) < size and (part := sock.recv(size - len(message))):
        message += part
    return message


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.005)


def reset(sock: socket.socket) -> None:
    """Break the connection: the other side hears of an error, not of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Town:
    """``bare``: the worker that is no mailbox; None: there is none. ``seen_as``: where others find
    who listens there."""

    def __init__(self, size: int, bare: int | None) -> None:
        self.size, self.bare = size, bare
        self.server = listen()
        self.server.setblocking(True)
        self.server.settimeout(30)
        self.addresses: dict[int, tuple[str, int]] = {}
        if bare is not None:
            self.addresses[bare] = self.server.getsockname()
        self.tokens = {
            (i, j): secrets.token_bytes(32) for i in range(size) for j in range(size) if i != j
        }
        self.boxes: dict[int, Mailbox] = {}
        self.seen_as: Callable[[tuple[str, int]], tuple[str, int]] = lambda address: address
        self._all_here = threading.Barrier(size - (bare is not None))

    def introduce(self, rank: int, address: tuple[str, int]) -> tuple[int, list[Contact]]:
        """In place of the one that needs a process group."""
        self.addresses[rank] = self.seen_as(address)
        self._all_here.wait(30)
        blank = Contact("", 0, b"", b"")
        return rank, [
            blank
            if k == rank
            else Contact(*self.addresses[k], self.tokens[rank, k], self.tokens[k, rank])
            for k in range(self.size)
        ]

    def open(self, width: int = WIDTH) -> None:
        ranks = [k for k in range(self.size) if k != self.bare]
        with ThreadPoolExecutor(len(ranks)) as threads:
            boxes = threads.map(lambda k: Mailbox(k, width), ranks)
            self.boxes = dict(zip(ranks, boxes, strict=True))

    def greeting(self, to: int, row_bytes: int = ROW_BYTES) -> bytes:
        return greeting(self.bare, row_bytes, self.tokens[self.bare, to])

    def dial(self, to: int, first: bytes | None = None) -> socket.socket:
        """The bare worker, or a stranger, connects and says this first."""
        sock = socket.create_connection(self.addresses[to], timeout=30)
        try:
            sock.sendall(self.greeting(to) if first is None else first)
        except OSError:
            sock.close()
            raise
        return sock

    def callers(self) -> dict[int, socket.socket]:
        """The connections of all others to the bare worker; each has said who it is."""
        found = {}
        for _ in range(self.size - 1):
            sock = self.server.accept()[0]
            tokens = {k: Contact("", 0, b"", self.tokens[k, self.bare]) for k in range(self.bare)}
            found[check_greeting(read(sock, GREETING_BYTES), tokens)[0]] = sock
        return found

    def close(self) -> None:
        for box in self.boxes.values():
            box.close(0.0)
        self.server.close()
