"""The objective of the line search: what reads the rows once, against the rule itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.aggregators import AGGREGATORS, CAF, PeerRule, aggregator
from tacit.attacks.damage import Whole, damage
from tacit.attacks.lies import Lies, applied
from tacit.attacks.ordered import Ordered
from tacit.attacks.spread import centre, deviation
from tacit.attacks.turned import Turned
from tacit.attacks.victims import halves

from .listed import gaussian, seen

TURNING = [
    "mean",
    "weighted_mean",
    "krum:f=2",
    "multi_krum:f=2",
    "geometric_median:f=2",
    "cge:f=2",
    "mda:f=2",
    "smea:f=2",
    "caf:f=2",
    "nna:f=2",
    "nna:f=3",
    "cs_plus:f=2",
    "self_clipping:tau=0.8",
    "self_clipping:tau=0.8,rounds=3",
    "centered_clipping:tau=2,start=zero",
    "nnm:f=2,then=krum",
    "nnm:f=2,then=mean",
    "arc:f=2,then=nnm(then=geometric_median)",
    "clipping:tau=4,then=multi_krum(f=2)",
    "ctma:f=2,first=geometric_median",
]
ORDERED = ["median", "trimmed_mean:f=1", "trimmed_mean:f=2", "trimmed_mean:f=3"]
OTHERS = [
    "meamed:f=2",
    "bulyan:f=2",
    "dnc:f=2",
    "centered_clipping:tau=2",
    "nnm:f=2,then=trimmed_mean",
    "ctma:f=2,first=median",
    "bucketing:s=2,f=2,then=median",
    "bucketing:s=2,f=2,then=mean",
]
TRIES = (0.0, 0.2, 0.5, 1.0, 1.7, 4.0, 30.0)


def lies(rows: torch.Tensor, way: str, rule: str, liars: int = 2, peers: bool = True) -> Lies:
    sight, mean = seen(rows, liars, rule, peers=peers), centre(rows)
    if way == "victims":
        pushes = halves(len(rows))
        return Lies(sight, mean, torch.from_numpy(pushes) @ (rows - mean), pushes)
    return Lies(sight, mean, -mean if way == "mean" else deviation(rows, mean))


def agree(these: Lies, part: float) -> None:
    fast, slow = damage(these), Whole(these)
    scale = float((these.sight.honest.double() - these.mean).square().sum(1).max())
    # Rounding decides whether CAF needs one more round to be rid of the second of equal vectors.
    least = 1e-3 if type(these.rule) is CAF else 1e-9
    for z in TRIES:
        assert fast(z) == pytest.approx(slow(z), rel=part, abs=least * scale)


def test_which_rules_are_fast():
    rows = gaussian(9, 20)
    for rules, kind in ((TURNING, Turned), (ORDERED, Ordered), (OTHERS, Whole)):
        for rule in rules:
            assert type(damage(lies(rows, "deviation", rule))) is kind, rule


@pytest.mark.parametrize("way", ["mean", "deviation", "victims"])
@pytest.mark.parametrize("rule", TURNING + ORDERED)
@pytest.mark.parametrize("peers", [True, False], ids=["peers", "server"])
def test_fast_is_right(rule: str, way: str, peers: bool) -> None:
    if way == "victims" and not peers:
        return
    agree(lies(gaussian(9, 40, dtype=torch.float64), way, rule, peers=peers), 1e-7)
    agree(lies(gaussian(9, 40), way, rule, peers=peers), 1e-4)
    # fewer dimensions than vectors, and columns in more than one block
    agree(lies(gaussian(9, 2, dtype=torch.float64), way, rule, peers=peers), 1e-6)
    if rule in ("nna:f=2", "trimmed_mean:f=2"):
        agree(lies(gaussian(9, 30_000), way, rule, peers=peers), 1e-4)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    honest=st.integers(1, 9),
    liars=st.integers(1, 6),
    d=st.integers(1, 12),
    rule=st.sampled_from(["median", "trimmed_mean", "nna", "self_clipping:tau=0.7,rounds=2"]),
    way=st.sampled_from(["mean", "deviation", "victims"]),
    data=st.data(),
)
def test_any_number_of_honest_and_of_liars(
    seed: int, honest: int, liars: int, d: int, rule: str, way: str, data: st.DataObject
) -> None:
    """Also where the rule stands another number than there are."""
    if rule in ("trimmed_mean", "nna"):
        rule += f":f={data.draw(st.integers(0, (honest + liars - 1) // 2))}"
    rows = gaussian(honest, d, f"rows {seed}", torch.float64)
    agree(lies(rows, way, rule, liars), 1e-6)


@pytest.mark.parametrize("rule", ["nna:f=2", "geometric_median:f=2", "trimmed_mean:f=2"])
@pytest.mark.parametrize("way", ["mean", "deviation", "victims"])
def test_models_that_differ_little(rule: str, way: str) -> None:
    """A large common part costs the fast ways no digits."""
    apart = gaussian(9, 500, "apart")
    rows = gaussian(1, 500, "common") + 3e-5 * (apart - apart.mean(0))
    scale = 3e-5 if way == "mean" else 1.0
    exact, fast = lies(rows.double(), way, rule), damage(lies(rows, way, rule))
    slow = Whole(exact)
    for z in TRIES[1:]:
        assert fast(z * scale) == pytest.approx(slow(z * scale), rel=1e-3)


@pytest.mark.parametrize("rule", TURNING)
def test_rules_said_to_turn_do(rule: str) -> None:
    made = aggregator(rule)
    assert made.turns
    rows = gaussian(11, 12, dtype=torch.float64)
    draws = torch.Generator().manual_seed(5)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=draws, dtype=torch.float64)).Q
    for own in (0, 4):
        found = applied(made, rows @ turn, own)
        torch.testing.assert_close(found, applied(made, rows, own) @ turn)


@pytest.mark.parametrize("rule", ORDERED + OTHERS)
def test_others_do_not(rule: str) -> None:
    assert not aggregator(rule).turns


def test_every_rule_is_listed() -> None:
    """A new one is to say whether it turns, or which sorted values it averages."""
    assert {rule.split(":")[0] for rule in TURNING + ORDERED + OTHERS} == set(AGGREGATORS)


def test_a_server_applies_the_rule_of_peers_once():
    rows = gaussian(9, 40, dtype=torch.float64)
    told = lies(rows, "deviation", "nna:f=2", peers=False)
    heard = torch.cat([rows, (told.mean + told.direction).expand(2, -1)])
    rule = told.rule
    assert isinstance(rule, PeerRule)
    moved = rule(heard) - rows.mean(0)
    assert damage(told)(1.0) == pytest.approx(float(moved @ moved))
    among = sum(rule(heard, pivot=i) for i in range(9)) / 9 - rows.mean(0)
    told = lies(rows, "deviation", "nna:f=2", peers=True)
    assert damage(told)(1.0) == pytest.approx(float(among @ among))
