"""The message format: exact round trips, and a clear error for any other bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit import wire
from tacit.errors import PeerError

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8,
    torch.int16, torch.int32, torch.int64, torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3), (2, 0, 4)])
def test_round_trip(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(0, 2, shape, generator=generator).to(dtype)
    back = wire.decode(wire.encode(tensor), "worker 3")
    assert back.dtype == dtype
    assert back.shape == torch.Size(shape)
    assert torch.equal(back, tensor)


def test_special_values_and_strides_survive() -> None:
    tensor = torch.tensor([[float("nan"), float("inf")], [-0.0, 1e-45]]).t()
    back = wire.decode(wire.encode(tensor), "worker 0")
    assert torch.equal(back.view(torch.int32), tensor.contiguous().view(torch.int32))


def test_decoded_tensor_is_writable_and_independent() -> None:
    message = wire.encode(torch.ones(3))
    wire.decode(message, "worker 0").zero_()
    assert torch.equal(wire.decode(message, "worker 0"), torch.ones(3))


def test_every_cut_and_every_flipped_byte_is_refused() -> None:
    message = wire.encode(torch.arange(5.0))
    for end in range(len(message)):
        with pytest.raises(PeerError, match="worker 7"):
            wire.decode(message[:end], "worker 7")
    for position in range(len(message)):
        damaged = bytearray(message)
        damaged[position] ^= 0x10
        with pytest.raises(PeerError, match="worker 7"):
            wire.decode(bytes(damaged), "worker 7")


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(PeerError, match="1 bytes too many"):
        wire.decode(wire.encode(torch.ones(1)) + b"x", "worker 1")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_clear_error(message: bytes) -> None:
    with pytest.raises(PeerError, match="worker 2"):
        wire.decode(message, "worker 2")


@given(st.binary(max_size=60))
def test_any_bytes_after_a_valid_start_give_a_clear_error(rest: bytes) -> None:
    start = wire.encode(torch.ones(2, 2))[:6]
    with pytest.raises(PeerError):
        wire.decode(start + rest, "worker 2")


def test_unsendable_type() -> None:
    with pytest.raises(TypeError, match="complex"):
        wire.encode(torch.zeros(1, dtype=torch.complex64))
