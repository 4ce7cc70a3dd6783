"""A switch with latency: forwards Ethernet frames between TAP devices, each after a fixed delay.

    python delay.py BITS_PER_SECOND SECONDS DEVICE NAMESPACE NAMESPACE ...

Opens a TAP device named DEVICE in every namespace (by ``ip netns``), prints "ready", and runs until
its standard input closes. Port ``i`` is the one whose MAC address ends in ``i + 1``.

Each port's line towards its namespace carries one frame at a time at the given rate. So several
senders share the receiver's line, and what a token bucket lets through in one burst is spread out
again: a transfer takes as long as on a wire.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
LARGEST_FRAME = 65536
#: Frames read from one device before the others get their turn.
TURN = 32


class Port:
    """One TAP device, and the frames on their way to it."""

    def __init__(self, fd: int, rate: float) -> None:
        self.fd = fd
        self.seconds_per_byte = 8 / rate
        self.free_at = 0.0
        self.queue: deque[tuple[float, bytes]] = deque()

    def send(self, frame: bytes, earliest: float) -> None:
        """Queue a frame whose first bit arrives at ``earliest`` or when the line is free."""
        self.free_at = max(self.free_at, earliest) + len(frame) * self.seconds_per_byte
        self.queue.append((self.free_at, frame))

    def deliver(self, now: float) -> None:
        while self.queue and self.queue[0][0] <= now:
            try:
                os.write(self.fd, self.queue.popleft()[1])
            except OSError as error:
                if error.errno != errno.EIO:  # the device is down: nobody hears it
                    raise


def main() -> None:
    rate, delay = float(sys.argv[1]), float(sys.argv[2])
    ports = [Port(open_tap(sys.argv[3], namespace), rate) for namespace in sys.argv[4:]]
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # a wire does not wait for a processor
    print("ready", flush=True)
    control = sys.stdin.fileno()
    inputs = [control, *(port.fd for port in ports)]
    while True:
        due = [port.queue[0][0] for port in ports if port.queue]
        # select, not epoll: its timeout has microseconds, epoll's rounds up to the next millisecond
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        readable = set(select.select(inputs, [], [], timeout)[0])
        if control in readable:
            return
        now = time.monotonic()
        for port in ports:
            if port.fd in readable:
                forward(port, ports, now + delay)
            port.deliver(now)


def forward(source: Port, ports: list[Port], earliest: float) -> None:
    for _ in range(TURN):
        try:
            frame = os.read(source.fd, LARGEST_FRAME)
        except BlockingIOError:
            return
        if frame[0] & 1:  # broadcast or multicast
            for port in ports:
                if port is not source:
                    port.send(frame, earliest)
        elif 1 <= frame[5] <= len(ports):
            ports[frame[5] - 1].send(frame, earliest)


def open_tap(device: str, namespace: str) -> int:
    """A new TAP device in ``namespace``; it lives until the returned file is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET) != 0:  # os.setns came with Python 3.12
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    return fd


if __name__ == "__main__":
    main()
