"""A compressor for each parameter tensor by itself."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from listed import gaussian
from torch import Tensor

from tacit.compressors import (
    Compressor,
    Identity,
    LowRank,
    PerTensor,
    RandomK,
    TopK,
    Uniform,
    compressor,
)
from tacit.errors import PeerError, UserError
from tacit.rng import torch_stream
from tacit.setting import Setting

#: A convolution, its bias, a matrix, a scalar, another matrix: 24 + 4 + 30 + 1 + 12 numbers.
SHAPES = ((4, 1, 2, 3), (4,), (5, 6), (), (3, 4))
D = 71
LARGE = {0: slice(0, 24), 1: slice(28, 58), 2: slice(59, 71)}
SMALL = [*range(24, 28), 58]
NAME = ("worker", 3, "gradient", "step", 17)


def made(inner: str | Compressor, dense: str = "fp32", shapes=SHAPES) -> PerTensor:
    part = compressor(inner) if isinstance(inner, str) else inner
    whole = PerTensor(part, dense)
    whole.start(Setting(4, D, seed=5, shapes=shapes))
    return whole


def there_and_back(by: Compressor, vector: Tensor, *name: str | int) -> Tensor:
    return by.decode(by.encode(vector, *name), len(vector), "bob", *name)


@pytest.mark.parametrize("inner", ["topk(density=0.2)", "topk(k=2,values=int8)", "sign", "qsgd"])
def test_small_tensors_travel_whole_and_large_ones_by_themselves(inner):
    vector = gaussian(D)
    arrived = there_and_back(made(inner), vector, *NAME)
    assert torch.equal(arrived[SMALL], vector[SMALL])
    alone = compressor(inner)
    alone.start(Setting(4, D, seed=5))
    for tensor, part in LARGE.items():
        name = ("worker", 3, "gradient", "tensor", tensor, "step", 17)
        assert torch.equal(arrived[part], there_and_back(alone, vector[part], *name))


@pytest.mark.parametrize(
    ("inner", "dense"),
    [("sign", True), ("uniform", True), ("qsgd", True), ("lowrank", True), ("topk(k=2)", False)],
)
def test_positions_arrive_only_where_entries_were_left_out(inner, dense):
    by, vector = made(inner), gaussian(D)
    arrived = by.arrive(by.encode(vector, *NAME), D, "bob", *NAME)
    assert (arrived.positions is None) == dense
    expected = arrived.dense()
    target = gaussian(D).cos()
    added, cleared = target.clone(), target.clone()
    arrived.add_to(added, -0.5)
    arrived.clear_in(cleared)
    torch.testing.assert_close(added, target - 0.5 * expected)
    assert torch.equal(cleared, torch.where(expected != 0, 0.0, target))


def test_every_large_tensor_has_its_share():
    """Though the first is a million times smaller."""
    vector = gaussian(D)
    vector[:24] *= 1e-6
    arrived = there_and_back(made("topk(density=0.25)"), vector, *NAME)
    assert [int((arrived[part] != 0).sum()) for part in LARGE.values()] == [6, 8, 3]


def test_small_tensors_in_a_code_of_their_own():
    vector = gaussian(D)
    short, long = made(TopK(density=0.2), "fp16"), made(TopK(density=0.2))
    arrived = there_and_back(short, vector, *NAME)
    assert torch.equal(arrived[SMALL], vector[SMALL].half().float())
    saved = len(long.encode(vector, *NAME)) - len(short.encode(vector, *NAME))
    assert saved == 2 * len(SMALL) - 4  # for a scale


def test_the_message_is_one_header_and_what_the_parts_write():
    """A length and a count of a byte each for every part: nothing else is added."""
    vector = gaussian(D)
    parts = [len(Identity().write(vector[p].numpy(), NAME)[1]) for p in LARGE.values()]
    message = made("identity").encode(vector, *NAME)
    assert len(message) == 9 + sum(2 + part for part in parts) + 4 * len(SMALL)


def test_alpha_is_the_least_of_the_parts():
    assert made("topk(k=3)").alpha(D) == 3 / 30
    assert made("identity").alpha(D) == 1
    assert made("threshold(t=1)").alpha(D) is None
    vector = gaussian(D)
    lost = (there_and_back(made("topk(k=3)"), vector, *NAME) - vector).square().sum()
    assert lost <= (1 - 3 / 30) * vector.square().sum()


@pytest.mark.parametrize("shapes", [((71,),), ((70,), ())])
def test_with_no_large_tensor_all_travels(shapes):
    vector = gaussian(D)
    assert torch.equal(there_and_back(made("topk(k=1)", shapes=shapes), vector, *NAME), vector)


def test_with_no_small_tensor_and_with_empty_ones():
    shapes = ((7, 10), (0, 3), (1, 1), (0,))
    vector = gaussian(D)
    arrived = there_and_back(made("topk(k=2)", shapes=shapes), vector, *NAME)
    assert int((arrived != 0).sum()) == 3
    assert arrived[70] == vector[70]


def test_random_positions_differ_between_tensors():
    shapes = ((5, 7), (5, 7), (1,))
    arrived = there_and_back(made(RandomK(k=5), shapes=shapes), torch.ones(D), *NAME)
    assert not torch.equal(arrived[:35], arrived[35:70])
    assert int((arrived != 0).sum()) == 11


def test_low_rank_takes_the_first_dimension_by_the_others():
    draw = torch_stream(0, "rank 1")
    blocks = [
        torch.outer(torch.randn(a, generator=draw), torch.randn(b, generator=draw)).flatten()
        for a, b in ((4, 6), (5, 6), (3, 4))
    ]
    vector = gaussian(D)
    for part, block in zip(LARGE.values(), blocks, strict=True):
        vector[part] = block
    arrived = there_and_back(made(LowRank(rank=1, warm=False)), vector, *NAME)
    torch.testing.assert_close(arrived, vector)  # of rank 1 already: nothing is lost


def test_warm_starts_are_a_workers_state():
    vectors = [gaussian(D), gaussian(D).cos()]
    first, second = made(LowRank()), made(LowRank())
    for step, vector in enumerate(vectors):
        first.encode(vector, "worker", 3, "step", step)
    second.load_worker_state(3, copy.deepcopy(first.worker_state(3)))
    third = copy.deepcopy(first)
    messages = [by.encode(vectors[0], "worker", 3, "step", 9) for by in (second, third)]
    assert messages[0] == messages[1]
    assert messages[0] != made(LowRank()).encode(vectors[0], "worker", 3, "step", 9)
    assert len(first.worker_state(3)) == 3
    assert not first.worker_state(2)


def test_a_second_run_begins_anew():
    by = made(LowRank())
    vector = gaussian(D)
    first = by.encode(vector, *NAME)
    assert by.encode(vector, *NAME) != first
    by.start(Setting(4, D, seed=5, shapes=SHAPES))
    assert by.encode(vector, *NAME) == first


def test_the_density_of_a_warm_up():
    by = made("topk(density=0.5)")
    by.set_density(1 / 6)
    arrived = there_and_back(by, gaussian(D), *NAME)
    assert [int((arrived[part] != 0).sum()) for part in LARGE.values()] == [4, 5, 2]
    with pytest.raises(UserError, match="no density"):
        made("sign").set_density(0.5)
    with pytest.raises(UserError, match="no warm-up"):
        made("topk(k=3)").set_density(0.5)


def test_a_vector_of_another_model_is_refused():
    with pytest.raises(UserError, match="a vector of 70 numbers"):
        made("topk(k=3)").encode(gaussian(70), *NAME)


@pytest.mark.parametrize("inner", ["topk(k=3)", "identity", "qsgd", "randomk(k=2)"])
@pytest.mark.parametrize("place", [3, 25, 40, 58])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_not_finite_is_refused_wherever_it_is(inner, place, bad):
    vector = gaussian(D)
    vector[place] = bad
    with pytest.raises(UserError, match=f"{bad} at {place}; only finite"):
        made(inner).encode(vector, *NAME)


@pytest.mark.parametrize("inner", ["topk(k=3)", "topk(k=3,values=int8)", "lowrank", "randomk(k=2)"])
def test_damage_is_found(inner):
    """A message that another checksum belongs to, cut short, or of parts that do not fit."""
    by, other = made(inner), made(inner, shapes=((71, 1),))
    message = by.encode(gaussian(D), *NAME)
    for at in range(len(message)):
        broken = bytearray(message)
        broken[at] ^= 0x10
        with pytest.raises(PeerError, match="bob"):
            by.decode(bytes(broken), D, "bob", *NAME)
    for length in range(len(message)):
        with pytest.raises(PeerError, match="bob"):
            by.decode(message[:length], D, "bob", *NAME)
    if inner != "randomk(k=2)":
        with pytest.raises(PeerError, match="bob"):
            other.decode(message, D, "bob", *NAME)


@pytest.mark.parametrize("dense", ["fp32", "int8"])
def test_damage_behind_a_right_checksum_is_found(dense):
    """Bodies that no encoder writes: never anything but ValueError."""
    by = made("topk(k=3)", dense)
    _, body = by.write(gaussian(D).numpy(), NAME)
    draw = torch_stream(0, "damage")
    for _ in range(300):
        broken = bytearray(body)
        at = int(torch.randint(len(body), (), generator=draw))
        broken[at] = int(torch.randint(256, (), generator=draw))
        cut = int(torch.randint(len(body) + 1, (), generator=draw)) if at % 2 else len(body)
        try:
            by.read(0, bytes(broken[:cut]), D, NAME)
        except ValueError:
            continue
    with pytest.raises(ValueError, match="count"):
        by.read(1, body, D, NAME)


def test_constants_are_those_of_the_parts():
    assert not made("threshold(t=1)").homogeneous
    assert not made("topk(k=3)", "fp16").homogeneous
    assert made("topk(k=3)").homogeneous
    assert not made("sign").keeps_zeros
    assert PerTensor(Uniform(8)).code == Uniform(8).code
