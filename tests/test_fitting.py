"""A rule among peers is refused where a server, or all, have one result."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import tacit
from helpers.tasks import mlp_task
from tacit.aggregators import NNA, CSPlus, SelfClipping, TrimmedMean
from tacit.averaging import ModelAveraging
from tacit.errors import UserError
from tacit.fleet import LocalFleet
from tacit.gradients import GradientExchange
from tacit.topologies import Peers
from tacit.triggers import Every, ModelVariance, Trigger
from tacit.triggers.estimators import Linear


class Decides(Trigger):
    decision = NNA(1)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: tacit.synchronous(aggregator="nna(f=2)"), ["nna", "nnm(f=2,then=trimmed_mean)"]),
        (
            lambda: tacit.synchronous("models", aggregator="nna(f=2)"),
            ["nna", "models", "nnm(f=2,then=trimmed_mean)"],
        ),
        (
            lambda: tacit.fda(1.0, aggregator="self_clipping(tau=2,rounds=3)"),
            ["self_clipping", "models", "centered_clipping(tau=2,rounds=3)"],
        ),
        (lambda: tacit.fda(1.0, decision="cs_plus(f=1)"), ["cs_plus", "decisions", "nnm(f=1"]),
        (lambda: tacit.byz_ef21(2, aggregator="nna"), ["nna", "gradients", "nnm(f=2"]),
        (lambda: tacit.rosdhb(2, aggregator="cs_plus"), ["cs_plus", "gradients", "nnm(f=2"]),
        (lambda: GradientExchange(CSPlus(1)), ["cs_plus", "nnm(f=1"]),
        (lambda: ModelAveraging(Every(1), NNA(1)), ["nna", "nnm(f=1"]),
        (
            lambda: ModelVariance(1.0, Linear(), decision=SelfClipping(1)),
            ["self_clipping"],
        ),
        (lambda: ModelAveraging(Decides()), ["nna", "decisions"]),
        (lambda: ModelAveraging(Decides(), topology=Peers(1)), ["nna", "decisions"]),
    ],
)
def test_refused(make: Callable[[], object], names: list[str]) -> None:
    with pytest.raises(UserError, match="trusts a worker's own row") as raised:
        make()
    said = str(raised.value)
    assert "\n" not in said
    assert all(name in said for name in names)


@pytest.mark.parametrize(
    "text", ["nnm(f=2,then=nna)", "arc(f=2,then=nnm(then=cs_plus))", "ctma(f=2,first=nna)"]
)
def test_refused_within_another_rule(text: str) -> None:
    with pytest.raises(UserError, match="needs the own row") as raised:
        tacit.synchronous(aggregator=text)
    assert "\n" not in str(raised.value)


def test_among_peers_they_are_at_home() -> None:
    for rule in (NNA(1), CSPlus(1), SelfClipping(1.0)):
        assert ModelAveraging(Every(1), rule, topology=Peers(1)).aggregator is rule
        assert GradientExchange(rule, topology=Peers(1)).aggregator is rule
    assert tacit.learn(1, rule="nna").gradients is not None
    assert ModelAveraging(Every(1), TrimmedMean(1)).aggregator.gathers


@pytest.mark.parametrize("options", [{}, {"period": 3}], ids=["rest", "go on"])
def test_a_rule_that_cannot_do_with_the_drawn_workers_is_refused_at_once(options):
    recipe = tacit.fedavg(fraction=0.5, aggregator="trimmed_mean(f=1)", **options)
    with pytest.raises(UserError, match="at least 3 rows, not 2"):
        tacit.Simulation(mlp_task(), recipe, LocalFleet(4))
