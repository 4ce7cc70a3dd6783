from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.tasks.batches import BLOCK, Batches, distinct_rows

ORDERS = ["shuffle", "resample"]
sizes = st.integers(1, 70)


def shard(n: int) -> np.ndarray:
    """n sample numbers that are not simply 0 to n - 1."""
    return 3 * np.arange(n) + 100


@pytest.mark.parametrize("order", ORDERS)
@given(n=sizes, batch_size=sizes, draws=st.lists(st.integers(0, 300), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_at_is_a_pure_function_of_seed_worker_and_draw(order, n, batch_size, draws) -> None:
    used = Batches(shard(n), batch_size, 5, 2, order)
    for draw in draws:
        fresh = Batches(shard(n), batch_size, 5, 2, order)
        np.testing.assert_array_equal(used.at(draw), fresh.at(draw))


@pytest.mark.parametrize("order", ORDERS)
@given(n=sizes, batch_size=sizes)
@settings(max_examples=60, deadline=None)
def test_batches_are_full_and_drawn_from_the_shard(order, n, batch_size) -> None:
    batches = Batches(shard(n), batch_size, 0, 0, order)
    for draw in range(5):
        batch = batches.at(draw)
        assert batch.shape == (batch_size,)
        assert batch.dtype == np.int64
        assert set(batch.tolist()) <= set(shard(n).tolist())


@given(n=sizes, batch_size=sizes)
@settings(max_examples=60, deadline=None)
def test_shuffle_goes_through_the_shard_once_a_pass(n, batch_size) -> None:
    batches = Batches(shard(n), batch_size, 1, 0)
    chain = np.concatenate([batches.at(draw) for draw in range(-(-3 * n // batch_size))])
    for number in range(3):
        one_pass = chain[number * n : (number + 1) * n]
        np.testing.assert_array_equal(np.sort(one_pass), shard(n))


@given(n=sizes, batch_size=sizes)
@settings(max_examples=60, deadline=None)
def test_resample_repeats_a_sample_only_when_it_must(n, batch_size) -> None:
    batches = Batches(shard(n), batch_size, 1, 0, "resample")
    counts = Counter(batches.at(3).tolist())
    assert max(counts.values()) == -(-batch_size // n)
    if batch_size >= n:
        assert min(counts[sample] for sample in shard(n).tolist()) == batch_size // n


@pytest.mark.parametrize("order", ORDERS)
def test_passes_blocks_workers_and_seeds_draw_differently(order) -> None:
    n = 32
    per_block = 1 if order == "shuffle" else BLOCK
    base = Batches(np.arange(n), n, 0, 0, order)
    others = [
        base.at(per_block),
        Batches(np.arange(n), n, 1, 0, order).at(0),
        Batches(np.arange(n), n, 0, 1, order).at(0),
    ]
    for one, other in itertools.combinations([base.at(0), *others], 2):
        assert (one != other).any()


@pytest.mark.parametrize("order", ORDERS)
def test_batches_cannot_be_changed_by_the_caller(order) -> None:
    indices = np.arange(10)
    batches = Batches(indices, 4, 0, 0, order)
    for draw in range(4):
        with pytest.raises(ValueError, match="read-only"):
            batches.at(draw)[0] = 99
    indices[:] = -1
    assert batches.at(0).min() >= 0


@pytest.mark.parametrize("order", ORDERS)
def test_memory_does_not_grow_with_the_number_of_draws(order) -> None:
    batches = Batches(np.arange(10), 4, 0, 0, order)
    for draw in range(40 * BLOCK):
        batches.at(draw)
    assert len(batches._cache) <= 2


@pytest.mark.parametrize(
    ("n", "size"), [(3, 3), (6, 4), (5, 2)]
)  # two cut permutations, one redraws
def test_every_ordered_choice_is_equally_likely(n: int, size: int) -> None:
    assert (n < size * size // 2) == (n != 5)  # the cases take both ways
    rows = distinct_rows(numpy_stream(0, "test"), 24_000, size, n)
    counts = Counter(map(tuple, rows.tolist()))
    choices = list(itertools.permutations(range(n), size))
    assert set(counts) == set(choices)
    expected = 24_000 / len(choices)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    # Chi-squared with len(choices) - 1 degrees of freedom: mean plus five deviations.
    degrees = len(choices) - 1
    assert statistic < degrees + 5 * (2 * degrees) ** 0.5


def test_lengths() -> None:
    batches = Batches(np.arange(1000), 32, 0, 0)
    assert batches.samples_per_pass == 1000
    assert batches.steps_per_epoch == 31.25


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="worker 3 has no samples"):
        Batches(np.arange(0), 4, 0, 3)
    with pytest.raises(UserError, match="batch size is 0"):
        Batches(np.arange(5), 0, 0, 0)
    with pytest.raises(UserError, match="did you mean 'shuffle'"):
        Batches(np.arange(5), 4, 0, 0, "shufle")
    with pytest.raises(UserError, match="negative"):
        Batches(np.arange(5), 4, 0, 0).at(-1)
