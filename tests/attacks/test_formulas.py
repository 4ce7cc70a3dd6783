"""What each attack sends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.aggregators import Mean
from tacit.attacks import Alie, Dissensus, Foe, Gaussian, Spectral, attack
from tacit.attacks.damage import damage
from tacit.attacks.lies import Lies
from tacit.attacks.means import largest_hidden
from tacit.attacks.spread import centre, deviation
from tacit.attacks.victims import halves
from tacit.errors import UserError

from .listed import gaussian, seen

ROWS = torch.tensor([[1.0, 4.0], [3.0, 4.0], [5.0, -2.0]])  # mean (3, 2), deviation (2, sqrt 12)


def sent(text: str, rows: torch.Tensor = ROWS, **rest: object) -> list[float]:
    return attack(text)(seen(rows, **rest)).tolist()  # type: ignore[no-any-return, arg-type]


def test_by_hand():
    assert sent("sign_flip") == [-3, -2]
    assert sent("foe") == [-6, -4]
    assert sent("foe:scale=0.5") == [-1.5, -1]
    assert sent("alie:z=1.5") == pytest.approx([6, 2 + 1.5 * math.sqrt(12)])
    assert sent("alie:z=-1") == pytest.approx([1, 2 - math.sqrt(12)])
    assert sent("label_flip", poisoned=2 * ROWS) == [6, 4]
    assert sent("mimic:worker=2") == [5, -2]
    assert sent("inf") == [math.inf] * 2
    assert sent("huge") == pytest.approx([1e30] * 2)
    assert np.isnan(sent("nan")).all()
    assert np.isnan(sent("silence")).all()
    # 2 liars against 3 honest, and pulls of (2, -2), (0, -2), (-2, 4) per honest worker
    assert attack("dissensus:epsilon=1")(seen(ROWS)).tolist() == [[-2, 7], [3, 7], [8, -8]]


def test_one_honest_worker_has_no_deviation():
    assert sent("alie:z=3", ROWS[:1], liars=1) == [1, 4]
    assert sent("min_max", ROWS[:1], liars=1) == [1, 4]


@given(seed=st.integers(0, 1000), honest=st.integers(1, 9), d=st.sampled_from([1, 7, 40000]))
def test_mean_and_deviation(seed: int, honest: int, d: int) -> None:
    rows = gaussian(honest, d, f"rows {seed}", torch.float64)
    mean = centre(rows)
    torch.testing.assert_close(mean, rows.mean(0))
    if honest > 1:
        torch.testing.assert_close(deviation(rows, mean), rows.std(0))


# -- ALIE


def test_the_largest_hidden_deviation():
    assert largest_hidden(26, 5) == pytest.approx(0.18, abs=0.001)
    assert largest_hidden(50, 10) == pytest.approx(0.2533, abs=1e-4)  # 24 of 40 are hidden
    assert largest_hidden(10, 2) == 0
    assert largest_hidden(3, 1) == 0
    rows = gaussian(21, 5, dtype=torch.float64)
    z = float(((Alie()(seen(rows, 5)) - rows.mean(0)) / rows.std(0)).mean())
    assert z == pytest.approx(largest_hidden(26, 5))


def test_a_majority_of_liars_hides_nothing():
    with pytest.raises(UserError, match="give a z"):
        Alie()(seen(ROWS, 4))


# -- what is searched


def test_against_the_mean_the_search_goes_as_far_as_it_can():
    mean = ROWS.mean(0)
    most = 2**15 - 1
    found = Foe(search=True)(seen(ROWS, rule="mean"))
    torch.testing.assert_close(found, (1 - most) * mean)
    found = Alie(search=True)(seen(ROWS, rule="mean"))
    torch.testing.assert_close(found, mean + most * ROWS.std(0))


@pytest.mark.parametrize("rule", ["trimmed_mean:f=2", "krum:f=2", "nna:f=2", "meamed:f=2"])
def test_what_is_searched_does_more_damage_than_most(rule: str) -> None:
    rows = gaussian(9, 50, dtype=torch.float64)
    sight, mean = seen(rows, 2, rule), centre(rows)
    sigma = deviation(rows, mean)
    z = float(((Alie(search=True)(sight) - mean) / sigma).mean())
    objective = damage(Lies(sight, mean, sigma))
    assert objective(z) >= max(objective(other) for other in (0.0, 0.1, 1.0, 100.0))
    assert objective(z) > 0


def test_a_search_needs_the_rule():
    sight = seen(ROWS)
    object.__setattr__(sight, "rule", None)
    for text in ("alie:search=true", "foe:search=true", "spectral"):
        with pytest.raises(UserError, match="receivers' rule"):
            attack(text)(sight)


def test_a_search_needs_a_rule_that_takes_so_many():
    with pytest.raises(UserError, match="needs n"):
        Alie(search=True)(seen(ROWS, 2, "trimmed_mean:f=4"))


def test_label_flip_needs_the_poisoned():
    with pytest.raises(UserError, match="wrong labels"):
        attack("label_flip")(seen(ROWS, poisoned=None))


# -- MinMax and MinSum: hidden, and no farther could they be


def squared(rows: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    return (rows - point).square().sum(-1)


@given(seed=st.integers(0, 1000), honest=st.integers(2, 9), d=st.sampled_from([1, 3, 40]))
def test_hidden_as_well_as_can_be(seed: int, honest: int, d: int) -> None:
    rows = gaussian(honest, d, f"rows {seed}", torch.float64)
    between = squared(rows[:, None], rows[None])
    lie = attack("min_max")(seen(rows))
    assert float(squared(rows, lie).max()) == pytest.approx(float(between.max()), rel=1e-6)
    lie = attack("min_sum")(seen(rows))
    least = float(between.sum(1).min())
    assert float(squared(rows, lie).sum()) == pytest.approx(least, rel=1e-6)
    gamma = (rows.mean(0) - lie) / rows.std(0)
    assert float(gamma.min()) == pytest.approx(float(gamma.max()), abs=1e-6)
    assert float(gamma.min()) >= -1e-9


def test_equal_vectors_leave_no_room():
    for text in ("min_max", "min_sum"):
        assert sent(text, ROWS[:1].repeat(4, 1)) == [1, 4]


# -- Gaussian


def test_noise_follows_from_the_seed_the_kind_and_the_step():
    rows = torch.zeros(3, 20_000)
    noise = Gaussian(3.0)(seen(rows))
    assert float(noise.std()) == pytest.approx(3, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert torch.equal(Gaussian(3.0)(seen(rows + 1)), noise)
    for other in ({"seed": 8}, {"kind": "gradient"}, {"step": 4}):
        assert not torch.equal(Gaussian(3.0)(seen(rows, **other)), noise)


# -- to every victim something else


def test_dissensus_of_1_keeps_a_plain_average_where_it_is():
    rows = gaussian(7, 30, dtype=torch.float64)
    for i, lie in enumerate(Dissensus(1.0)(seen(rows, 3))):
        out = Mean()(torch.cat([rows, lie.expand(3, -1)]))
        torch.testing.assert_close(out, rows[i])


@pytest.mark.parametrize("n", range(2, 12))
def test_a_unit_vector_that_adds_up_to_0(n: int) -> None:
    v = halves(n)
    assert v.sum() == pytest.approx(0, abs=1e-12)
    assert v @ v == pytest.approx(1)
    assert (v[: n // 2] > 0).all()
    assert (v[n // 2 :] < 0).all()


@pytest.mark.parametrize("rule", ["nna:f=2", "self_clipping:tau=1"])
def test_spectral_pulls_the_halves_apart(rule: str) -> None:
    rows = gaussian(9, 50, dtype=torch.float64)
    pushed = Spectral()(seen(rows, 2, rule)) - rows
    v = torch.from_numpy(halves(9))
    along = v @ rows
    expected = v[:, None] * along * (pushed[0] @ along) / (v[0] * along @ along)
    torch.testing.assert_close(pushed, expected)
    assert float(pushed[0] @ along) > 0


def test_without_peers_there_are_no_victims():
    for text in ("spectral", "dissensus"):
        with pytest.raises(UserError, match="without a server"):
            attack(text)(seen(ROWS, peers=False))
