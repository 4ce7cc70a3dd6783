"""The message of a compressor: a short header, and what the compressor wrote.

    version u8 | compressor u8 | value code u8 | crc32 u32 | n varint | count varint | body

Integers are little-endian; a varint has seven bits a byte, lowest first. ``n`` is the vector's
length; ``count`` is the compressor's own, such as the number of entries sent. The header takes 9
bytes for a vector of less than 128 numbers, 13 for less than 2 million, 15 for less than 268
million.

The checksum is of header and body, and begins with the receiver's ``salt``: what both sides must
have drawn alike without sending it. So a difference there is found, and costs no byte.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from tacit.errors import PeerError

#: The first byte: a compressed vector, version 1.
_VERSION = 0xC1
_FRONT = struct.Struct("<BBBI")
#: No number in a header needs more than 53 bits.
_LONGEST = 8


class Kind(NamedTuple):
    """What both sides agree on before: the compressor's number, the value code's, and n."""

    compressor: int
    values: int
    n: int


def pack(kind: Kind, count: int, body: bytes, salt: int = 0) -> bytes:
    """The message around ``body``."""
    numbers = varint(kind.n) + varint(count)
    checksum = _checksum(kind, numbers, body, salt)
    return _FRONT.pack(_VERSION, kind.compressor, kind.values, checksum) + numbers + body


def unpack(message: bytes, sender: str, kind: Kind, salt: int = 0) -> tuple[int, bytes]:
    """The count and the body of a message of this kind. Raises PeerError, naming the sender, for
    anything else."""
    try:
        version, compressor, values, checksum = _FRONT.unpack_from(message)
        n, at = read_varint(message, _FRONT.size)
        count, end = read_varint(message, at)
    except (struct.error, ValueError):
        raise PeerError(f"message from {sender}: cut off in its header") from None
    if version != _VERSION:
        raise PeerError(f"message from {sender}: no compressed vector, or of another version")
    if (compressor, values) != kind[:2]:
        raise PeerError(
            f"message from {sender}: of compressor {compressor} with values {values}, not of "
            f"{kind.compressor} with {kind.values}; give all workers the same"
        )
    if n != kind.n:
        raise PeerError(f"message from {sender}: of {n} numbers, where {kind.n} are expected")
    body = message[end:]
    if checksum != _checksum(kind, message[_FRONT.size : end], body, salt):
        raise PeerError(
            f"message from {sender}: the checksum is wrong, or its random positions are others"
        )
    return count, body


def varint(number: int) -> bytes:
    """``number >= 0``, seven bits a byte."""
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def read_varint(buffer: bytes, at: int = 0) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends. ValueError if it does not end."""
    number = 0
    for i, byte in enumerate(buffer[at : at + _LONGEST]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, at + i + 1
    raise ValueError("a number that does not end")


def join(*parts: bytes) -> bytes:
    """The parts in one body: a length in front of each but the last."""
    return b"".join(varint(len(part)) + part for part in parts[:-1]) + parts[-1]


def split(body: bytes, count: int) -> Sequence[bytes]:
    """The ``count`` parts of what :func:`join` made. ValueError if they are not there."""
    parts = []
    at = 0
    for _ in range(count - 1):
        length, at = read_varint(body, at)
        if length > len(body) - at:
            raise ValueError("a part that is cut off")
        parts.append(body[at : at + length])
        at += length
    return [*parts, body[at:]]


def _checksum(kind: Kind, numbers: bytes, body: bytes, salt: int) -> int:
    front = bytes([_VERSION, kind.compressor, kind.values])
    return zlib.crc32(body, zlib.crc32(front + numbers, salt))
