"""What a peer or a stranger can do to a mailbox: a lie on the line, or nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import secrets
import socket
import struct
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tacit.fleet.carrier
import tacit.fleet.door
import tacit.fleet.mailbox
import tacit.fleet.presence
from helpers.town import ROW_BYTES, WIDTH, Town, read, until, values
from tacit.errors import PeerError, PeerLost
from tacit.fleet.contacts import GREETING_BYTES, Contact, check_greeting, greeting
from tacit.fleet.line import HEADER_BYTES, Line, encode
from tacit.fleet.mailbox import _Inbox


@pytest.fixture
def town(monkeypatch):
    towns: list[Town] = []

    def found(size: int, bare: int, width: int = WIDTH) -> Town:
        towns.append(Town(size, bare))
        monkeypatch.setattr(tacit.fleet.mailbox, "introduce", towns[-1].introduce)
        towns[-1].open(width)
        return towns[-1]

    yield found
    for each in towns:
        each.close()


def others_are_well(town: Town, step: int = 0) -> None:
    first, second = town.boxes.values()
    for box in (first, second):
        box.post(step, values(box.rank))
    for box, other in ((first, second), (second, first)):
        deadline = time.monotonic() + 5
        while other.rank not in (there := box.collect(step, 1, timeout=5)):
            assert time.monotonic() < deadline
        assert torch.equal(there[other.rank], values(other.rank))


LIES = {
    "garbage": (b"\x00" * 100, "no message"),
    "text": (b"GET / HTTP/1.1\r\n\r\n", "no message"),
    "cut off in the row": (bytes(encode(9, values(9)))[:-1], "middle of a message"),
    "cut off in the header": (bytes(encode(9, values(9)))[:7], "middle of a message"),
    "cut off and wrong": (b"TCTM", "no message"),
    "too long a row": (bytes(encode(9, torch.zeros(WIDTH + 1))), "checksum"),
    "changed": (bytes(encode(9, values(9)))[:-1] + b"\x01", "checksum"),
    "other step": (
        b"TCTP" + struct.pack("<Q", 8) + bytes(encode(9, values(9)))[12:],
        "checksum",
    ),
    "nothing": (b"", "it closed the connection"),
}


@pytest.mark.parametrize("lie", LIES)
def test_who_breaks_the_format_is_gone_and_what_came_before_stays(town, lie, monkeypatch):
    monkeypatch.setattr(tacit.fleet.presence, "PATIENCE", 0.3)
    sent, reason = LIES[lie]
    place = town(3, bare=0)
    with place.dial(1) as bare, place.dial(2):
        bare.sendall(encode(7, values(7)) + sent)
        with contextlib.suppress(OSError):  # the mailbox may have hung up already
            bare.shutdown(socket.SHUT_WR)
        until(lambda: place.boxes[1].gone)
    assert reason in place.boxes[1].gone[0]
    assert list(place.boxes[1].gone) == [0]
    assert torch.equal(place.boxes[1].collect(7, 1, timeout=5)[0], values(7))
    assert place.boxes[2].gone == {}
    others_are_well(place, step=8)
    with pytest.raises(PeerLost, match=r"only 1 can .* worker 0 is gone: it "):
        place.boxes[1].collect(8, 2)


STRANGERS = {
    "a wrong token": lambda town: greeting(0, ROW_BYTES, secrets.token_bytes(32)),
    "the token for another": lambda town: greeting(0, ROW_BYTES, town.tokens[0, 2]),
    "another's name": lambda town: greeting(2, ROW_BYTES, town.tokens[0, 1]),
    "the listener's name": lambda town: greeting(1, ROW_BYTES, town.tokens[0, 1]),
    "an unknown name": lambda town: greeting(99, ROW_BYTES, town.tokens[0, 1]),
    "garbage": lambda town: b"\xff" * GREETING_BYTES,
    "another version": lambda town: town.greeting(1).replace(b"TCTM\x01", b"TCTM\x02"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_refused_and_the_worker_itself_still_welcome(town, stranger):
    place = town(3, bare=0)
    with place.dial(1, STRANGERS[stranger](place)) as sock:
        assert sock.recv(1) == b""
    with place.dial(1, b"half") as silent:  # says no more, and keeps nobody waiting
        others_are_well(place)
        with place.dial(1) as bare:
            answer = read(bare, GREETING_BYTES)
            contact = Contact("", 0, b"", place.tokens[1, 0])
            assert check_greeting(answer, {1: contact}) == (1, ROW_BYTES)
            bare.sendall(encode(0, values(3)))
            assert torch.equal(place.boxes[1].collect(0, 2, timeout=5)[0], values(3))
            assert place.boxes[1].gone == {}
            silent.close()


def test_the_door_is_shut_once_nobody_more_can_come(town):
    place = town(3, bare=0)
    bare = place.dial(1)
    read(bare, GREETING_BYTES)

    def refused() -> bool:
        try:
            place.dial(1, b"").close()
        except ConnectionError:
            return True
        return False

    others_are_well(place)
    assert not refused()  # it may come again
    with bare, place.dial(1) as again:
        read(again, GREETING_BYTES)
        again.shutdown(socket.SHUT_WR)
        while again.recv(1 << 16):  # what is unread when a socket closes breaks the line
            pass
    until(refused)  # it has ended
    assert place.boxes[1].gone == {0: "it closed the connection"}
    others_are_well(place, 1)


def test_rows_of_another_length_are_refused_by_both(town):
    place = town(3, bare=0)
    with place.dial(1, place.greeting(1, row_bytes=8)) as bare:
        read(bare, GREETING_BYTES)
        until(lambda: place.boxes[1].gone)
    assert place.boxes[1].gone[0] == "its rows have 8 bytes, ours have 20"

    place = town(3, bare=2)
    for rank, sock in place.callers().items():
        sock.sendall(place.greeting(rank, row_bytes=8))
        until(lambda rank=rank: place.boxes[rank].gone)
        assert place.boxes[rank].gone[2] == "its rows have 8 bytes, ours have 20"
        sock.close()
    others_are_well(place)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"",
            r"was not reached at \S+:\d+ within 0.3 s \(it closed .* instead of a greeting\); set",
        ),
        (greeting(2, ROW_BYTES, bytes(32)), "wrong token"),
        (b"\x00" * GREETING_BYTES, "another version"),
        (None, r"within 0.3 s \(it did not answer within 0.1 s\); set MASTER_ADDR, or"),
    ],
)
def test_who_answers_wrongly_is_gone(town, monkeypatch, answer, reason):
    monkeypatch.setattr(tacit.fleet.carrier, "GREETING", 0.1)
    monkeypatch.setattr(tacit.fleet.presence, "PATIENCE", 0.3)
    place = town(3, bare=2)
    callers = place.callers().values()
    for sock in callers:
        if answer is not None:
            sock.sendall(answer)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
    others_are_well(place)
    for box in place.boxes.values():
        until(lambda box=box: box.gone)
        assert re.search(reason, box.gone[2])
    for sock in callers:
        sock.close()


def test_who_is_not_there_at_all_is_gone(town, monkeypatch):
    monkeypatch.setattr(tacit.fleet.presence, "PATIENCE", 0.3)
    place = town(3, bare=0)
    others_are_well(place)
    for rank, box in place.boxes.items():
        until(lambda box=box: box.gone)
        where = "{}:{}".format(*place.addresses[rank])
        assert f"it did not connect to {where} within 0.3 s; set MASTER_ADDR" in box.gone[0]

    def away(self: Town, rank: int, address: tuple[str, int]) -> tuple[int, list[Contact]]:
        self.server.close()
        return Town.introduce(self, rank, address)

    place = Town(3, bare=2)
    monkeypatch.setattr(tacit.fleet.mailbox, "introduce", lambda *a: away(place, *a))
    place.open()
    for box in place.boxes.values():
        until(lambda box=box: box.gone)
        where = "{}:{}".format(*place.addresses[2])
        assert f"it was not reached at {where} within 0.3 s (Connection refused)" in box.gone[2]
    others_are_well(place)
    place.close()


def test_steps_that_go_back_or_far_ahead_are_ignored_and_the_newest_four_are_held(town):
    place = town(2, bare=0)
    box = place.boxes[1]
    with place.dial(1) as bare:
        steps = [1, 2, 3, 2, 1 << 41, 4, 5, 5, 6, 0]
        for count, step in enumerate(steps):
            bare.sendall(encode(step, values(step + 100 * count)))
        until(lambda: box.received == len(steps) * (HEADER_BYTES + ROW_BYTES))
        for step, row in ((0, 203), (4, 504), (5, 605), (6, 806), (6, 806)):
            assert torch.equal(box.collect(step, 1)[0], values(row)), step
        assert box.collect(7, 0) == {}
        with pytest.raises(PeerLost, match="nothing came from worker 0"):
            box.collect(7, 1, timeout=0.05)
        assert box.gone == {}


def test_for_a_peer_that_does_not_read_the_two_newest_wait(town):
    width = 500_000
    place = town(2, bare=0, width=width)
    box = place.boxes[1]
    with place.dial(1, place.greeting(1, row_bytes=4 * width)) as bare:
        read(bare, GREETING_BYTES)
        for step in range(40):
            box.post(step, torch.full((width,), float(step)))
            if step < 20:
                time.sleep(0.01)  # so that some leave, until the line is full
        time.sleep(0.2)
        waiting = box._carrier._outboxes[0]._messages
        assert len(waiting) == 2
        got = []
        with bare.makefile("rb") as file:
            while not got or got[-1] < 39:
                message = file.read(HEADER_BYTES + 4 * width)
                got.append(struct.unpack_from("<4sQI", message)[1])
        assert got[-2:] == [38, 39]
        assert got == sorted(set(got))
        assert 3 <= len(got) < 40
        until(lambda: box.sent == len(got) * (HEADER_BYTES + 4 * width))


def test_closing_does_not_wait_longer_than_told_for_who_does_not_read(town):
    place = town(2, bare=0, width=3_000_000)
    box = place.boxes[1]
    with place.dial(1, place.greeting(1, row_bytes=12_000_000)) as bare:
        read(bare, GREETING_BYTES)
        box.post(0, torch.zeros(3_000_000))
        began = time.monotonic()
        box.close(0.3)
        assert 0.25 < time.monotonic() - began < 2
        box.post(1, torch.zeros(3_000_000))  # nobody hears
    with pytest.raises(ValueError, match="closed"):
        box.collect(0, 1)


def test_a_last_word_arrives_however_slowly_it_is_read(town):
    """It takes several times as long as one may linger for somebody who does not read at all."""
    width = 6_000_000
    place = town(2, bare=0, width=width)
    box = place.boxes[1]
    with place.dial(1, place.greeting(1, row_bytes=4 * width)) as bare:
        read(bare, GREETING_BYTES)
        began = time.monotonic()
        box.last_word(torch.arange(float(width)), linger=0.4)
        message, size = bytearray(), HEADER_BYTES + 4 * width
        while len(message) < size:
            part = bare.recv(min(1 << 20, size - len(message)))
            assert part, "it was cut off"
            message += part
            time.sleep(0.06)
        assert time.monotonic() - began > 0.8
        assert bare.recv(1) == b""
    assert struct.unpack_from("<4sQI", message)[1] == 1 << 40
    assert torch.equal(
        torch.frombuffer(message, dtype=torch.float32, offset=HEADER_BYTES),
        torch.arange(float(width)),
    )


def test_a_forgotten_mailbox_ends_its_thread(town):
    place = town(3, bare=0)
    thread = place.boxes[1]._carrier._thread
    with place.dial(1) as first, place.dial(2):
        read(first, GREETING_BYTES)
        others_are_well(place)
        first.shutdown(socket.SHUT_WR)
    until(lambda: place.boxes[1].gone)  # nothing to linger for
    place.boxes.pop(1)
    gc.collect()
    until(lambda: not thread.is_alive())
    until(lambda: 1 in place.boxes[2].gone)
    assert "closed the connection" in place.boxes[2].gone[1]


# -- without a thread


@given(data=st.data())
def test_the_inbox_gives_the_earliest_of_the_newest_four_that_is_not_too_early(data):
    inbox, accepted, floor = _Inbox([3]), [], 0
    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.integers(0, 12))
        if data.draw(st.booleans()):
            inbox.deliver(3, step, torch.tensor([step]))
            if step > max(accepted, default=-1):
                accepted.append(step)
        else:
            floor = max(floor, step)
            late = [s for s in accepted[-4:] if s >= floor]
            there = inbox.collect(floor, 0, None)
            assert [int(r) for r in there.values()] == late[:1]


@given(at=st.integers(0, HEADER_BYTES + ROW_BYTES - 1), flip=st.integers(1, 255))
def test_no_message_with_a_changed_byte_is_read(at, flip):
    message = encode(12, values(12))

    async def carried() -> tuple[int, torch.Tensor]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            there = socket.create_connection(server.getsockname())
            line = Line(server.accept()[0])
        with there:
            there.sendall(message)
            try:
                return await line.read(torch.empty(WIDTH))
            finally:
                line.close()

    step, row = asyncio.run(carried())
    assert step == 12
    assert torch.equal(row, values(12))
    message[at] ^= flip
    with pytest.raises(PeerError):
        asyncio.run(carried())
