"""Sparse messages: which entries to send, their positions as bytes, and their values as bytes."""

from __future__ import annotations

from tacit.codecs.positions import decode_positions, encode_positions
from tacit.codecs.select import add_at, sampled_top_k, take, take_top_k, top_k
from tacit.codecs.values import (
    VALUE_CODES,
    ValueCode,
    decode_values,
    encode_values,
    value_code,
)

__all__ = [
    "VALUE_CODES",
    "ValueCode",
    "add_at",
    "decode_positions",
    "decode_values",
    "encode_positions",
    "encode_values",
    "sampled_top_k",
    "take",
    "take_top_k",
    "top_k",
    "value_code",
]
