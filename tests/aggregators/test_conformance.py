"""What holds for every robust rule. One list, ``listed.RULES``, and each of them in every test."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.aggregators import AGGREGATORS, Robust, aggregator, as_aggregator
from tacit.errors import UserError
from tacit.fleet import LocalFleet
from tacit.rng import torch_stream
from tacit.setting import Setting

from .listed import RULES, F, N, Rule, gaussian, models

every = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
SEEDS = st.integers(0, 1000).map(lambda seed: gaussian(name=f"rows {seed}"))
# A draw follows from the rows: it is another where they are moved or shuffled.
RANDOM = ("bucketing", "dnc")


def some(wanted: str, value: object = True) -> pytest.MarkDecorator:
    found = {name: rule for name, rule in RULES.items() if getattr(rule, wanted) is value}
    return pytest.mark.parametrize("rule", found.values(), ids=found)


def close(found: torch.Tensor, expected: torch.Tensor, part: float = 1e-5) -> None:
    assert float((found.double() - expected.double()).norm()) <= part * float(expected.norm())


def test_the_list_is_complete():
    robust = {name for name in AGGREGATORS if name not in ("mean", "weighted_mean")}
    assert {rule.make().name for rule in RULES.values()} == robust


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_type_and_unchanged_rows(rule: Rule, dtype: torch.dtype) -> None:
    rows = gaussian(dtype=dtype)
    before = rows.clone()
    found = rule.make()(rows)
    assert found.shape == (37,)
    assert found.dtype == dtype
    assert torch.equal(rows, before)
    assert torch.equal(rule.make()(rows), found)
    made = rule.make()
    made(gaussian(name="other"))
    assert torch.equal(made(rows), found)  # it keeps nothing


@every
def test_where_the_rows_lie_does_not_matter(rule: Rule) -> None:
    rows = gaussian(d=33)
    wide = torch.full((N, 64), torch.nan)
    wide[:, 5:38] = rows
    turned = rows.T.contiguous().T
    assert torch.equal(rule.make()(wide[:, 5:38]), rule.make()(rows))
    close(rule.make()(turned), rule.make()(rows), 1e-6)
    assert torch.isnan(wide[:, :5]).all()


@every
def test_gradients_do_not_pass(rule: Rule) -> None:
    assert not rule.make()(gaussian().requires_grad_()).requires_grad


@some("ordered", False)
@settings(max_examples=6)
@given(rows=SEEDS, order=st.permutations(range(N)))
def test_the_order_of_the_senders_does_not_matter(
    rule: Rule, rows: torch.Tensor, order: list[int]
) -> None:
    close(rule.make()(rows[order]), rule.make()(rows), 1e-6)


@some("moves")
@settings(max_examples=6)
@given(rows=SEEDS, shift=st.floats(-3, 3))
def test_moves_with_the_rows(rule: Rule, rows: torch.Tensor, shift: float) -> None:
    if rule.text.startswith(RANDOM):
        rows = rows[:1] + (rows - rows[:1]) * 1e-6  # another draw, of nearly the same
    rows = rows.double()
    difference = rule.make()(rows + shift) - shift - rule.make()(rows)
    assert float(difference.abs().max()) <= 1e-5


@some("scales")
@settings(max_examples=6)
@given(rows=SEEDS, power=st.sampled_from([-60, -20, -1, 1, 7, 60]))
def test_scales_with_the_rows(rule: Rule, rows: torch.Tensor, power: int) -> None:
    if rule.text.startswith(RANDOM):
        return
    close(rule.make()(rows * 2.0**power) / 2.0**power, rule.make()(rows))


@some("mean")
def test_with_no_bad_sender_it_is_the_mean(rule: Rule) -> None:
    rows = gaussian()
    close(rule.make(f=0)(rows), rows.mean(0), 1e-6)


@some("agrees")
@settings(max_examples=6)
@given(others=SEEDS, huge=st.booleans())
def test_n_minus_f_equal_rows_give_that_row(rule: Rule, others: torch.Tensor, huge: bool) -> None:
    rows = gaussian(name="one")[:1].repeat(N, 1)
    at = N - F if huge else 3
    rows[at : at + F] = others[:F] * (1e25 if huge else 1)
    found = rule.make()(rows)
    if rule.text.startswith("nnm") or "then=nnm" in rule.text:
        close(found, rows[0], 1e-6)  # the mixed vectors are rounded
    else:
        assert torch.equal(found, rows[0])


HOSTILE = {
    "nan": [torch.nan, torch.nan],
    "inf": [torch.inf, torch.inf],
    "opposite inf": [-torch.inf, torch.inf],
    "nan and huge": [torch.nan, 3e38],
    "huge": [1e30, 1e30],
    "opposite huge": [-3e38, 3e38],
    "of very different sizes": [1e6, 1e30],
    "beyond what squares": [1e19, -2e19],
}


@every
@pytest.mark.parametrize("kernel", [None, False], ids=["compiled", "plain"])
def test_f_senders_of_anything(rule: Rule, kernel: bool | None) -> None:
    for values in HOSTILE.values():
        stands(rule, values, kernel)


def stands(rule: Rule, values: list[float], kernel: bool | None) -> None:
    honest = gaussian()[: N - F]
    spread = float((honest - honest.mean(0)).norm(dim=1).max())
    for columns in (slice(None), slice(7, 8)):  # everywhere, or in one coordinate alone
        attack = honest[:F].clone()
        attack[:, columns] = torch.tensor(values)[:, None]
        rows = torch.cat([honest, attack])
        before = rows.clone()
        made = rule.make()
        made.kernel = kernel
        found = made(rows)
        assert found.isfinite().all()
        assert torch.equal(rows.nan_to_num(5, 7, 9), before.nan_to_num(5, 7, 9))
        if rule.reach is not None:
            assert float((found - honest.mean(0)).norm()) <= rule.reach * spread
        elif not rule.text.startswith(("dnc", "nnm")) or values[0] == values[1]:
            longest = float(honest.norm(dim=1).max())
            assert float(found.norm()) <= 1.01 * longest


@pytest.mark.parametrize(
    "rule", [r for r in RULES.values() if r.reach], ids=[t for t, r in RULES.items() if r.reach]
)
def test_an_attack_among_the_honest(rule: Rule) -> None:
    """Equal vectors a few spreads away, where they are most of use."""
    honest = gaussian(d=200)[: N - F]
    spread = float((honest - honest.mean(0)).norm(dim=1).max())
    for far in (0.5, 1.0, 3.0, 10.0):
        found = rule.make()(
            torch.cat([honest, (honest.mean(0) + far * honest.std(0)).repeat(F, 1)])
        )
        assert float((found - honest.mean(0)).norm()) <= rule.reach * spread


@every
def test_more_than_f_bad_senders_are_named(rule: Rule) -> None:
    rows = gaussian()
    rows[[3, 5, 6, 7, 8, 9, 10]] = torch.nan
    with pytest.raises(UserError, match=r"7 of 11 rows hold NaN or inf .*\(rows 3, 5, 6") as raised:
        rule.make()(rows)
    assert "\n" not in str(raised.value)


@every
def test_too_few_rows_are_refused_in_one_line(rule: Rule) -> None:
    made = rule.make(f=3)
    least = next(n for n in range(1, 30) if accepts(made, n))
    assert not any(accepts(made, n) for n in range(1, least))
    rule.make(f=3)(gaussian(n=least))
    if least > 1:
        with pytest.raises(UserError, match=r"needs .*at least \d+ rows, not \d+") as found:
            rule.make(f=3)(gaussian(n=least - 1))
        assert "\n" not in str(found.value)
        with pytest.raises(UserError, match="at least"):
            rule.make(f=3).start(Setting(workers=least - 1, d=5))


def accepts(made: Robust, n: int) -> bool:
    try:
        made.check(n)
    except UserError:
        return False
    return True


@every
def test_equal_weights_and_those_that_take_no_part(rule: Rule) -> None:
    rows = gaussian(n=N + 2)
    weights = torch.full((N + 2,), 0.5)
    weights[[4, 8]] = 0
    here = [k for k in range(N + 2) if k not in (4, 8)]
    rows[4] = torch.nan
    assert torch.equal(rule.make()(rows, weights), rule.make()(rows[here]))


@some("weighted", False)
def test_unequal_weights_are_refused(rule: Rule) -> None:
    weights = torch.ones(N)
    weights[0] = 2
    with pytest.raises(UserError, match="has no weighted form") as found:
        rule.make()(gaussian(), weights)
    assert "\n" not in str(found.value)


@some("weighted")
def test_a_weight_of_two_is_a_second_sender(rule: Rule) -> None:
    if rule.text.startswith(("cs_plus", "centered_clipping:tau=0.5")):
        return  # f, and the median they start at, count senders
    rows, weights = gaussian(), torch.ones(N)
    weights[0] = 2
    close(rule.make()(rows, weights), rule.make()(torch.cat([rows[:1], rows])), 1e-5)


@every
@pytest.mark.parametrize(
    "weights", [[1.0] * 10, [0.0] * 11, [1.0] * 10 + [-1.0], [1.0] * 10 + [float("nan")]]
)
def test_weights_that_are_none(rule: Rule, weights: list[float]) -> None:
    with pytest.raises(UserError, match="weight"):
        rule.make()(gaussian(), torch.tensor(weights))


@every
@pytest.mark.parametrize(
    "rows", [torch.zeros(5), torch.zeros(11, 4, dtype=torch.int64), torch.zeros(0, 4)]
)
def test_rows_that_are_none(rule: Rule, rows: torch.Tensor) -> None:
    if len(rows) == 0 and not rule.ordered:
        with pytest.raises(UserError):
            rule.make()(rows)
    elif rows.dim() == 1 or not rows.is_floating_point():
        with pytest.raises(UserError, match="takes rows"):
            rule.make()(rows)


@every
def test_compiled_and_plain_agree(rule: Rule) -> None:
    pytest.importorskip("numba")
    for rows in (gaussian(d=1), gaussian(d=3000), gaussian(n=34, d=300), models(26, 1500)):
        fast, plain = rule.make(), rule.make()
        fast.kernel, plain.kernel = True, False
        if accepts_subsets(fast, len(rows)):
            close(fast(rows), plain(rows), 1e-6)


def accepts_subsets(made: Robust, n: int) -> bool:
    return made.name != "smea" or n < 30


@every
@pytest.mark.parametrize("rows", [gaussian(d=3000), models(26, 3000)], ids=["gaussian", "models"])
@pytest.mark.parametrize("f", [1, 3])
def test_float32_is_as_good_as_float64(rule: Rule, rows: torch.Tensor, f: int) -> None:
    if rule.text.startswith(RANDOM) or not accepts(made := rule.make(f), len(rows)):
        return
    expected = made(rows.double())
    close(made(rows), expected)
    # and of what the rows do not share, nearly so
    common = rows.double().mean(0)
    if rule.moves:
        difference = float((made(rows).double() - expected).norm())
        assert difference <= 1e-6 * float(common.norm())
        assert difference <= 0.02 * float((rows - common).norm(dim=1).mean())


@every
def test_over_a_fleet(rule: Rule) -> None:
    rows = gaussian(n=N + 1)
    taking_part = torch.ones(N + 1, dtype=torch.bool)
    made = rule.make()
    fleet = LocalFleet(N + 1)
    assert torch.equal(made.combine(fleet, rows, "model", taking_part), made(rows))
    taking_part[2] = False
    others = rows[taking_part]
    assert torch.equal(made.combine(fleet, rows, "model", taking_part), made(others))
    running = made.running()
    running.add(rows[:5], torch.ones(5))
    running.add(rows[5:], torch.ones(N - 4))
    assert torch.equal(running.value, made(rows))


def test_texts():
    with pytest.raises(UserError, match="did you mean 'trimmed_mean'"):
        aggregator("trimed_mean:f=1")
    with pytest.raises(UserError, match="did you mean 'krum'"):
        aggregator("nnm:f=1,then=krun")
    with pytest.raises(UserError, match="aggregator krum needs f"):
        aggregator("krum")
    for text in ("krum:f=-1", "krum:f=0.5", "krum:f=true", "median:f=two", "nnm:f=1,then=nna"):
        with pytest.raises(UserError):
            aggregator(text)
    inner = aggregator("nnm(f=3,then=arc(then=multi_krum(m=2)))")
    assert [inner.f, inner.then.f, inner.then.then.f, inner.then.then.m] == [3, 3, 3, 2]
    assert aggregator("nnm:f=3,then=trimmed_mean(f=1)").then.f == 1
    made = aggregator("mean")
    assert as_aggregator(made) is made
    assert as_aggregator(None) is None
    assert isinstance(as_aggregator("krum:f=1"), Robust)


def test_draws_differ_from_step_to_step_and_by_seed():
    def order(seed: int, rows: torch.Tensor) -> list[float]:
        made = aggregator(f"bucketing:s=2,then=median,seed={seed}")
        return made.mixed(rows).sort(dim=0).values.flatten().tolist()

    rows = torch.arange(11.0)[:, None]
    noise = torch.rand(1, generator=torch_stream(0, "noise")) * 1e-6
    assert order(0, rows) == order(0, rows)
    assert len({tuple(order(seed, rows)) for seed in range(8)}) > 4
    assert len({tuple(round(x) for x in order(0, rows + k * noise)) for k in range(8)}) > 2
