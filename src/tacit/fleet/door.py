"""Where connections come in: who says in time who it is comes through, others are shown out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from tacit.errors import PeerError
from tacit.fleet.contacts import Contact, check_greeting
from tacit.fleet.line import Line

Asked = asyncio.Task["tuple[int, int] | None"]

#: Connections that have not greeted and are kept waiting for; beyond that the oldest is closed.
_STRANGERS = 64


class Door:
    """``contacts``: who may come in; whom the owner removes no longer may. ``welcome``: is given
    the rank of who has come, the bytes of its rows, and the connection."""

    def __init__(
        self,
        server: socket.socket,
        contacts: dict[int, Contact],
        welcome: Callable[[int, int, Line], None],
        patience: float,
    ) -> None:
        self._server, self._contacts, self._welcome = server, contacts, welcome
        self._patience = patience
        self._asked: list[Asked] = []

    async def keep(self) -> None:
        """Let in who comes, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    line = Line((await loop.sock_accept(self._server))[0])
                except OSError:  # it hung up again, or this process has too many files open
                    await asyncio.sleep(0.1)
                    continue
                self._begin(line)
                if len(self._asked) > _STRANGERS:  # who means well greets at once, or calls again
                    asked = self._asked.pop(0)
                    asked.cancel()
                await asyncio.sleep(0)  # those who greet come first
        finally:
            for asked in self._asked:
                asked.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)

    def _begin(self, line: Line) -> None:
        asked = asyncio.get_running_loop().create_task(self._ask(line))
        self._asked.append(asked)
        asked.add_done_callback(lambda asked: self._answered(asked, line))

    async def _ask(self, line: Line) -> tuple[int, int] | None:
        """Who is it? A stranger is shown out, and nobody is told."""
        with contextlib.suppress(OSError, PeerError, asyncio.TimeoutError):
            message = await asyncio.wait_for(line.read_greeting(), self._patience)
            return check_greeting(message, self._contacts)
        return None

    def _answered(self, asked: Asked, line: Line) -> None:
        if asked in self._asked:
            self._asked.remove(asked)
        greeted = None if asked.cancelled() else asked.result()
        if greeted is None or greeted[0] not in self._contacts:
            line.close()
        else:
            self._welcome(*greeted, line)
