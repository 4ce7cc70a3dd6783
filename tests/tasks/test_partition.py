from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.tasks.data import TensorData
from tacit.tasks.groups import GroupedData
from tacit.tasks.images import load_mnist
from tacit.tasks.partition import KINDS, parse, partition

EXACT = ["iid", "sorted", "sorted:0", "sorted:1", "label:0", "shards:1", "shards", "dirichlet:0.05"]
SPECS = [*EXACT, "dirichlet:100", "dirichlet-classes:0.05", "dirichlet-classes"]


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Labels with at least one 0, a number of workers that fits (two shards each), and a seed."""
    rest = draw(st.lists(st.integers(0, 4), min_size=1, max_size=80))
    labels = np.array([*rest, 0])
    return labels, draw(st.integers(1, len(labels) // 2)), draw(st.integers(0, 5))


@pytest.mark.parametrize("spec", SPECS)
@given(problem=problems())
@settings(max_examples=40, deadline=None)
def test_every_worker_gets_valid_distinct_samples(spec, problem) -> None:
    labels, workers, seed = problem
    parts = partition(spec, labels, workers, seed)
    assert len(parts) == workers
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) > 0
        assert len(np.unique(part)) == len(part)
        assert part.min() >= 0
        assert part.max() < len(labels)
    if not spec.startswith("dirichlet-classes"):
        everything = np.sort(np.concatenate(parts))
        np.testing.assert_array_equal(everything, np.arange(len(labels)))
    again = partition(spec, labels, workers, seed)
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("spec", SPECS)
def test_as_many_workers_as_samples_leaves_nobody_empty(spec) -> None:
    labels = np.arange(12) % 3
    if spec == "shards":
        with pytest.raises(UserError, match="need 24 samples"):
            partition(spec, labels, 12, 0)
    else:
        assert min(len(part) for part in partition(spec, labels, 12, 0)) == 1


@given(n=st.integers(1, 100), workers=st.integers(1, 100))
def test_iid_is_contiguous_in_stored_order_longer_parts_first(n, workers) -> None:
    if workers > n:
        with pytest.raises(UserError, match="more workers than samples"):
            partition("iid", np.zeros(n), workers, 0)
        return
    parts = partition("iid", np.zeros(n), workers, 0)
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
    sizes = [len(part) for part in parts]
    assert sizes == [n // workers + 1] * (n % workers) + [n // workers] * (workers - n % workers)


def test_sorted_fraction_sorts_the_head_and_keeps_the_tail() -> None:
    labels = np.array([2, 1, 0, 2, 1, 0, 9, 8, 7, 6])
    parts = partition("sorted:0.6", labels, 2, 0)
    assert [part.tolist() for part in parts] == [[2, 5, 1, 6, 7], [4, 0, 3, 8, 9]]


def test_label_first_puts_the_class_first_and_the_rest_as_stored() -> None:
    labels = np.array([1, 3, 2, 3, 1, 3])
    parts = partition("label:3", labels, 3, 0)
    assert [part.tolist() for part in parts] == [[1, 3], [5, 0], [2, 4]]


@given(workers=st.integers(1, 20), per_worker=st.integers(1, 3), seed=st.integers(0, 9))
@settings(deadline=None)
def test_shards_hold_few_classes_and_equal_counts(workers, per_worker, seed) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), 60))
    parts = partition(f"shards:{per_worker}", labels, workers, seed)
    shard = 600 / (workers * per_worker)
    for part in parts:
        assert abs(len(part) - per_worker * shard) <= per_worker
        # A run of s sorted samples in classes of 60 meets at most ceil((s - 1) / 60) + 1 classes.
        assert len(np.unique(labels[part])) <= per_worker * (shard // 60 + 2)


def test_shards_and_dirichlet_depend_on_the_seed() -> None:
    labels = np.repeat(np.arange(10), 60)
    for spec in ("shards", "dirichlet", "dirichlet-classes"):
        one, other = (np.concatenate(partition(spec, labels, 10, seed)) for seed in (0, 1))
        assert len(one) != len(other) or (one != other).any()


@pytest.mark.parametrize("spec", ["dirichlet", "dirichlet-classes"])
def test_small_alpha_is_skewed_and_large_alpha_even(spec) -> None:
    labels = np.repeat(np.arange(10), 1000)

    def largest_share(alpha: float) -> float:
        """Mean over workers of the share of the worker's commonest class; 0.1 is even."""
        parts = partition(f"{spec}:{alpha}", labels, 10, 0)
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    assert largest_share(0.05) > 0.5
    assert largest_share(1000) < 0.12


def test_dirichlet_over_classes_gives_nearly_equal_counts_that_overlap() -> None:
    labels = np.repeat(np.arange(10), 1000)
    parts = partition("dirichlet-classes:10", labels, 20, 0)
    for part in parts:
        assert 500 - 10 <= len(part) <= 500  # each class rounds down
    together = np.concatenate(parts)
    assert len(np.unique(together)) < len(together)


def test_dirichlet_over_classes_takes_at_most_the_whole_class() -> None:
    labels = np.array([0] * 5 + [1] * 995)
    parts = partition("dirichlet-classes:0.5", labels, 1, 3)
    assert (labels[parts[0]] == 0).sum() <= 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("idd", "did you mean 'iid'"),
        ("dirichlet-client:1", "did you mean 'dirichlet-class"),
        ("", "unknown partition"),
        ("iid:3", "takes no number"),
        ("label", "needs a number"),
        ("label:0.5", "'0.5' is not a whole number"),
        ("shards:two", "'two' is not a whole number"),
        ("sorted:", "'' is not a number"),
        ("sorted:1.5", "between 0 and 1"),
        ("sorted:nan", "between 0 and 1"),
        ("label:7", "no sample has label 7; the labels are 0, 1, 2"),
        ("shards:0", "at least 1"),
        ("shards:7", "need 14 samples"),
        ("dirichlet:0", "between"),
        ("dirichlet:nan", "between"),
        ("dirichlet-classes:-1", "between"),
        ("dirichlet-classes:inf", "between"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec, message) -> None:
    with pytest.raises(UserError, match=message):
        partition(spec, np.array([0, 1, 2] * 4), 2, 0)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_checks_the_number_of_workers(name) -> None:
    spec = "label:0" if name == "label" else name
    for workers, message in ((0, "number of workers is 0"), (5, r"more workers .* \(5 and 4\)")):
        with pytest.raises(UserError, match=message):
            parse(spec)(np.zeros(4, dtype=np.int64), workers, 0)


def test_data_without_classes_can_be_split_as_iid_only() -> None:
    data = TensorData(torch.zeros(10, 2), torch.rand(10))
    assert [len(part) for part in partition("iid", data, 3, 0)] == [4, 3, 3]
    with pytest.raises(UserError, match="needs class labels"):
        partition("shards:2", data, 3, 0)


def test_groups_are_split_by_the_data_that_has_them() -> None:
    inputs, groups = torch.zeros(12, 2), torch.arange(12) % 6
    grouped = GroupedData(inputs, torch.zeros(12), groups)
    assert [part.tolist() for part in partition("group", grouped, 3, 0)] == [
        [0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11],
    ]  # fmt: skip
    with pytest.raises(UserError, match="6 groups cannot be dealt evenly to 4 workers"):
        partition("group", grouped, 4, 0)
    with pytest.raises(UserError, match="partition 'group' needs samples in groups"):
        partition("group", TensorData(inputs, groups), 6, 0)
    with pytest.raises(UserError, match="takes no number"):
        partition("group:6", grouped, 6, 0)


@pytest.mark.usefixtures("real_data")
def test_mnist_zeros_lie_where_the_published_runs_had_them() -> None:
    train, _ = load_mnist()
    labels = train.labels.numpy()

    def zeros(workers: int) -> list[int]:
        return [int((labels[part] == 0).sum()) for part in partition("label:0", train, workers, 0)]

    assert zeros(5) == [5923, 0, 0, 0, 0]
    assert zeros(60) == [1000] * 5 + [923] + [0] * 54
    assert {len(part) for part in partition("label:0", train, 5, 0)} == {12000}


@pytest.mark.usefixtures("real_data")
def test_mnist_sorted_sixty_percent_is_part_sorted_part_stored() -> None:
    train, _ = load_mnist()
    labels = train.labels.numpy()
    first = partition("sorted:0.6", train, 10, 0)[0]
    assert len(first) == 6000
    assert (labels[first[:3600]] == 0).sum() > 3500
    np.testing.assert_array_equal(first[3600:], np.arange(36000, 38400))
