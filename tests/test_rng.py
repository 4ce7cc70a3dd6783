from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit import rng

PARTS = st.one_of(st.integers(-(10**12), 10**12), st.text("abc01-", max_size=4))
NAMES = st.lists(PARTS, max_size=4).map(tuple)


def test_a_name_always_gives_the_same_number():
    # Pinned: a change here changes every run that was ever made.
    assert rng.derive(0) == 6450899586159507901
    assert rng.derive(0, "batches", 3) == 3001154046168853246
    assert rng.derive(1, "batches", 3) == 7792276468622676493


@given(st.integers(0, 5), NAMES, st.integers(0, 5), NAMES)
def test_different_names_give_different_numbers(seed, name, other_seed, other_name):
    same = (seed, *map(_typed, name)) == (other_seed, *map(_typed, other_name))
    assert (rng.derive(seed, *name) == rng.derive(other_seed, *other_name)) == same


@given(st.integers(0, 2**70), NAMES)
def test_numbers_have_63_bits(seed, name):
    assert 0 <= rng.derive(seed, *name) < 2**63


def test_a_number_is_not_its_text_but_a_numpy_integer_is_an_integer():
    assert rng.derive(0, "1") != rng.derive(0, 1)
    assert rng.derive(0, np.int64(1)) == rng.derive(0, 1)


def test_streams_start_anew_and_depend_on_the_name_alone():
    first = rng.numpy_stream(3, "a", 1).random(4)
    rng.numpy_stream(3, "b").random(4)
    np.testing.assert_array_equal(first, rng.numpy_stream(3, "a", 1).random(4))
    assert not np.array_equal(first, rng.numpy_stream(3, "a", 2).random(4))
    draw = torch.rand(4, generator=rng.torch_stream(3, "a", 1))
    assert torch.equal(draw, torch.rand(4, generator=rng.torch_stream(3, "a", 1)))
    assert not torch.equal(draw, torch.rand(4, generator=rng.torch_stream(4, "a", 1)))


def test_scoped_draws_from_the_stream_and_leaves_the_default_generator_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with rng.scoped(5, "model"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(inside, torch.rand(3, generator=rng.torch_stream(5, "model")))


def test_scoped_restores_the_generator_after_an_error():
    before = torch.random.get_rng_state()
    try:
        with rng.scoped(5, "model"):
            torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.random.get_rng_state(), before)


def _typed(part):
    return type(part), part
