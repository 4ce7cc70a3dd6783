"""Workers in processes of their own go on with enough messages, whoever is silent, slow or dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

import tacit.fleet.presence
from helpers.spawn import run_processes, run_survivors
from tacit.errors import PeerError, UserError
from tacit.fleet.contacts import own_address
from tacit.fleet.mailbox import Mailbox
from tacit.rng import torch_stream

WORKERS, WIDTH, STEPS = 4, 33, 20
LARGE = 2_000_000
MESSAGE = 16 + 4 * WIDTH


def row(worker: int, step: int) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch_stream(0, "mail", worker, step))


def rounds(mailbox: Mailbox, enough: int, steps: range = range(STEPS), pause: float = 0.0) -> list:
    """What is collected at every step."""
    collected = []
    for step in steps:
        time.sleep(pause)
        mailbox.post(step, row(mailbox.rank, step))
        collected.append(mailbox.collect(step, enough, timeout=10))
    return collected


def refusals(mailbox: Mailbox) -> list[str]:
    said = []
    for wrong in (
        lambda: mailbox.post(0, torch.zeros(WIDTH + 1)),
        lambda: mailbox.post(0, torch.zeros(WIDTH, dtype=torch.float64)),
        lambda: mailbox.post(-1, torch.zeros(WIDTH)),
        lambda: mailbox.collect(0, WORKERS),
        lambda: Mailbox(None, 0),
        lambda: mailbox.post(STEPS - 1, torch.zeros(WIDTH)),
        lambda: mailbox.collect(STEPS - 2, 0),
    ):
        with pytest.raises(UserError) as caught:
            wrong()
        said.append(str(caught.value))
    return said


def all_present(mailbox: Mailbox) -> dict[str, Any]:
    collected = rounds(mailbox, WORKERS - 1)
    deadline = time.monotonic() + 5
    while mailbox.sent < 3 * STEPS * MESSAGE and time.monotonic() < deadline:
        time.sleep(0.01)  # the last message is counted a moment after it has left
    return {
        "collected": collected,
        "bytes": (mailbox.sent, mailbox.received),
        "gone": mailbox.gone,
        "refusals": refusals(mailbox),
    }


def one_silent(mailbox: Mailbox) -> Any:
    if mailbox.rank == 1:
        for step in range(STEPS):
            mailbox.post(step, None)
        return mailbox.collect(STEPS - 1, 3, timeout=10)
    collected = rounds(mailbox, 2)
    try:
        mailbox.collect(STEPS - 1, 3, timeout=0.1)
    except PeerError as error:
        return collected, str(error)


def one_slow(mailbox: Mailbox) -> Any:
    """The others do not wait for worker 2, which has half its steps to go when they are done."""
    if mailbox.rank == 2:
        collected = rounds(mailbox, 2, range(STEPS // 2), pause=0.02)
        dist.barrier()
        collected += rounds(mailbox, 2, range(STEPS // 2, STEPS))
    else:
        collected = rounds(mailbox, 2)
        dist.barrier()
    return [{k: v[0].item() for k, v in there.items()} for there in collected]


def large(mailbox: Mailbox) -> Any:
    """The last worker's main thread is away for half a second."""
    values = torch.arange(LARGE, dtype=torch.float32) * (mailbox.rank + 1)
    if mailbox.rank == 3:
        time.sleep(0.5)
    began = time.perf_counter()
    for step in range(6):
        mailbox.post(step, values)
        values += 1  # a copy has been posted
    took = time.perf_counter() - began
    there = mailbox.collect(5, 3, timeout=10)
    exact = {k: torch.equal(v, torch.arange(LARGE) * (k + 1.0) + 5) for k, v in there.items()}
    return took, exact


def scenes(rank: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for scene in (all_present, one_silent, one_slow):
        mailbox = Mailbox(None, WIDTH)
        assert (mailbox.rank, mailbox.size) == (rank, WORKERS)
        results[scene.__name__] = scene(mailbox)
        dist.barrier()
        began = time.perf_counter()
        mailbox.close()
        mailbox.close()
        results[f"closing after {scene.__name__}"] = time.perf_counter() - began
    results["large"] = large(Mailbox(None, LARGE))
    group = dist.new_group([1, 3])
    if rank in (1, 3):
        pair = Mailbox(group, 2, dtype=torch.bfloat16)
        pair.post(7, torch.tensor([torch.nan, rank], dtype=torch.bfloat16))
        results["pair"] = pair.rank, pair.collect(5, 1, timeout=10)
    return results


@pytest.fixture(scope="module")
def results():
    return run_processes(scenes, WORKERS)


def test_all_present_everybody_gets_everybody_s_rows(results):
    for rank, found in enumerate(results):
        for step, there in enumerate(found["all_present"]["collected"]):
            assert sorted(there) == [k for k in range(WORKERS) if k != rank]
            for peer, values in there.items():
                assert torch.equal(values, row(peer, step))
        assert found["all_present"]["bytes"] == (3 * STEPS * MESSAGE, 3 * STEPS * MESSAGE)
        assert found["all_present"]["gone"] == {}


def test_bad_input_is_refused_in_one_line(results):
    shape, kind, step, enough, width, again, back = results[0]["all_present"]["refusals"]
    assert "shape (33,) and type torch.float32, got (34,)" in shape
    assert "got (33,) and torch.float64" in kind
    assert "not -1" in step
    assert "there are 3 peers, so enough cannot be 4" in enough
    assert "not 0" in width
    assert "step 19 was sent before this one of step 19; steps go on" in again
    assert "step 19 were collected before those of step 18; steps go on" in back


def test_others_go_on_beside_a_silent_worker(results):
    for rank in (0, 2, 3):
        collected, said = results[rank]["one_silent"]
        assert len(collected) == STEPS
        for step, there in enumerate(collected):
            assert sorted(there) == [k for k in (0, 2, 3) if k != rank]
            assert all(torch.equal(values, row(k, step)) for k, values in there.items())
        assert "step 19 needs messages of 3 peers" in said
        assert "nothing came from worker 1" in said
    last = results[1]["one_silent"]
    assert all(torch.equal(last[k], row(k, STEPS - 1)) for k in (0, 2, 3))


def test_a_slow_worker_ends_all_its_steps_with_this_row_or_a_later_one(results):
    first = {(k, s): row(k, s)[0].item() for k in range(WORKERS) for s in range(STEPS)}
    for rank, found in enumerate(results):
        assert len(found["one_slow"]) == STEPS
        for step, there in enumerate(found["one_slow"]):
            assert len(there) >= 2
            for peer, value in there.items():
                assert value in [first[peer, later] for later in range(step, STEPS)], (rank, step)
    # of the others' messages, all sent by then, it holds the newest
    halfway = results[2]["one_slow"][STEPS // 2]
    assert all(value != first[peer, STEPS // 2] for peer, value in halfway.items())


def test_closing_takes_no_time_where_everybody_reads(results):
    for found in results:
        assert all(took < 1 for name, took in found.items() if name.startswith("closing"))


def test_a_large_row_arrives_and_posting_does_not_wait_for_it(results):
    for rank, found in enumerate(results):
        took, exact = found["large"]
        assert exact == {k: True for k in range(WORKERS) if k != rank}
        assert took < 1, rank


def test_a_group_of_some_workers_with_nan_in_another_type(results):
    for own, rank in enumerate((1, 3)):
        place, there = results[rank]["pair"]
        assert place == own
        assert there[1 - own].dtype == torch.bfloat16
        assert there[1 - own].isnan().tolist() == [True, False]
        assert there[1 - own][1] == 4 - rank


def some_die(rank: int, dying: tuple[int, ...]) -> Any:
    # who is killed with something unread breaks its connections, without an end
    tacit.fleet.presence.PATIENCE = 1.0
    mailbox = Mailbox(None, WIDTH)
    if rank in dying:
        rounds(mailbox, WORKERS - 1, range(5))
        os._exit(1)
    try:
        steps = len(rounds(mailbox, 2))
        deadline = time.monotonic() + 5
        while not mailbox.gone.keys() >= set(dying) and time.monotonic() < deadline:
            time.sleep(0.01)
        return steps, mailbox.gone
    except PeerError as error:
        return str(error)
    finally:
        mailbox.close()


def test_others_go_on_when_a_worker_is_killed():
    first, second, dead, last = run_survivors(some_die, WORKERS, (2,))
    assert dead is None
    for steps, gone in (first, second, last):
        assert steps == STEPS
        assert "connection" in gone[2]


def test_too_many_dead_are_named_at_once():
    first, _, third, _ = run_survivors(some_die, WORKERS, (1, 3))
    for said in (first, third):
        assert "needs messages of 2 peers, and only 1 can still have sent one" in said
        assert "worker 1 is gone" in said
        assert "worker 3 is gone" in said


ALONE = """
import sys, torch
import torch.distributed as dist
from tacit.fleet.mailbox import Mailbox
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
mailbox = Mailbox(None, 1_000_000)
mailbox.post(3, torch.full((1_000_000,), rank + 1.0))
if rank == 0:
    sys.exit()
print(mailbox.collect(3, 1, timeout=10)[0].sum().item())
"""


def test_a_program_that_does_not_close_ends_and_its_last_message_arrives(tmp_path):
    command = [sys.executable, "-c", ALONE]
    both = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        (out, error), (out_1, error_1) = [process.communicate(timeout=60) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], error + error_1
    assert (out, out_1) == ("", "1000000.0\n")
    assert "Traceback" not in error + error_1


def test_without_a_process_group():
    with pytest.raises(UserError, match="init_process_group"):
        Mailbox(None, 3)


def test_the_address_is_the_one_on_the_way_to_the_master_or_to_the_host_s_name(monkeypatch):
    known = {"master": "127.0.0.2", "host": "127.0.0.3"}

    def resolve(name: str, port: int, **options: Any) -> list[Any]:
        if name not in known:
            raise OSError("not known")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (known[name], port))]

    class Probe(socket.socket):
        def getsockname(self) -> tuple[str, int]:
            return super().getpeername()

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", Probe)
    for master, host, expected in (
        ("master", "host", "127.0.0.2"),
        ("not an address", "host", "127.0.0.3"),
        ("", "host", "127.0.0.3"),
        (None, "host", "127.0.0.3"),
        (None, "unknown", "127.0.0.1"),
    ):
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        if master is not None:
            monkeypatch.setenv("MASTER_ADDR", master)
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        assert own_address() == expected
