from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.schedule import Densities
from tacit.setting import Setting


def started(densities: Densities, steps_per_epoch: float | None) -> Densities:
    densities.start(Setting(2, 10, steps_per_epoch=steps_per_epoch))
    return densities


def test_the_published_warm_up():
    """Lin et al.: sparsity 75, 93.75, 98.4375, 99.6, 99.9 %."""
    found = Densities.parse(0.001, 5)
    assert found.warmup == (0.25, 0.0625, 0.015625, 0.00390625, 0.001)
    assert found.density == 0.001


@pytest.mark.parametrize("density", [0.001, 0.25, 0.3, 1.0, 1e-300])
def test_a_very_long_warm_up_has_few_stages(density):
    """Once it has come down to the density, it stays there."""
    long = started(Densities.parse(density, "999999999"), 1)
    assert len(long.warmup) < 600
    expected = [max(density, 0.25**epoch) for epoch in range(1, 700)]
    assert [long.at(step) for step in range(1, 700)] == expected
    assert long.at(10**9) == long.at(10**10) == density


@pytest.mark.parametrize("warmup", ["2", 2, [0.25, 0.0625], (0.25, 0.0625), "0.25/0.0625"])
def test_ways_to_say_it(warmup):
    assert Densities.parse(0.01, warmup).warmup == (0.25, 0.0625)


def test_densities_as_text():
    assert Densities.parse(0.01, "1/1/0.25").warmup == (1.0, 1.0, 0.25)
    assert Densities.parse(0.01, "1.0").warmup == (1.0,)
    assert Densities.parse(0.01, "0").warmup == Densities.parse(0.01, 0).warmup == ()


def test_a_density_for_each_epoch_and_then_the_last():
    densities = started(Densities(0.1, [1.0, 0.5]), 3)
    assert [densities.at(step) for step in range(1, 9)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.1, 0.1]


def test_epochs_that_are_no_whole_number_of_steps():
    """A step belongs to the epoch in which it begins: with 2.5 an epoch 1 to 3, then 4 and 5."""
    densities = started(Densities(0.1, [0.9, 0.5, 0.3]), 2.5)
    assert [densities.at(step) for step in range(1, 10)] == [0.9] * 3 + [0.5] * 2 + [0.3] * 3 + [
        0.1
    ]


@given(st.floats(0.5, 50), st.integers(1, 6), st.floats(1e-4, 1))
def test_a_warm_up_never_rises_and_ends_when_its_epochs_do(steps_per_epoch, epochs, density):
    densities = started(Densities.parse(density, epochs), steps_per_epoch)
    last = math.ceil(epochs * steps_per_epoch) + 1
    found = [densities.at(step) for step in range(1, last + 2)]
    assert found == sorted(found, reverse=True)
    assert found[0] == max(density, 0.25)
    assert min(found) == density
    assert found[-1] == density


def test_without_a_warm_up_nobody_needs_to_know_the_epoch():
    densities = started(Densities(0.1), None)
    assert [densities.at(step) for step in (1, 1000)] == [0.1, 0.1]
    with pytest.raises(UserError, match=r"attach\(..., steps_per_epoch=...\)"):
        started(Densities(0.1, [0.5]), None)


@pytest.mark.parametrize(
    ("density", "warmup", "message"),
    [
        (0.0, 0, "a density is in"),
        (1.1, 0, "a density is in"),
        (math.nan, 0, "a density is in"),
        ("x", 3, r"a density is in \(0, 1\], not 'x'"),
        (True, 3, "not True"),
        (0.1, [0.5, "x"], "not 'x'"),
        (0.1, [0.5, 2.0], "not 2"),
        (0.1, "1/2", "a density is in .* not 2"),
        (0.1, "0.5/nan", "not nan"),
        (0.1, "often", "'often' is not understood"),
        (0.1, "", "is not understood"),
        (0.1, "0.5//1", "is not understood"),
        (0.1, "-1", "not -1"),
        (0.1, -1, "0 or more epochs"),
        (0.1, 0.5, "whole number of epochs, not 0.5"),
        (0.1, True, "whole number of epochs, not True"),
    ],
)
def test_impossible_densities(density, warmup, message):
    with pytest.raises(UserError, match=message):
        Densities.parse(density, warmup)
