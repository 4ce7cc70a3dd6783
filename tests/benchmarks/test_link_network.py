"""The links of benchmarks/link.py: do they have the rate and the latency they are named for?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tacit.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from links.network import PROFILES, Network, network, obstacle, remove_leftovers  # noqa: E402

#: Answers each of ten bytes, then reads so many bytes and answers once more.
SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 5000))
print("ready", flush=True)
link, _ = server.accept()
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(10):
    link.sendall(link.recv(1))
left = int(sys.argv[2])
while left:
    left -= len(link.recv(min(left, 1 << 20)))
link.sendall(b"x")
"""
CLIENT = """
import json, socket, sys, time
link = socket.create_connection((sys.argv[1], 5000))
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def answered(data):
    begin = time.monotonic()
    link.sendall(data)
    link.recv(1)
    return time.monotonic() - begin

trip = sorted(answered(b"x") for _ in range(10))[5]
seconds = answered(bytes(int(sys.argv[2]))) - trip
print(json.dumps({"trip": trip, "rate": int(sys.argv[2]) * 8 / seconds}))
"""


def needs(name: str) -> None:
    problem = obstacle(PROFILES[name])
    if problem is not None:
        pytest.skip(problem)


def measure(net: Network, sender: int, receiver: int, size: int) -> dict[str, float]:
    """Median seconds of a round trip, and bits per second of ``size`` bytes from rank to rank."""
    address = net.address(receiver)
    python = [sys.executable, "-I", "-S", "-c"]
    with subprocess.Popen(
        [*net.command(receiver), *python, SERVER, address, str(size)], stdout=subprocess.PIPE
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            client = [*net.command(sender), *python, CLIENT, address, str(size)]
            found: dict[str, float] = json.loads(subprocess.check_output(client, timeout=60))
            return found
        finally:
            server.kill()


def statistic(net: Network, rank: int, name: str) -> int:
    path = f"/sys/class/net/{net.device}/statistics/{name}"
    return int(subprocess.check_output([*net.command(rank), "cat", path]))


def namespaces(pid: int) -> list[str]:
    listed = subprocess.check_output(["ip", "netns", "list"], text=True).splitlines()
    return [line for line in listed if line.startswith(f"tacit-{pid}-")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trip", "rate", "at_least"),
    [
        ("wan", 0.040, 100e6, 0.90),
        ("edge", 0.080, 10e6, 0.90),
        # two Python programs need most of two cores for this much, and the machine may be busy
        ("lan", 0.0, 1e9, 0.75),
    ],
)
def test_a_link_has_its_rate_and_its_latency(
    name: str, trip: float, rate: float, at_least: float
) -> None:
    needs(name)
    size = int(rate / 8 * 4)
    with network(PROFILES[name], 2) as net:
        found = measure(net, sender=1, receiver=0, size=size)
        sent, lost = statistic(net, 1, "tx_bytes"), statistic(net, 1, "tx_dropped")
    assert trip <= found["trip"] <= trip + 0.004
    assert at_least * rate <= found["rate"] <= 1.05 * rate
    # the counters hold the payload and its headers, and nothing was sent twice
    assert size <= sent <= 1.05 * size
    assert lost == 0
    assert namespaces(os.getpid()) == []


@pytest.mark.slow
def test_two_senders_share_the_line_of_a_receiver() -> None:
    needs("wan")
    with network(PROFILES["wan"], 3) as net:
        answer = measure_two(net, size=int(100e6 / 8 * 2))
    assert 85e6 <= answer <= 105e6


def measure_two(net: Network, size: int) -> float:
    """Bits per second that rank 0 receives from ranks 1 and 2 together."""
    sender = (
        "import socket, sys; link = socket.create_connection((sys.argv[1], 5000));"
        "link.sendall(bytes(int(sys.argv[2]))); link.recv(1)"
    )
    receiver = """
import socket, sys, threading, time
server = socket.create_server((sys.argv[1], 5000))
print("ready", flush=True)
links = [server.accept()[0] for _ in range(2)]
begin = time.monotonic()
def drain(link):
    left = int(sys.argv[2])
    while left:
        left -= len(link.recv(min(left, 1 << 20)))
threads = [threading.Thread(target=drain, args=(link,)) for link in links]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(2 * int(sys.argv[2]) * 8 / (time.monotonic() - begin))
"""
    python = [sys.executable, "-I", "-S", "-c"]
    arguments = [net.address(0), str(size)]
    server = subprocess.Popen(
        [*net.command(0), *python, receiver, *arguments], stdout=subprocess.PIPE
    )
    senders = []
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        for rank in (1, 2):
            senders.append(subprocess.Popen([*net.command(rank), *python, sender, *arguments]))
        return float(server.communicate(timeout=60)[0])
    finally:
        for process in (server, *senders):
            process.kill()
            process.communicate()


@pytest.fixture
def killed_benchmark() -> Iterator[int]:
    """The number of a process that was killed while it held links."""
    needs("wan")
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from links.network import PROFILES, network\n"
        "with network(PROFILES['wan'], 2):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(BENCHMARKS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    yield process.pid
    remove_leftovers()


@pytest.mark.slow
def test_what_a_killed_benchmark_left_is_removed_by_the_next(killed_benchmark: int) -> None:
    assert namespaces(killed_benchmark)
    with network(PROFILES["lan"], 2):
        assert namespaces(killed_benchmark) == []
        assert namespaces(os.getpid())
    assert namespaces(os.getpid()) == []


def test_a_failure_inside_leaves_nothing() -> None:
    needs("wan")
    with pytest.raises(KeyboardInterrupt), network(PROFILES["wan"], 2):
        raise KeyboardInterrupt
    assert namespaces(os.getpid()) == []


def test_loopback_needs_nothing() -> None:
    assert obstacle(PROFILES["loopback"]) is None
    with network(PROFILES["loopback"], 4) as net:
        assert (net.device, net.address(3), net.command(3)) == ("lo", "127.0.0.1", [])


def test_without_root_the_reason_and_the_way_out_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert obstacle(PROFILES["loopback"]) is None
    assert "root" in str(obstacle(PROFILES["lan"]))
    with (
        pytest.raises(UserError, match=r"need root; --profiles loopback"),
        network(PROFILES["lan"], 2),
    ):
        pass
