from __future__ import annotations

import pytest
import torch

from tacit.errors import UserError
from tacit.setting import Setting
from tacit.topologies import Everyone, Sampled, Topology


def started(topology: Topology, workers: int, seed: int = 0) -> Topology:
    topology.start(Setting(workers=workers, d=1, seed=seed))
    return topology


def test_everyone():
    topology = started(Everyone(), 3)
    assert not topology.partial
    for number in range(3):
        assert topology.participants(number).tolist() == [True] * 3
        assert topology.participants(number).dtype == torch.bool


@pytest.mark.parametrize(
    ("fraction", "workers", "count"),
    [
        (0.5, 4, 2),
        (0.5, 5, 3),
        (1.0, 5, 5),
        (0.1, 10, 1),
        (0.01, 10, 1),
        (1e-12, 10, 1),
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001
        (0.55, 20, 11),
        (0.29, 100, 29),
        (1 / 3, 3, 1),
    ],
)
def test_sampled_takes_the_fraction_rounded_up(fraction, workers, count):
    topology = started(Sampled(fraction), workers)
    assert topology.partial
    for number in range(5):
        mask = topology.participants(number)
        assert mask.dtype == torch.bool
        assert mask.shape == (workers,)
        assert mask.sum() == count


def test_a_round_has_the_same_participants_whoever_asks_and_whenever():
    one, other = started(Sampled(0.4), 10), started(Sampled(0.4), 10)
    rounds = [one.participants(number).tolist() for number in range(20)]
    assert [other.participants(number).tolist() for number in reversed(range(20))] == rounds[::-1]
    assert len({tuple(mask) for mask in rounds}) > 10
    elsewhere = started(Sampled(0.4), 10, seed=1)
    assert [elsewhere.participants(number).tolist() for number in range(20)] != rounds


def test_all_workers_are_equally_likely():
    topology = started(Sampled(0.3), 10)
    counts = sum(topology.participants(number).long() for number in range(2000))
    # 600 expected, with a standard deviation of 20.5
    assert (counts - 600).abs().max() < 5 * 20.5


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.1, float("nan")])
def test_impossible_fractions(fraction):
    with pytest.raises(UserError, match=r"in \(0, 1\]"):
        Sampled(fraction)
