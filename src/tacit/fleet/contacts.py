"""How workers that are about to write to each other get to know each other.

One all-to-all over the process group tells every worker the address of every other, and gives each
ordered pair of them a secret that no third one sees. A connection begins with a greeting:

    magic "TCTM" | version u16 | rank u32 | bytes of a row u64 | token, 32 bytes

All integers little-endian. Who connects greets first and is answered by a greeting. So neither a
stranger nor another worker can speak for a worker. Nothing is encrypted, as in the process group
itself: the network must be trusted not to be listened to.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import secrets
import socket
import struct
from typing import NamedTuple

import torch
import torch.distributed as dist

from tacit.errors import PeerError, PeerLost, UserError

_MAGIC = b"TCTM"
_VERSION = 1
_GREETING = struct.Struct("<4sHIQ32s")
_CARD = struct.Struct("<16sH32s")  # address, port, token

GREETING_BYTES = _GREETING.size


class Contact(NamedTuple):
    """What a worker knows of another: where it listens, and the tokens of the two."""

    host: str
    port: int
    own: bytes  # what I show to it
    theirs: bytes  # what it shows to me


def listen() -> socket.socket:
    """A socket that listens at a free port of this machine's address, without blocking."""
    host = own_address()
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.setblocking(False)
    server.bind((host, 0))
    server.listen(1024)
    return server


def own_address() -> str:
    """The address of this machine on the way to ``MASTER_ADDR``, or else to what its own host name
    stands for; 127.0.0.1 where there is neither."""
    for name in (os.environ.get("MASTER_ADDR"), socket.gethostname()):
        with contextlib.suppress(OSError, UnicodeError):
            if name:
                return _on_the_way_to(name)
    return "127.0.0.1"


def _on_the_way_to(name: str) -> str:
    """Raises OSError where there is no way, or no address that others could use."""
    for family, kind, _, _, address in socket.getaddrinfo(name, 9, type=socket.SOCK_DGRAM):
        with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
            probe.connect(address)  # of a datagram socket: nothing is sent
            host = str(probe.getsockname()[0])
            if "%" not in host:  # an address that means something on this machine alone
                return host
    raise OSError(f"there is no way to {name}")


def introduce(
    group: dist.ProcessGroup | None, address: tuple[str, int]
) -> tuple[int, list[Contact]]:
    """This process's rank in the group, and a contact for every rank (its own means nothing).

    ``address``: where this process listens. Collective. Raises UserError without a process group,
    PeerLost where a process does not answer.
    """
    if not dist.is_initialized():
        raise UserError("torch.distributed is not initialised; call init_process_group first")
    tokens = [secrets.token_bytes(32) for _ in range(dist.get_world_size(group))]
    cards = b"".join(_CARD.pack(_packed(address[0]), address[1], token) for token in tokens)
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    sent = torch.frombuffer(bytearray(cards), dtype=torch.uint8).to(device)
    received = torch.empty_like(sent)
    try:
        dist.all_to_all_single(received, sent, group=group)
    except RuntimeError as error:
        first = str(error).splitlines()[0][:200]
        raise PeerLost(f"a peer is gone or did not answer in time ({first})") from error
    cards = received.cpu().numpy().tobytes()
    contacts = [
        Contact(_unpacked(host), port, own, theirs)
        for own, (host, port, theirs) in zip(tokens, _CARD.iter_unpack(cards), strict=True)
    ]
    return dist.get_rank(group), contacts


def greeting(rank: int, row_bytes: int, token: bytes) -> bytes:
    """The first bytes of a connection."""
    return _GREETING.pack(_MAGIC, _VERSION, rank, row_bytes, token)


def check_greeting(message: bytes, contacts: dict[int, Contact]) -> tuple[int, int]:
    """Who greets, and the bytes of its rows. Raises PeerError for anything but a greeting of one of
    ``contacts`` with its own token."""
    magic, version, rank, row_bytes, token = _GREETING.unpack(message)
    if magic != _MAGIC or version != _VERSION:
        raise PeerError("it speaks something else, or another version")
    if rank not in contacts or not hmac.compare_digest(token, contacts[rank].theirs):
        raise PeerError("it showed a wrong token")
    return rank, row_bytes


def _packed(host: str) -> bytes:
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def _unpacked(packed: bytes) -> str:
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
