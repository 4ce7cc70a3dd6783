"""Which peers are here: one may be without a connection for a while, and then is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds without a connection after which a peer is gone.
PATIENCE = 60.0
_ADVICE = "set MASTER_ADDR, or give each machine a host name that the others can resolve"


class Presence:
    """Made and used in an event loop. ``tried``: of each peer, what has failed where it is never
    met. ``lose``: is told who is gone, once, and why."""

    def __init__(self, tried: dict[int, str], lose: Callable[[int, str], None]) -> None:
        #: Those who are not gone.
        self.here = set(tried)
        self._tried, self._lose = tried, lose
        self._met: set[int] = set()
        self._missed: dict[int, asyncio.TimerHandle] = {}
        self._why = dict.fromkeys(tried, "")
        self._patience = PATIENCE
        for rank in tried:
            self.miss(rank, "")

    def meet(self, rank: int) -> bool:
        """There is a connection with it; whether it is not gone already."""
        if rank in self.here:
            self._met.add(rank)
            self._forget(rank)
        return rank in self.here

    def miss(self, rank: int, why: str) -> None:
        """There is no connection with it, or still none."""
        self._why[rank] = why
        if rank in self.here and rank not in self._missed:
            loop = asyncio.get_running_loop()
            self._missed[rank] = loop.call_later(self._patience, self._give_up, rank)

    def hurry(self, patience: float) -> None:
        """Have no more than this patience from now on, also with those who are missed already."""
        self._patience = min(patience, self._patience)
        for rank in list(self._missed):
            self._forget(rank)
            self.miss(rank, self._why[rank])

    def lose(self, rank: int, why: str) -> None:
        """Nothing more will come from it."""
        if rank in self.here:
            self.here.remove(rank)
            self._forget(rank)
            self._lose(rank, why)

    def _give_up(self, rank: int) -> None:
        why = f" ({self._why[rank]})" if self._why[rank] else ""
        if rank in self._met:
            self.lose(rank, f"it had no connection for {self._patience:g} s{why}")
        else:
            self.lose(rank, f"{self._tried[rank]} within {self._patience:g} s{why}; {_ADVICE}")

    def _forget(self, rank: int) -> None:
        if rank in self._missed:
            self._missed.pop(rank).cancel()
