"""The message format: one tensor as bytes, with a header that says what it is.

    magic "TCT1" | dtype u8 | dimensions u8 | shape u64 each | body length u64 | crc32 u32 | body

All integers little-endian. Decoding never trusts its input: it checks every field against the
bytes that are there and the checksum of header and body before it builds a tensor.
"""

from __future__ import annotations

import math
import struct
import zlib

import torch
from torch import Tensor

from tacit.errors import PeerError

_MAGIC = b"TCT1"
_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)
_PREFIX = struct.Struct("<4sBB")
_SUFFIX = struct.Struct("<QI")
_MAX_DIMENSIONS = 16


def encode(tensor: Tensor) -> bytes:
    """A tensor of any shape as a message."""
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"a tensor of {tensor.dtype} cannot be sent")
    flat = tensor.detach().cpu().contiguous().flatten()
    body = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    header = _PREFIX.pack(_MAGIC, _DTYPES.index(tensor.dtype), tensor.dim())
    header += struct.pack(f"<{tensor.dim()}Q", *tensor.shape)
    checksum = zlib.crc32(body, zlib.crc32(header))
    return header + _SUFFIX.pack(len(body), checksum) + body


def decode(message: bytes, sender: str) -> Tensor:
    """The tensor in ``message``. Raises PeerError, naming the sender, for anything else."""
    tensor, end = decode_from(message, 0, sender)
    if end != len(message):
        raise PeerError(f"message from {sender}: {len(message) - end} bytes too many")
    return tensor


def decode_from(buffer: bytes, start: int, sender: str) -> tuple[Tensor, int]:
    """The tensor whose message begins at ``start``, and where the message ends."""
    try:
        magic, code, dimensions = _PREFIX.unpack_from(buffer, start)
        if magic != _MAGIC:
            raise PeerError(f"message from {sender}: not a tacit message, or of another version")
        if code >= len(_DTYPES) or dimensions > _MAX_DIMENSIONS:
            raise PeerError(f"message from {sender}: unknown type {code} or shape")
        at = start + _PREFIX.size
        shape = struct.unpack_from(f"<{dimensions}Q", buffer, at)
        at += 8 * dimensions
        length, checksum = _SUFFIX.unpack_from(buffer, at)
    except struct.error:
        raise PeerError(f"message from {sender}: cut off in its header") from None
    header_end, begin = at, at + _SUFFIX.size
    dtype = _DTYPES[code]
    if length != math.prod(shape) * dtype.itemsize or length > len(buffer) - begin:
        raise PeerError(f"message from {sender}: its length does not fit its shape {shape}")
    body = bytearray(buffer[begin : begin + length])
    if zlib.crc32(body, zlib.crc32(buffer[start:header_end])) != checksum:
        raise PeerError(f"message from {sender}: the checksum is wrong")
    if not length:
        return torch.empty(shape, dtype=dtype), begin
    return torch.frombuffer(body, dtype=dtype).reshape(shape), begin + length
