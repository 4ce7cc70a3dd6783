from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.memory import theory
from tacit.memory.theory_sampled import partial_step, stochastic_step

ALPHAS = st.floats(1e-6, 1.0)
CONSTANTS = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30)
UNEVEN = (1.0, 1.0, 1.0, 100.0)


@pytest.mark.parametrize(
    ("alpha", "value"), [(1.0, 0.0), (0.5, 2.41), (0.1, 18.5), (0.01, 198.5), (0.001, 1998.5)]
)
def test_xi_of_the_table(alpha, value):
    assert theory.xi(alpha) == pytest.approx(value, abs=0.05)
    assert theory.xi(alpha) == pytest.approx((1 + math.sqrt(1 - alpha)) / alpha - 1)


@given(ALPHAS)
def test_xi_is_the_root_of_beta_over_theta(alpha):
    assert theory.xi(alpha) == pytest.approx(math.sqrt(theory.beta(alpha) / theory.theta(alpha)))
    assert 0 < theory.theta(alpha) <= 1


@given(st.floats(1e-5, 0.999))
def test_theta_and_beta_come_from_the_best_s(alpha):
    """1 - (1 + s)(1 - alpha) and (1 + 1/s)(1 - alpha) at any s give no smaller ratio."""
    for s in np.geomspace(1e-3, 0.999, 40) * alpha / (1 - alpha):
        shrinks, fed = alpha - s * (1 - alpha), (1 + 1 / s) * (1 - alpha)
        assert math.sqrt(fed / shrinks) >= theory.xi(alpha) * (1 - 1e-9)


def test_without_compression_every_step_is_that_of_gradient_descent():
    assert theory.ef21_step(4.0, 9.0, 1.0) == 0.25
    assert theory.ef21_w_step(4.0, 9.0, 1.0) == 0.25
    assert partial_step(4.0, 9.0, 1.0, 1.0).step == 0.25
    assert stochastic_step(4.0, 9.0, 1.0).step == 0.25


def test_the_step_of_the_counter_example():
    """f_i(x) = <a_i, x>^2 + ||x||^2 / 4 in three dimensions, with Top-1."""
    assert theory.xi(1 / 3) == pytest.approx(4.449, abs=5e-4)
    assert theory.ef21_step(17.17, 34.5, 1 / 3) == pytest.approx(0.00586, abs=5e-6)


def test_means_and_clones_of_the_uneven_example():
    found = theory.means(UNEVEN)
    assert found.arithmetic == 25.75
    assert found.quadratic == pytest.approx(50.01, abs=5e-3)
    assert found.variance == pytest.approx(found.quadratic**2 - found.arithmetic**2)
    twice = theory.cloned(UNEVEN, [1, 1, 1, 2])
    assert theory.means(twice).quadratic == pytest.approx(39.54, abs=5e-3)
    copies = theory.clones(UNEVEN)
    assert copies.tolist() == [1, 1, 1, 4]
    assert theory.means(theory.cloned(UNEVEN, copies)).quadratic == pytest.approx(33.09, abs=5e-3)
    assert math.sqrt(2) * found.arithmetic == pytest.approx(36.42, abs=5e-3)


@given(CONSTANTS)
def test_what_clones_promise(constants):
    found, copies = theory.means(constants), theory.clones(constants)
    assert found.arithmetic <= found.quadratic * (1 + 1e-12)
    assert copies.sum() <= 2 * len(constants)
    after = theory.means(theory.cloned(constants, copies))
    assert after.arithmetic == pytest.approx(found.arithmetic)
    assert after.quadratic <= math.sqrt(2) * found.arithmetic * (1 + 1e-9)


def test_equal_clients_are_not_cloned():
    assert theory.clones([0.1] * 7).tolist() == [1] * 7


@given(CONSTANTS)
def test_weights_are_in_proportion_and_sum_to_one(constants):
    weights = theory.weights(constants)
    assert weights.sum() == pytest.approx(1)
    assert weights * sum(constants) == pytest.approx(np.array(constants))


@given(CONSTANTS, ALPHAS, st.data())
def test_steps_are_ordered(constants, alpha, data):
    """Classic <= improved <= weighted rare features, and EF21-RF's below the last."""
    n = len(constants)
    holders = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n))))
    holders = np.vstack([holders.reshape(-1, n), np.eye(n)[:1]]).astype(bool)
    sharing = holders.sum(axis=1).max() / n
    shared = (holders @ np.array(constants)).max() / n
    found = theory.means(constants)
    smoothness = found.arithmetic
    classic = theory.ef21_step(smoothness, found.quadratic, alpha)
    improved = theory.ef21_w_step(smoothness, found.arithmetic, alpha)
    weighted = theory.weighted_rare_step(smoothness, shared, alpha)
    bound = theory.rare_bound(constants, holders.T)
    rare = theory.rare_step(smoothness, bound, sharing, alpha)
    assert bound <= found.quadratic * (1 + 1e-9)
    assert bound <= math.sqrt(sharing) * max(constants) * (1 + 1e-9)
    assert classic <= improved * (1 + 1e-9)
    assert improved <= weighted * (1 + 1e-9)
    assert rare <= weighted * (1 + 1e-9)
    assert classic <= rare * (1 + 1e-9)


def test_pl_step_is_the_shorter_of_two():
    smoothness, mean, alpha = 2.0, 3.0, 0.1
    long = 1 / (smoothness + mean * math.sqrt(2) * theory.xi(alpha))
    assert theory.pl_step(smoothness, mean, alpha, 1e-9) == pytest.approx(long)
    assert theory.pl_step(smoothness, mean, alpha, 1e3) == theory.theta(alpha) / 2e3


# -- partial participation


@given(ALPHAS)
def test_everybody_present_is_the_improved_step(alpha):
    choice = partial_step(2.0, 3.0, alpha, 1.0)
    assert choice.step == pytest.approx(theory.ef21_w_step(2.0, 3.0, alpha), rel=1e-6)


@given(st.floats(1e-4, 0.95), st.floats(0.05, 0.95))
def test_the_choice_is_the_best_of_a_grid(alpha, probability):
    best = partial_step(1.0, 3.0, alpha, probability)
    again = partial_step(1.0, 3.0, alpha, probability, best.s, best.other)
    assert again.step == pytest.approx(best.step)
    for s in np.geomspace(1e-3, 0.99, 9) * alpha / (1 - alpha):
        room = probability * (alpha - s * (1 - alpha)) / (1 - probability)
        for rho in np.geomspace(1e-3, 0.99, 9) * room:
            tried = partial_step(1.0, 3.0, alpha, probability, s, rho)
            assert tried.step <= best.step * (1 + 1e-9)


def test_the_choice_beats_the_fixed_constants_of_public_code():
    fixed = partial_step(1.0, 1.0, 0.1, 0.5, s=0.001, rho=0.001)
    assert partial_step(1.0, 1.0, 0.1, 0.5).step > 2 * fixed.step


def test_fixed_constants_fail_where_alpha_is_small():
    with pytest.raises(UserError, match=r"s is 0\.001; it must be above 0 and below alpha"):
        partial_step(1.0, 1.0, 0.0009, 0.5, s=0.001)
    with pytest.raises(UserError, match=r"rho is 0\.01; it must be above 0 and below p theta"):
        partial_step(1.0, 1.0, 0.01, 0.5, s=0.001, rho=0.01)
    partial_step(1.0, 1.0, 0.0011, 0.5, s=0.001)


def test_the_recursion_of_partial_participation_holds():
    """E ||g' - v'||^2 <= (1 - theta_p) ||g - v||^2 + B ||v' - v||^2 with the worst Top-1 input."""
    n, probability = 8, 0.5
    alpha = 1 / n
    _, s, rho = partial_step(1.0, 1.0, alpha, probability)
    shrinks, fed = alpha - s * (1 - alpha), (1 + 1 / s) * (1 - alpha)
    room = probability * shrinks - rho * (1 - probability)
    fed = probability * fed + (1 + 1 / rho) * (1 - probability)
    rng = np.random.default_rng(0)
    for size in (0.01, 0.1, 0.3, 1.0, 3.0):
        error, move = np.ones(n), size * rng.choice([-1.0, 1.0], n)
        after = error + move  # g - v', of which Top-1 sends one entry
        sent = (after**2).sum() - (after**2).max()
        expected = probability * sent + (1 - probability) * (after**2).sum()
        assert expected <= (1 - room) * (error**2).sum() + fed * (move**2).sum()


# -- minibatches


@given(st.floats(1e-4, 0.99))
def test_the_nu_chosen_is_the_best_for_its_s(alpha):
    best = stochastic_step(1.0, 3.0, alpha)
    left = (1 - alpha) * (1 + best.s)
    assert left == pytest.approx(1 - alpha / 2)
    for nu in np.geomspace(1e-3, 0.99, 9) * (1 / left - 1):
        tried = stochastic_step(1.0, 3.0, alpha, best.s, nu)
        assert tried.step <= best.step * (1 + 1e-9)
    assert best.step <= theory.ef21_w_step(1.0, 3.0, alpha)


def test_stochastic_constants_out_of_range():
    with pytest.raises(UserError, match=r"s is 0\.2; it must be above 0 and below alpha"):
        stochastic_step(1.0, 1.0, 0.1, s=0.2)
    with pytest.raises(UserError, match="nu is 1; it must be above 0 and below"):
        stochastic_step(1.0, 1.0, 0.1, nu=1.0)


# -- refusals


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: theory.xi(0.0), "alpha is 0.0; it must be above 0"),
        (lambda: theory.ef21_step(1.0, 1.0, 1.5), "alpha is 1.5"),
        (lambda: theory.theta(math.nan), "alpha is nan"),
        (lambda: theory.means([]), "must be (n,), n >= 1"),
        (lambda: theory.means([1.0, -1.0]), "must be 0 or more and finite"),
        (lambda: theory.means([1.0, math.inf]), "must be 0 or more and finite"),
        (lambda: theory.weights([1.0, 0.0]), "client 1 has L_i = 0"),
        (lambda: theory.cloned([1.0, 2.0], [1, 0]), "copies must be 2 whole numbers"),
        (lambda: theory.ef21_step(math.nan, 1.0, 0.5), "no step from smoothness nan"),
        (lambda: theory.ef21_step(0.0, 0.0, 0.5), "no step from smoothness 0"),
        (lambda: theory.pl_step(1.0, 1.0, 0.5, 0.0), "mu is 0.0"),
        (lambda: theory.rare_step(1.0, 1.0, 1.1, 0.5), "sharing c/n is 1.1"),
        (lambda: theory.rare_bound([1.0, 2.0], [[True]]), "holders must be (2, d)"),
        (lambda: partial_step(1.0, 1.0, 0.5, 0.0), "the probability is 0.0"),
    ],
)
def test_constants_that_cannot_be(call, words):
    with pytest.raises(UserError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
