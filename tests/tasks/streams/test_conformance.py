"""What every stream promises."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tacit.errors import UserError
from tacit.tasks.data import TensorData
from tacit.tasks.streams import Stream, StreamFactory, graphical, one_pass, separator


def data(size: int) -> TensorData:
    """Samples that are their own number, of ten classes."""
    numbers = torch.arange(size)
    return TensorData(numbers[:, None].to(torch.float32), numbers % 10)


FACTORIES: dict[str, Callable[..., StreamFactory]] = {
    "one-pass": lambda **options: one_pass(data(400), data(50), **options),
    "one-pass, swap": lambda **options: one_pass(data(400), data(50), kind="swap", **options),
    "graphical": graphical,
    "graphical, signs": lambda **options: graphical(partial=True, **options),
    "graphical, local": lambda **options: graphical(local=True, **options),
    "separator": separator,
    "separator, local": lambda **options: separator(local=True, **options),
}
SCHEDULES = {"chance": {"drift": 0.15}, "fixed": {"at": "1/9/16/17"}, "none": {"drift": 0.0}}
ROUNDS = 40  # more than two blocks of 16

streams = pytest.mark.parametrize("name", FACTORIES)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def build(name: str, schedule: str = "chance", **options: object) -> StreamFactory:
    return FACTORIES[name](**SCHEDULES[schedule], **options)


def held_out(stream: Stream, round: int) -> tuple[torch.Tensor, torch.Tensor]:
    test = stream.test(round)
    return test.batch(np.arange(len(test)))


@streams
def test_sizes_and_types(name: str) -> None:
    stream = build(name, rates="1/3")(4, 2, 0)
    assert stream.sizes == [2, 6, 2, 6]
    for worker, size in enumerate(stream.sizes):
        inputs, targets = stream.batch(worker, 5)
        assert (len(inputs), inputs.dtype) == (size, torch.float32)
        assert (targets.shape, targets.dtype) == ((size,), torch.int64)
    inputs, targets = held_out(stream, 5)
    assert inputs.shape[1:] == stream.batch(0, 0)[0].shape[1:]
    assert stream.test(5).labels is not None
    assert torch.equal(stream.test(5).labels, targets)


@streams
@schedules
def test_batches_do_not_depend_on_what_was_asked_before(name: str, schedule: str) -> None:
    factory = build(name, schedule, rates="1/2")
    asked = [(worker, round) for round in range(ROUNDS) for worker in range(3)]
    forwards = {key: one for stream in [factory(3, 3, 7)] for key in asked
                for one in [stream.batch(*key)]}  # fmt: skip
    other = factory(3, 3, 7)
    for key in random.Random(0).sample(asked, len(asked)):
        inputs, targets = other.batch(*key)
        assert torch.equal(inputs, forwards[key][0])
        assert torch.equal(targets, forwards[key][1])


@streams
def test_batches_of_several_workers_are_theirs_in_a_row(name: str) -> None:
    factory = build(name, rates="1/2/3")
    stream = factory(6, 2, 1)
    for round in (0, 3, 17, 20):
        for workers in ([4, 1, 2], [5], range(6)):
            together = stream.batches(workers, round)
            alone = [factory(6, 2, 1).batch(worker, round) for worker in workers]
            for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
                assert torch.equal(whole, torch.cat(parts))


@streams
def test_a_worker_does_not_depend_on_how_many_there_are(name: str) -> None:
    factory = build(name)
    few, many = factory(2, 3, 5), factory(9, 3, 5)
    for round in (0, 11, 30):
        for one, same in zip(few.batch(1, round), many.batch(1, round), strict=True):
            assert torch.equal(one, same)
    assert few.drifts(0, ROUNDS) == many.drifts(0, ROUNDS)


@streams
def test_workers_rounds_and_seeds_differ(name: str) -> None:
    factory = build(name, "none")
    stream = factory(2, 8, 0)
    first = stream.batch(0, 0)[0]
    for other in (stream.batch(1, 0), stream.batch(0, 1), factory(2, 8, 1).batch(0, 0)):
        assert not torch.equal(first, other[0])


@streams
def test_changing_a_batch_changes_no_other(name: str) -> None:
    stream = build(name)(2, 4, 0)
    before = [part.clone() for part in stream.batch(0, 2)]
    for part in stream.batch(0, 2):
        part.zero_()
    for part, same in zip(stream.batch(0, 2), before, strict=True):
        assert torch.equal(part, same)


@streams
@schedules
def test_the_test_data_changes_with_the_concept(name: str, schedule: str) -> None:
    stream = build(name, schedule)(3, 4, 3)
    changed = [t for t in range(1, ROUNDS) if stream.test(t) is not stream.test(t - 1)]
    if "local" in name:
        assert stream.drifts(0, ROUNDS) == []
        assert bool(changed) == (schedule != "none")
    else:
        assert stream.drifts(0, ROUNDS) == changed
        assert stream.drifts(5, 17) == [t for t in changed if 5 <= t < 17]
        if schedule == "fixed":
            assert changed == [1, 9, 16, 17]
    for t in changed:
        old, new = held_out(stream, t - 1), held_out(stream, t)
        assert not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    again = build(name, schedule)(3, 4, 3)
    for one, same in zip(held_out(stream, 30), held_out(again, 30), strict=True):
        assert torch.equal(one, same)


@streams
def test_before_the_first_drift_all_schedules_are_the_same(name: str) -> None:
    early, never = build(name, at=12)(3, 4, 0), build(name, "none")(3, 4, 0)
    for round in (0, 11):
        for one, same in zip(
            early.batches(range(3), round), never.batches(range(3), round), strict=True
        ):
            assert torch.equal(one, same)
        for one, same in zip(held_out(early, round), held_out(never, round), strict=True):
            assert torch.equal(one, same)
    pairs = zip(early.batches(range(3), 12), never.batches(range(3), 12), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


@streams
def test_there_is_nothing_beyond_the_end(name: str) -> None:
    stream = build(name)(2, 10, 0)
    if stream.rounds is not None:
        assert stream.rounds == 40
        stream.batch(1, 39)
        with pytest.raises(UserError, match=r"worker 1 has no round 40.* after 40 rounds"):
            stream.batch(1, 40)
    else:
        stream.batch(1, 10**5)
    with pytest.raises(UserError, match="round -1 is negative"):
        stream.batch(0, -1)
    with pytest.raises(UserError, match="no worker 2; this stream has 2"):
        stream.batches([0, 2], 0)


@streams
def test_bad_sizes_are_refused(name: str) -> None:
    factory = build(name)
    with pytest.raises(UserError, match="number of workers is 0"):
        factory(0, 10, 0)
    with pytest.raises(UserError, match="batch size is 0"):
        factory(2, 0, 0)


@streams
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drift": 1.5}, "drift must be a number between 0 and 1, got 1.5"),
        ({"drift": "often"}, "drift must be a number"),
        ({"drift": float("nan")}, "drift must be a number"),
        ({"at": "5/x"}, "at must be positive whole numbers .* got '5/x'"),
        ({"at": 0}, "at must be positive"),
        ({"rates": "1/-2"}, "rates must be positive"),
        ({"rates": 1.5}, "rates must be positive"),
    ],
)
def test_bad_options_are_refused_at_once(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        FACTORIES[name](**options)


def test_batches_default_to_one_after_the_other() -> None:
    class Counting(Stream):
        def batch(self, worker: int, round: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((2, 1), float(worker)), torch.full((2,), round)

        def drifts(self, start: int, stop: int) -> list[int]:
            return []

        def test(self, round: int) -> TensorData:
            return data(3)

    inputs, targets = Counting().batches([2, 0], 5)
    assert inputs.tolist() == [[2.0], [2.0], [0.0], [0.0]]
    assert targets.tolist() == [5, 5, 5, 5]
