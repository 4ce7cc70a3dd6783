from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.tasks.groups import GroupedData, by_group


@given(
    sizes=st.lists(st.integers(3, 9), min_size=1, max_size=8),
    workers=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_groups_stay_whole_or_are_cut_evenly(sizes, workers, seed) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    several, cut = len(sizes) % workers == 0, workers % len(sizes) == 0
    if not (several or cut) or (cut and workers // len(sizes) > min(sizes)):
        with pytest.raises(UserError):
            by_group(groups, workers)
        return
    parts = by_group(groups, workers)
    assert len(parts) == workers
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(groups)))
    held = [np.unique(groups[part]) for part in parts]
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) > 0
        assert (np.diff(part) > 0).all()
    if several:
        assert {len(one) for one in held} == {len(sizes) // workers}
        assert len(np.unique(np.concatenate(held))) == len(sizes)
    else:
        assert {len(one) for one in held} == {1}
        for group in np.unique(groups):
            shares = [len(part) for part, one in zip(parts, held, strict=True) if one == group]
            assert max(shares) - min(shares) <= 1


def test_workers_follow_the_order_of_the_groups() -> None:
    groups = np.array([2, 0, 1, 2, 0, 1, 1])
    assert [part.tolist() for part in by_group(groups, 3)] == [[1, 4], [2, 5, 6], [0, 3]]
    six = by_group(groups, 6)
    assert [part.tolist() for part in six] == [[1], [4], [2, 5], [6], [0], [3]]


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        (0, "number of workers is 0"),
        (4, "6 groups cannot be dealt evenly to 4 workers; use 6 workers, or a divisor"),
        (12, "a group has 1 samples, too few for 2 workers"),
        (14, r"more workers than samples \(14 and 13\)"),
    ],
)
def test_other_numbers_of_workers(workers: int, message: str) -> None:
    groups = np.array([0, *range(6), *range(6)])[:13]
    groups[-1] = 0  # group 5 has one sample
    with pytest.raises(UserError, match=message):
        by_group(groups, workers)


def test_grouped_data_is_tensor_data_with_groups() -> None:
    inputs, targets, groups = torch.rand(4, 2), torch.arange(4), torch.tensor([1, 0, 1, 0])
    data = GroupedData(inputs, targets, groups.to(torch.int32), transform=lambda x: 2 * x)
    moved = data.to("cpu")
    assert isinstance(moved, GroupedData)
    assert moved.groups.tolist() == [1, 0, 1, 0]
    assert torch.equal(moved.batch(np.array([2]))[0], 2 * inputs[2:3])
    with pytest.raises(UserError, match=r"groups have shape \(3,\) for 4 samples"):
        GroupedData(inputs, targets, groups[:3])
