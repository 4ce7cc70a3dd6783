"""What every augmentation strategy keeps to. A new one is tested by adding it to the list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.topologies.augmentation import AUGMENTATIONS, Found, strategy


def grow(name: str, first: list[int], workers: int, distances: np.ndarray, seed: int) -> list[int]:
    """The sizes of a set that grows to the end."""
    draw = numpy_stream(seed, "test")
    members, everyone, sizes, wave = np.array(first), np.arange(workers), [len(first)], 0
    while len(members) < workers:
        outsiders = np.setdiff1d(everyone, members)
        new = strategy(name).add(Found(members, outsiders, distances, wave), draw)
        assert len(new) > 0
        assert len(set(new.tolist())) == len(new)
        assert set(new.tolist()) <= set(outsiders.tolist())
        members, wave = np.concatenate([members, new]), wave + 1
        sizes.append(len(members))
    return sizes


@pytest.mark.parametrize("name", AUGMENTATIONS)
@given(workers=st.integers(2, 40), callers=st.integers(1, 39), seed=st.integers(0, 99))
def test_new_members_are_outsiders_and_in_the_end_all_are_in(name, workers, callers, seed):
    callers = min(callers, workers - 1)
    distances = numpy_stream(seed, "distances").random(workers)
    sizes = grow(name, list(range(callers)), workers, distances, seed)
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("name", "workers", "sizes"),
    [
        ("one", 5, [1, 2, 3, 4, 5]),
        ("nearest", 4, [1, 2, 3, 4]),
        ("all", 9, [1, 9]),
        ("double", 40, [1, 2, 4, 8, 16, 40]),  # 16 and 16 more are half of 40
        ("hedge", 81, [1, 3, 9, 27, 81]),
        ("hedge", 6, [1, 6]),  # 3 are half of 6
        ("hedge", 7, [1, 3, 7]),
    ],
)
def test_sizes(name, workers, sizes):
    assert grow(name, [0], workers, np.zeros(workers), 1) == sizes


def test_the_nearest_come_first():
    distances = np.array([9.0, 3.0, 1.0, 2.0, 0.5])
    add = strategy("nearest").add
    found = Found(np.array([0]), np.array([1, 2, 3, 4]), distances, 0)
    chosen = add(found, numpy_stream(0, "t"))
    assert chosen.tolist() == [4]


def test_among_equals_chance_decides():
    draw = numpy_stream(0, "t")
    found = Found(np.array([0]), np.arange(1, 5), np.zeros(5), 0)
    for name in ("one", "nearest"):
        first = [int(strategy(name).add(found, draw)[0]) for _ in range(400)]
        counts = np.bincount(first, minlength=5)[1:]
        assert counts.min() > 60  # of 100 expected: 4.6 standard deviations


def test_an_unknown_strategy():
    with pytest.raises(UserError, match="unknown augmentation 'doubel'; did you mean 'double'"):
        strategy("doubel")
