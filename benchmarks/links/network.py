"""Shaped links between the ranks: one network namespace a rank, as on separate machines.

Needs root and iproute2 (and /dev/net/tun where there is latency). The host's own network is not
touched: bridges have a namespace of their own. Names hold the process's number, so several
benchmarks may run at once; namespaces whose process is gone are removed by the next one.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tacit.errors import UserError

DEVICE = "link0"
_COUNTER = itertools.count()
#: Bytes that may wait for the line: more than TCP ever has in flight, so nothing is dropped.
_QUEUE = 64 << 20
#: Largest packet that a virtual device hands on at once.
_LARGEST = 65536


@dataclass(frozen=True)
class Profile:
    """A kind of link. ``rate`` bits per second each way (None: not shaped); ``delay`` seconds one
    way; ``mtu`` bytes: where packets pass through Python, some 5 ms of the line each."""

    name: str
    rate: float | None = None
    delay: float = 0.0
    mtu: int = 1500


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("loopback"),
        Profile("lan", 1e9),
        Profile("wan", 100e6, 0.020, mtu=64000),
        Profile("edge", 10e6, 0.040, mtu=8000),
    )
}


@dataclass(frozen=True)
class Network:
    """Joined ranks. On ``loopback`` there are no namespaces."""

    profile: Profile
    namespaces: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The interface to the other ranks."""
        return DEVICE if self.namespaces else "lo"

    def address(self, rank: int) -> str:
        return f"10.77.0.{rank + 1}" if self.namespaces else "127.0.0.1"

    def command(self, rank: int) -> list[str]:
        """What to put before a command to run it as ``rank``."""
        return ["ip", "netns", "exec", self.namespaces[rank]] if self.namespaces else []


def obstacle(profile: Profile) -> str | None:
    """Why this machine cannot make the links of ``profile``; None where it can."""
    if profile.rate is None:
        return None
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"there is no command {tool!r}; install iproute2"
    if profile.delay and not os.path.exists("/dev/net/tun"):
        return "latency needs /dev/net/tun"
    return None


@contextmanager
def network(profile: Profile, ranks: int) -> Iterator[Network]:
    """Links like ``profile`` between ``ranks`` ranks; gone at the end, whatever happens.

    Raises UserError where the machine cannot make them.
    """
    if profile.rate is None:
        yield Network(profile)
        return
    problem = obstacle(profile)
    if problem is not None:
        raise UserError(
            f"profile {profile.name}: {problem}; --profiles loopback runs without shaped links"
        )
    remove_leftovers()
    prefix = f"tacit-{os.getpid()}-{next(_COUNTER)}"
    namespaces = tuple(f"{prefix}-{rank}" for rank in range(ranks))
    with ExitStack() as stack:
        for namespace in namespaces:
            _add(stack, namespace)
        if profile.delay:
            stack.enter_context(_delayed(profile, namespaces))
        else:
            _bridged(stack, profile, f"{prefix}-hub", namespaces)
        for rank, namespace in enumerate(namespaces):
            _ip(f"-n {namespace} link set {DEVICE} address 02:00:00:00:00:{rank + 1:02x}")
            _ip(f"-n {namespace} link set {DEVICE} mtu {profile.mtu} txqueuelen 10000 up")
            _ip(f"-n {namespace} link set lo up")
            _ip(f"-n {namespace} address add 10.77.0.{rank + 1}/24 dev {DEVICE}")
            _shape(profile, namespace, DEVICE)
        yield Network(profile, namespaces)


@contextmanager
def _delayed(profile: Profile, namespaces: tuple[str, ...]) -> Iterator[None]:
    """A TAP device in each namespace, joined by the process ``delay.py``."""
    program = str(Path(__file__).with_name("delay.py"))
    command = [sys.executable, "-I", "-S", program, f"{profile.rate}", f"{profile.delay}", DEVICE]
    process = subprocess.Popen(
        [*command, *namespaces], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the delaying switch did not start; its message is above")
        yield
    finally:
        process.kill()
        process.communicate()


def _bridged(stack: ExitStack, profile: Profile, hub: str, namespaces: tuple[str, ...]) -> None:
    """A veth pair for each namespace; the far ends sit on a bridge in the namespace ``hub``."""
    _add(stack, hub)
    _ip(f"-n {hub} link add name bridge0 type bridge")
    _ip(f"-n {hub} link set bridge0 up")
    for rank, namespace in enumerate(namespaces):
        port = f"port{rank}"
        _ip(f"-n {namespace} link add name {DEVICE} type veth peer name {port} netns {hub}")
        _ip(f"-n {hub} link set {port} master bridge0 up")
        _shape(profile, hub, port)


def _shape(profile: Profile, namespace: str, device: str) -> None:
    assert profile.rate is not None
    burst = max(profile.mtu, _LARGEST if not profile.delay else 0) + 100
    _run(
        f"tc -n {namespace} qdisc add dev {device} root tbf "
        f"rate {profile.rate:.0f}bit burst {burst} limit {_QUEUE}"
    )


def _add(stack: ExitStack, namespace: str) -> None:
    _ip(f"netns add {namespace}")
    stack.callback(_ip, f"netns delete {namespace}")
    settings = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
    for name, value in settings.items():
        path = "/proc/sys/" + name.replace(".", "/")
        _run(f"ip netns exec {namespace} sh -c 'test ! -e {path} || echo {value} > {path}'")


def remove_leftovers() -> None:
    """Delete the namespaces of benchmarks that were killed."""
    for line in _ip("netns list").splitlines():
        found = re.match(r"tacit-(\d+)-\S+", line)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            subprocess.run(["ip", "netns", "delete", found[0]], check=False)


def _ip(arguments: str) -> str:
    return _run(f"ip {arguments}")


def _run(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout
