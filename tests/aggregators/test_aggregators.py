"""What every aggregator keeps to. A new one is tested by adding it to the list."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.aggregators import Aggregator, Mean, OuterOptimizer, WeightedMean
from tacit.fleet import LocalFleet
from tacit.fleet.sums import weighted_sum
from tacit.rng import torch_stream
from tacit.setting import Setting

AGGREGATORS: dict[str, Callable[[], Aggregator]] = {"mean": Mean, "weighted mean": WeightedMean}

K, D = 5, 8
SAMPLES = torch.tensor([10, 20, 5, 40, 25])


def started(name: str) -> Aggregator:
    aggregator = AGGREGATORS[name]()
    aggregator.start(Setting(workers=K, d=D, samples=SAMPLES))
    return aggregator


def rows() -> torch.Tensor:
    return torch.randn(K, D, generator=torch_stream(0, "rows"))


EVERYBODY = torch.ones(K, dtype=torch.bool)
SOME = torch.tensor([True, False, True, True, False])
NOISE = st.integers(0, 100).map(lambda n: torch.randn(K, D, generator=torch_stream(n, "rows")))


@pytest.mark.parametrize("name", AGGREGATORS)
@given(rows=NOISE)
def test_stays_within_the_range_of_the_rows(name, rows):
    combined = started(name)(rows)
    assert combined.shape == (D,)
    assert (combined <= rows.amax(dim=0) + 1e-6).all()
    assert (combined >= rows.amin(dim=0) - 1e-6).all()


@pytest.mark.parametrize("name", AGGREGATORS)
@given(rows=NOISE, order=st.permutations(range(K)))
def test_the_order_of_the_rows_does_not_matter(name, rows, order):
    aggregator, weights = started(name), SAMPLES.double()
    combined = aggregator(rows, weights)
    torch.testing.assert_close(aggregator(rows[order], weights[order]), combined)


@pytest.mark.parametrize("name", AGGREGATORS)
@given(rows=NOISE, shift=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_moves_and_scales_with_the_rows(name, rows, shift, scale):
    aggregator = started(name)
    expected = scale * aggregator(rows) + shift
    torch.testing.assert_close(aggregator(scale * rows + shift), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_of_equal_rows_gives_that_row(name):
    row = rows()[0]
    torch.testing.assert_close(started(name)(row.expand(K, -1)), row)


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("participants", [EVERYBODY, SOME])
def test_combine_reads_and_charges_the_participants_alone(name, participants):
    fleet, aggregator = LocalFleet(K), started(name)
    poisoned = rows()
    poisoned[~participants] = torch.nan
    combined = aggregator.combine(fleet, poisoned, "model", participants)
    weights = SAMPLES.double() if name == "weighted mean" else torch.ones(K).double()
    expected = aggregator(rows()[participants], weights[participants])
    torch.testing.assert_close(combined, expected)
    assert fleet.ledger.sent("model").tolist() == [4 * D * int(p) for p in participants]
    assert fleet.ledger.bytes() == fleet.ledger.bytes("model")


@pytest.mark.parametrize("name", AGGREGATORS)
def test_combine_leaves_the_rows_alone(name):
    values = rows()
    started(name).combine(LocalFleet(K), values, "model", EVERYBODY)
    assert torch.equal(values, rows())


class Median(Aggregator):
    """An aggregator that is no sum: it needs everybody's rows."""

    def __call__(self, rows, weights=None):
        return rows.median(dim=0).values


def test_an_aggregator_that_is_no_sum_gathers():
    fleet = LocalFleet(K)
    combined = Median().combine(fleet, rows(), "model", SOME)
    assert torch.equal(combined, rows()[SOME].median(dim=0).values)
    assert [event.operation for event in fleet.ledger] == ["gather"]


def test_mean():
    torch.testing.assert_close(started("mean")(rows()), rows().mean(dim=0))


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mean_of_long_rows_is_the_fleets_to_the_bit(n, dtype, monkeypatch):
    """Compiled, on one thread, for float32 and float64 without gradients; else as a fleet sums."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    wide = torch.randn(n, 70_001, generator=torch_stream(n, "long")).to(dtype)
    long = wide[:, 1:]  # as it lies in memory it is not aligned
    before = long.clone()
    expected = weighted_sum(long, torch.full((n,), 1 / n, dtype=torch.float64))
    assert torch.equal(Mean()(long), expected)
    assert torch.equal(Mean()(before), expected)
    assert torch.equal(long, before)
    if dtype != torch.bfloat16:
        passed = Mean()(before.requires_grad_())
        assert torch.equal(passed, expected)
        assert passed.requires_grad
    odd = long.clone()
    odd[0, 5], odd[-1, 6] = torch.inf, torch.nan
    assert Mean()(odd)[4:8].isfinite().tolist() == [True, False, False, True]


def test_weighted_mean_weighs_by_samples():
    combined = started("weighted mean").combine(LocalFleet(K), rows(), "model", SOME)
    expected = (10 * rows()[0] + 5 * rows()[2] + 40 * rows()[3]) / 55
    torch.testing.assert_close(combined, expected)


def test_without_known_sample_counts_all_workers_weigh_the_same():
    aggregator = WeightedMean()
    aggregator.start(Setting(workers=K, d=D))
    combined = aggregator.combine(LocalFleet(K), rows(), "model", EVERYBODY)
    torch.testing.assert_close(combined, rows().mean(dim=0))


# -- the outer optimizer


def outer(factory) -> OuterOptimizer:
    optimizer = OuterOptimizer(factory)
    optimizer.start(torch.zeros(D))
    return optimizer


def test_sgd_at_rate_1_replaces_the_model_by_the_combination():
    one = outer(lambda p: torch.optim.SGD(p, lr=1.0))
    reference, combined = rows()[0], rows()[1]
    torch.testing.assert_close(one.step(reference, combined), combined)
    half = outer(lambda p: torch.optim.SGD(p, lr=0.5))
    torch.testing.assert_close(half.step(reference, combined), (reference + combined) / 2)


def test_momentum_by_hand():
    optimizer = outer(lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9))
    model, velocity = torch.zeros(D), torch.zeros(D)
    for step in range(3):
        combined = torch.randn(D, generator=torch_stream(0, step))
        velocity = 0.9 * velocity + (model - combined)
        expected = model - 0.5 * velocity
        model = optimizer.step(model, combined)
        torch.testing.assert_close(model, expected)


def test_the_result_is_new_memory_and_the_inputs_stay():
    optimizer = outer(lambda p: torch.optim.SGD(p, lr=0.5))
    reference, combined = rows()[0], rows()[1]
    first = optimizer.step(reference, combined)
    kept = first.clone()
    optimizer.step(first, combined)
    assert torch.equal(first, kept)
    assert torch.equal(reference, rows()[0])
    assert torch.equal(combined, rows()[1])


@pytest.mark.parametrize(
    "factory",
    [
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
    ],
)
def test_a_restored_outer_optimizer_goes_on(factory):
    first, model = outer(factory), torch.zeros(D)
    for step in range(3):
        model = first.step(model, torch.randn(D, generator=torch_stream(0, step)))
    second = outer(factory)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    combined = torch.randn(D, generator=torch_stream(0, 3))
    assert torch.equal(second.step(model, combined), first.step(model, combined))


def test_an_outer_optimizer_can_begin_another_run():
    optimizer = outer(lambda p: torch.optim.Adam(p, lr=0.1))
    first = optimizer.step(torch.zeros(D), rows()[0])
    optimizer.start(torch.zeros(D))
    assert torch.equal(optimizer.step(torch.zeros(D), rows()[0]), first)
