from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tacit.errors import UserError
from tacit.tasks.data import TensorData
from tacit.tasks.streams import one_pass


def data(size: int, classes: Sequence[int] = range(10)) -> TensorData:
    """Samples that are their own number, of these classes in turn."""
    numbers = torch.arange(size)
    targets = torch.tensor(classes)[numbers % len(classes)]
    return TensorData(numbers[:, None].to(torch.float32), targets)


def test_every_worker_sees_every_sample_once_in_its_own_order() -> None:
    train = data(60)
    stream = one_pass(train, data(10))(3, 4, 0)
    assert stream.rounds == 15
    orders = []
    for worker in range(3):
        batches = [stream.batch(worker, round) for round in range(15)]
        seen = torch.cat([inputs[:, 0] for inputs, _ in batches]).to(torch.int64)
        assert sorted(seen.tolist()) == list(range(60))
        assert torch.equal(torch.cat([targets for _, targets in batches]), seen % 10)
        orders.append(seen.tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_fastest_worker_sets_the_end() -> None:
    stream = one_pass(data(65), data(10), rates="1/4/2")(5, 3, 0)
    assert stream.sizes == [3, 12, 6, 3, 12]
    assert stream.rounds == 5


def mapping(stream_round: tuple[torch.Tensor, torch.Tensor], size: int = 10) -> list[int]:
    """What became of every class, read off one batch that holds them all."""
    inputs, targets = stream_round
    found = dict(zip((inputs[:, 0] % size).to(torch.int64).tolist(), targets.tolist(), strict=True))
    return [found[one] for one in range(size)]


@pytest.mark.parametrize("kind", ["permute", "swap"])
def test_labels_follow_the_concept_everywhere(kind: str) -> None:
    test = data(100)
    stream = one_pass(data(4000), test, at="2/5", kind=kind)(2, 200, 0)
    assert stream.test(0) is test
    last = list(range(10))
    for round in range(8):
        labels = mapping(stream.batch(0, round))
        assert labels == mapping(stream.batch(1, round))
        assert labels == mapping(stream.test(round).batch(np.arange(100)))
        of_test = stream.test(round).labels
        assert of_test is not None
        assert of_test.tolist() == [labels[sample % 10] for sample in range(100)]
        assert sorted(labels) == list(range(10))
        changed = [one for one in range(10) if labels[one] != last[one]]
        if round in (2, 5):
            assert len(changed) == 2 if kind == "swap" else len(changed) >= 2
        else:
            assert changed == []
        last = labels


def test_all_swaps_are_possible() -> None:
    three = data(99, [0, 1, 2])
    found = {
        tuple(mapping(one_pass(three, three, at=1, kind="swap")(1, 33, seed).batch(0, 1), 3))
        for seed in range(60)
    }
    assert found == {(1, 0, 2), (2, 1, 0), (0, 2, 1)}


def test_permutations_never_leave_all_as_it_was() -> None:
    for seed in range(20):
        stream = one_pass(data(40, [0, 1]), data(9, [0, 1]), drift=1.0)(1, 10, seed)
        labels = [mapping(stream.batch(0, round), 2) for round in range(4)]
        assert labels == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_only_classes_that_occur_are_exchanged() -> None:
    stream = one_pass(data(40, [3, 7]), data(9, [3, 7]), at=1)(1, 20, 0)
    assert set(stream.batch(0, 1)[1].tolist()) == {3, 7}


def test_bad_data_and_options() -> None:
    with pytest.raises(UserError, match="unknown kind of drift 'permutes'; did you mean 'permute'"):
        one_pass(data(40), data(9), kind="permutes")
    plain = TensorData(torch.zeros(9, 2), torch.zeros(9))
    with pytest.raises(UserError, match="needs a class label"):
        one_pass(plain, plain)
    with pytest.raises(UserError, match="a round takes 60 samples, but there are 50"):
        one_pass(data(50), data(9), rates="1/3")(2, 20, 0)
    single = one_pass(data(40, [5]), data(9, [5]), at=1)(1, 10, 0)
    with pytest.raises(UserError, match="all samples are of one class"):
        single.batch(0, 1)
