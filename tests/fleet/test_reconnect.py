"""Connections that break, and those who want them to: a mailbox calls again."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time

import pytest
import torch

import tacit.fleet.door
import tacit.fleet.mailbox
import tacit.fleet.presence
from helpers.town import ROW_BYTES, Town, read, reset, until, values
from tacit.fleet.contacts import GREETING_BYTES
from tacit.fleet.line import HEADER_BYTES, encode
from tacit.fleet.mailbox import _Inbox

MESSAGE = HEADER_BYTES + ROW_BYTES


@pytest.fixture
def town(monkeypatch):
    towns: list[Town] = []

    def found(size: int, bare: int | None, **options: object) -> Town:
        towns.append(Town(size, bare))
        for name, value in options.items():
            setattr(towns[-1], name, value)
        monkeypatch.setattr(tacit.fleet.mailbox, "introduce", towns[-1].introduce)
        towns[-1].open()
        return towns[-1]

    yield found
    for each in towns:
        each.close()


class Relay:
    """Stands between a worker and those who call it, and can cut what passes."""

    def __init__(self) -> None:
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self._servers: list[socket.socket] = []

    def stand_before(self, address: tuple[str, int]) -> tuple[str, int]:
        server = socket.create_server((address[0], 0))
        self._servers.append(server)
        threading.Thread(target=self._let_through, args=(server, address), daemon=True).start()
        return server.getsockname()

    def _let_through(self, server: socket.socket, address: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller = server.accept()[0]
                pair = (caller, socket.create_connection(address, timeout=30))
                self.pairs.append(pair)
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for sock in select.select([one, other], [], [], 0.05)[0]:
                    data = sock.recv(65536)
                    (other if sock is one else one).sendall(data)
                    if not data:
                        (other if sock is one else one).shutdown(socket.SHUT_WR)
                        return

    def cut(self) -> int:
        """Break all connections in both directions; how many there were."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for sock in pair:
                reset(sock)
        return len(pairs)

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self.cut()


def test_a_worker_outlives_more_broken_connections_than_may_lie(town):
    relay = Relay()
    place = town(3, None, seen_as=relay.stand_before)
    cuts, ends = [], {}

    def work(rank: int) -> None:
        box, ends[rank] = place.boxes[rank], []
        for step in range(8):
            box.post(step, values(10 * rank + step))
            ends[rank].append(box.collect(step, 2, timeout=20))
            if rank == 0 and step % 3 == 1:
                cuts.append(relay.cut())

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(cuts) == 3
    assert min(cuts) >= 2
    for rank in range(3):
        assert place.boxes[rank].gone == {}
        assert len(ends[rank]) == 8
        for step, there in enumerate(ends[rank]):
            for peer, row in there.items():  # of this step or a later one
                assert float(row[0]) in [10.0 * peer + later for later in range(step, 8)]
    relay.close()


def test_who_is_called_again_gets_the_newest_message_again_and_is_heard(town):
    place = town(2, bare=0)
    box = place.boxes[1]
    for step in range(4):
        with place.dial(1) as bare:
            read(bare, GREETING_BYTES)
            if step:
                again = read(bare, MESSAGE)
                assert again == bytes(encode(step - 1, values(step - 1)))
            box.post(step, values(step))
            assert read(bare, MESSAGE) == bytes(encode(step, values(step)))
            bare.sendall(encode(step, values(step)) + encode(step + 1, values(step + 1))[:9])
            assert torch.equal(box.collect(step, 1, timeout=30)[0], values(step))
            reset(bare)
    time.sleep(0.05)
    assert box.gone == {}


def test_a_second_connection_takes_the_place_of_the_first(town):
    """A peer may know that its connection broke before the mailbox does."""
    place = town(2, bare=0)
    box = place.boxes[1]
    with place.dial(1) as first, place.dial(1, b"") as second:
        read(first, GREETING_BYTES)
        first.sendall(encode(3, values(3)))
        assert torch.equal(box.collect(3, 1, timeout=30)[0], values(3))
        second.sendall(place.greeting(1))
        read(second, GREETING_BYTES)
        assert first.recv(1) == b""
        box.post(5, values(5))
        assert read(second, MESSAGE) == bytes(encode(5, values(5)))
        second.sendall(encode(4, values(4)))
        assert torch.equal(box.collect(4, 1, timeout=30)[0], values(4))
        assert box.gone == {}


def test_the_caller_calls_again(town):
    place = town(2, bare=1)
    for step in range(3):
        sock = place.callers()[0]
        sock.sendall(place.greeting(0))
        sock.sendall(encode(step, values(step)))
        assert torch.equal(place.boxes[0].collect(step, 1, timeout=30)[1], values(step))
        reset(sock)
    assert place.boxes[0].gone == {}


@pytest.mark.parametrize("bare", [0, 1])
def test_who_has_no_connection_for_too_long_is_gone_and_who_ends_is_gone_at_once(
    town, monkeypatch, bare
):
    def meet() -> socket.socket:
        if bare == 0:
            sock = place.dial(1)
            read(sock, GREETING_BYTES)
        else:
            (sock,) = place.callers().values()
            sock.sendall(place.greeting(0))
        return sock

    place = town(2, bare)
    with meet() as sock:
        sock.shutdown(socket.SHUT_WR)
        until(lambda: place.boxes[1 - bare].gone, seconds=20)
    assert place.boxes[1 - bare].gone == {bare: "it closed the connection"}

    monkeypatch.setattr(tacit.fleet.presence, "PATIENCE", 0.5)
    place = town(2, bare)
    sock = meet()
    sock.sendall(encode(1, values(1)))
    box = place.boxes[1 - bare]
    box.collect(1, 1, timeout=30)
    reset(sock)
    time.sleep(0.25)
    assert box.gone == {}
    place.server.close()
    until(lambda: box.gone)
    assert "it had no connection for 0.5 s (" in box.gone[bare]
    assert torch.equal(box.collect(1, 1)[bare], values(1))  # what came before stays


def test_many_strangers_keep_nobody_out(town, monkeypatch):
    monkeypatch.setattr(tacit.fleet.door, "_STRANGERS", 8)
    place = town(2, bare=0)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(place.dial(1, b"")) for _ in range(20)]
        for stranger in strangers[:11]:  # the oldest have made room
            assert stranger.recv(1) == b""
        bare = stack.enter_context(place.dial(1))
        read(bare, GREETING_BYTES)
        bare.sendall(encode(0, values(0)))
        assert torch.equal(place.boxes[1].collect(0, 1, timeout=30)[0], values(0))
        strangers[-1].settimeout(0.05)
        with pytest.raises(TimeoutError):
            strangers[-1].recv(1)


def test_a_peer_that_says_much_wakes_nobody(monkeypatch):
    inbox, woken = _Inbox([1, 2]), []
    monkeypatch.setattr(inbox._changed, "notify_all", lambda: woken.append(1))
    for step in range(1000):
        inbox.deliver(1, step, values(step))
    assert len(woken) == 1
    inbox.deliver(2, 3, values(3))
    assert len(woken) == 2
    assert [float(row[0]) for row in inbox.collect(998, 1, None).values()] == [998.0]
    inbox.deliver(2, 997, values(0))  # too late
    assert len(woken) == 2
    inbox.deliver(2, 998, values(0))
    assert len(woken) == 3


def test_a_message_that_no_two_newer_ones_replace_is_sent_after_the_break(town):
    """It was on its way, in part, when the connection broke."""
    place = town(2, bare=0)
    box = place.boxes[1]
    box.post(1, values(1))
    box.post(2, values(2))
    with place.dial(1) as bare:
        read(bare, GREETING_BYTES + MESSAGE // 2)
        reset(bare)
    with place.dial(1) as bare:
        read(bare, GREETING_BYTES)
        step = struct.unpack_from("<4sQI", read(bare, MESSAGE))[1]
        if step == 1:
            step = struct.unpack_from("<4sQI", read(bare, MESSAGE))[1]
        assert step == 2
