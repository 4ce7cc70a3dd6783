from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tacit.tasks.streams.drift import COINS, Drifts, When

rounds = st.integers(0, 3 * COINS)
whens = st.one_of(
    st.builds(When, st.sampled_from([0.0, 0.001, 0.05, 1.0])),
    st.builds(When.parse, st.just(0.5), st.lists(st.integers(1, 3 * COINS), min_size=1).map(
        lambda numbers: "/".join(map(str, numbers)))),
)  # fmt: skip


@given(whens, st.integers(0, 5), st.lists(rounds, min_size=1))
def test_concepts_count_the_drifts_in_whatever_order_one_asks(
    when: When, seed: int, asked: list[int]
) -> None:
    drifts = Drifts(when, seed)
    for round in asked:
        so_far = Drifts(when, seed).between(0, round + 1)
        assert drifts.concept(round) == len(so_far)
        assert so_far == sorted(set(so_far))
        assert 0 not in so_far
    assert drifts.concept(0) == 0


@given(whens, st.integers(0, 5), st.tuples(rounds, rounds, rounds).map(sorted))
def test_intervals_add_up(when: When, seed: int, ends: list[int]) -> None:
    first, middle, last = ends
    drifts = Drifts(when, seed)
    late, early = drifts.between(middle, last), drifts.between(first, middle)
    assert early + late == Drifts(when, seed).between(first, last)
    assert all(first <= round < last for round in early + late)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_likelier_drifts_come_on_top(one: float, other: float, seed: int) -> None:
    few, many = sorted((one, other))
    rare = set(Drifts(When(few), seed).between(0, 500))
    assert rare <= set(Drifts(When(many), seed).between(0, 500))


def test_fixed_rounds_override_chance() -> None:
    when = When.parse(1.0, "30/10/30")
    assert when.at == (10, 30)
    assert Drifts(when, 0).between(0, 100) == [10, 30]
    assert When.parse(0.0, 7).at == (7,)


def test_certain_drifts_spare_round_0_alone() -> None:
    assert Drifts(When(1.0), 0).between(0, 2 * COINS) == list(range(1, 2 * COINS))


def test_drifts_are_as_frequent_as_asked_for() -> None:
    """Within 4.5 standard deviations: a right one fails once in 150,000 seeds."""
    n = 100_000
    for p in (0.001, 0.03):
        for name in ((), (4,)):
            count = len(Drifts(When(p), 0, *name).between(0, n))
            assert abs(count - n * p) < 4.5 * math.sqrt(n * p * (1 - p))


def test_workers_drift_apart() -> None:
    assert Drifts(When(0.05), 0, 1).between(0, 500) != Drifts(When(0.05), 0, 2).between(0, 500)
