"""What holds for every attack. One list, ``listed.LISTED``, and each of them in every test."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.aggregators import PeerRule, aggregator
from tacit.attacks import ATTACKS, Alie, Attack, Sight, as_attack, attack
from tacit.errors import UserError

from .listed import LISTED, Listed, gaussian, seen

every = pytest.mark.parametrize("listed", LISTED.values(), ids=LISTED)


def test_the_list_is_complete():
    assert {type(listed.make()) for listed in LISTED.values()} == set(ATTACKS.values())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("honest", "d", "liars"), [(2, 1, 1), (3, 1, 1), (2, 5, 1), (9, 37, 2)])
def test_shape_type_and_unchanged_rows(
    listed: Listed, honest: int, d: int, liars: int, dtype: torch.dtype
) -> None:
    rows = gaussian(honest, d, dtype=dtype)
    before = rows.clone()
    made = listed.make()
    found = made(seen(rows, liars))
    assert found.shape == ((honest, d) if made.per_victim else (d,))
    assert found.dtype == dtype
    assert torch.equal(rows, before)
    assert bool(found.isfinite().all()) == (listed.finite and not made.silent)
    found.fill_(5)
    assert torch.equal(rows, before)  # it is no view of them


@every
def test_the_same_sight_gives_the_same_bits(listed: Listed) -> None:
    rows = gaussian(9, 37)
    first = listed.make()(seen(rows))
    made = listed.make()
    assert torch.equal(made(seen(rows)).nan_to_num(3), first.nan_to_num(3))
    if not listed.text.startswith("mimic:learn"):
        made(seen(gaussian(9, 37, "other")))
        assert torch.equal(made(seen(rows)).nan_to_num(3), first.nan_to_num(3))


@every
def test_where_the_rows_lie_does_not_matter(listed: Listed) -> None:
    rows = gaussian(9, 37)
    wide = torch.full((11, 64), torch.nan)
    wide[:9, 5:42] = rows
    turned = rows.T.contiguous().T
    expected = listed.make()(seen(rows))
    for other in (wide[:9, 5:42], turned):
        torch.testing.assert_close(listed.make()(seen(other)), expected, equal_nan=True)


@pytest.mark.parametrize(
    "listed", [each for each in LISTED.values() if not each.ordered], ids=lambda each: each.text
)
@settings(max_examples=6)
@given(order=st.permutations(range(9)), seed=st.integers(0, 100))
def test_the_order_of_the_honest_does_not_matter(
    listed: Listed, order: list[int], seed: int
) -> None:
    rows = gaussian(9, 37, f"rows {seed}", torch.float64)
    expected, found = listed.make()(seen(rows)), listed.make()(seen(rows[order]))
    if listed.make().per_victim:
        expected = expected[order]
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-9, atol=1e-9)


# -- what it does to robust rules

#: How far f = 2 of 11 move them from the honest mean, in honest spreads.
STANDING = {
    "median": 1.0,
    "trimmed_mean:f=2": 1.0,
    "nnm:f=2,then=trimmed_mean": 1.0,
    "krum:f=2": 1.0,
    "geometric_median:f=2": 1.0,
    "nna:f=2": 1.0,
}


@every
@pytest.mark.parametrize("rule", STANDING)
def test_robust_rules_stand_it(listed: Listed, rule: str) -> None:
    honest = gaussian(9, 37)
    mean = honest.double().mean(0)
    spread = float((honest - mean).norm(dim=1).max())
    made = aggregator(rule)
    for liars in (1, 2):
        told = listed.make()(seen(honest, liars, rule))
        for i in range(len(honest)):
            lie = told[i] if told.dim() == 2 else told
            rows = torch.cat([honest, lie.expand(liars, -1)])
            out = made(rows, pivot=i) if isinstance(made, PeerRule) else made(rows)
            assert out.isfinite().all()
            assert float((out - mean).norm()) <= STANDING[rule] * spread * 1.001


# -- by name


def test_by_name():
    made = attack("alie:z=1.5")
    assert isinstance(made, Alie)
    assert made.z == 1.5
    assert as_attack(made) is made
    assert as_attack(None) is None
    assert isinstance(as_attack("foe:search=true"), Attack)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ali", "did you mean 'alie'"),
        ("alie:zeta=1", "zeta"),
        ("alie:z=1,search=true", "leave out"),
        ("alie:z=nan", "finite"),
        ("foe:search=1", "true or false"),
        ("foe:scale=inf", "finite"),
        ("gaussian:scale=0", "above 0"),
        ("mimic:worker=-1", "worker from 0"),
        ("mimic:learn=true,warmup=0", "warmup from 1"),
        ("dissensus:epsilon=0", "above 0"),
        ("inflate:factor=-1", "above 0"),
        ("deflate:factor=x", "above 0"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attack(text)


def test_no_attack():
    with pytest.raises(UserError, match=r"alie\(z=1.5\)"):
        as_attack(3)  # type: ignore[arg-type]


def test_a_sight_is_checked():
    for honest, liars in ((torch.zeros(3), 1), (torch.zeros(0, 3), 1), (torch.zeros(2, 3), 0)):
        with pytest.raises(UserError, match="honest rows"):
            Sight(honest, liars, "model", 0)
