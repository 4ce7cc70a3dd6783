"""Liars in a simulation: who they are, what they see and say, and what they do not touch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import tacit
from helpers.spawn import run_processes
from helpers.tasks import conv_task, mlp_task
from tacit import checkpoint
from tacit.attacks import ATTACKS, Attack, Liars, Sight
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import Fleet, Kind, LocalFleet
from tacit.recipes import Recipe
from tacit.rng import torch_stream
from tacit.simulate import Simulation
from tacit.tasks.data import TensorData
from tacit.tasks.task import Task
from tacit.tasks.text import character_correct, character_loss

K, F = 6, 2
H = K - F


class Recording(LocalFleet):
    """Remembers what should have been sent, and what was."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.messages: list[tuple[Kind, Tensor, Tensor]] = []

    def said(self, rows: Tensor, kind: Kind) -> Tensor:
        before = rows.clone()
        said = super().said(rows, kind)
        assert torch.equal(rows, before)
        if kind != "evaluation":
            self.messages.append((kind, before, said.clone()))
        return said


def simulation(
    recipe: Recipe, liars: Liars | None = None, fleet: Fleet | None = None, **settings: Any
) -> Simulation:
    task = settings.pop("task", None) or mlp_task()
    fleet = fleet or LocalFleet(K)
    return Simulation(task, recipe, fleet, **{"seed": 1, **settings}, liars=liars)


def advance(run: Simulation, steps: int) -> Simulation:
    for _ in range(steps):
        run.step()
    return run


#: Methods without a defence but monna, which must have one.
RECIPES: dict[str, Callable[[], Recipe]] = {
    "fda": lambda: tacit.fda(0.0),
    "synchronous": tacit.synchronous,
    "local_sgd": lambda: tacit.local_sgd(1),
    "monna": lambda: tacit.monna(1, 0.5, reception="worst"),
}


# -- who they are


def test_they_are_the_last_hold_no_data_and_do_not_train() -> None:
    settings = {"partition": "dirichlet:2", "execution": "loop"}
    run = simulation(tacit.local_sgd(100), Liars(F, "sign_flip"), **settings)
    first = run.replicas.parameters.clone()
    assert run.honest.tolist() == [True] * H + [False] * F
    # the data are split over the honest, as if there were no others
    alone = simulation(tacit.local_sgd(100), fleet=LocalFleet(H), **settings)
    shards, expected = run.training.feed.shards, alone.training.feed.shards  # type: ignore[attr-defined]
    assert len(shards) == len(expected) == H
    for shard, same in zip(shards, expected, strict=True):
        assert np.array_equal(shard.indices, same.indices)
    assert run.steps_per_epoch == alone.steps_per_epoch
    sizes = [len(shard.indices) for shard in shards]
    assert run.setting.samples is not None
    assert run.setting.samples.tolist() == sizes + [sum(sizes) // H] * F
    advance(run, 3)
    assert run.training.draws == [3] * H + [0] * F
    moved = (run.replicas.parameters != first).any(dim=1)
    assert moved.tolist() == run.honest.tolist()
    # and the honest learn what they would learn among themselves
    assert torch.equal(run.replicas.parameters[:H], advance(alone, 3).replicas.parameters)


def test_evaluation_is_of_the_honest_alone() -> None:
    run = advance(simulation(tacit.local_sgd(100), Liars(F, "nan")), 3)
    before = run.evaluate()
    rows = run.replicas.parameters
    torch.testing.assert_close(run.consensus()[0], rows[:H].mean(dim=0))
    rows[H:] = torch.nan
    after = run.evaluate()
    assert (after.accuracy, after.loss) == (before.accuracy, before.loss)
    alone = advance(simulation(tacit.local_sgd(100), fleet=LocalFleet(H)), 3).evaluate()
    for name in ("accuracy", "loss", "train_loss"):
        assert getattr(before, name) == pytest.approx(getattr(alone, name), rel=1e-6), name


def test_statistics_of_the_honest_alone_are_evaluated() -> None:
    recipe = tacit.local_sgd(2, buffers="average", aggregator="trimmed_mean(f=2)")
    run = advance(simulation(recipe, Liars(F, "nan"), task=conv_task()), 4)
    assert run.consensus()[1].isfinite().all()
    assert run.evaluate().loss < 10


# -- what they say


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_honest_say_is_not_changed(name: str) -> None:
    fleet = Recording(K)
    advance(simulation(RECIPES[name](), Liars(1, "alie:z=1.5", "inflate"), fleet), 3)
    kinds = {kind for kind, _, _ in fleet.messages}
    assert kinds >= {"synchronous": {"gradient"}}.get(name, {"model"})
    for kind, rows, said in fleet.messages:
        honest = rows[:-1]
        assert torch.equal(said[:-1], honest)
        if kind == "monitoring":
            expected = honest.mean(dim=0)
            expected[0] += 1e6 * honest.mean(dim=0).abs().max()
        else:
            expected = honest.mean(dim=0) + 1.5 * honest.std(dim=0)
        torch.testing.assert_close(said[-1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_without_an_attack_they_say_what_the_honest_say_on_average(name: str) -> None:
    fleet = Recording(K)
    advance(simulation(RECIPES[name](), Liars(F), fleet, optimizer=None), 2)
    for _, rows, said in fleet.messages:
        expected = rows[:H].mean(dim=0).expand(F, -1)
        assert torch.equal(said[H:], expected)


def test_they_see_what_the_honest_are_about_to_send_and_the_rule() -> None:
    sights: list[Sight] = []

    class Watches(Attack):
        def __call__(self, sight: Sight) -> Tensor:
            sights.append(replace(sight, honest=sight.honest.clone()))
            return sight.honest[0].clone()

    recipe, fleet = tacit.learn(1, reception="all"), Recording(K)
    advance(simulation(recipe, Liars(1, Watches()), fleet, seed=4), 2)
    assert [(s.kind, s.step) for s in sights] == [
        (kind, step) for step in (1, 2) for kind in ("gradient", "model")
    ]
    assert recipe.gradients is not None
    assert recipe.averaging is not None
    for sight, (_, rows, _) in zip(sights, fleet.messages, strict=True):
        assert torch.equal(sight.honest, rows[:-1])
        part = recipe.gradients if sight.kind == "gradient" else recipe.averaging
        assert sight.rule is part.aggregator
        assert (sight.liars, sight.n, sight.seed, sight.peers) == (1, K, 4, True)
    advance(simulation(tacit.fda(0.0, decision="median"), Liars(1, Watches(), Watches())), 1)
    assert [s.kind for s in sights[4:]] == ["monitoring", "model"]
    assert not sights[-1].peers


@pytest.mark.parametrize("name", RECIPES)
def test_what_they_overhear_is_not_charged(name: str) -> None:
    """The ledger is that of a run of as many honest workers whose messages have the same sizes."""
    honest = advance(simulation(RECIPES[name]()), 4)
    events = list(honest.fleet.ledger)
    assert events
    for attack in (None, "alie:z=1", "label_flip", "mimic:learn=true"):
        run = advance(simulation(RECIPES[name](), Liars(1, attack)), 4)
        assert list(run.fleet.ledger) == events, attack
    if name == "monna":
        run = advance(simulation(RECIPES[name](), Liars(1, "dissensus")), 4)
        assert list(run.fleet.ledger) == events


# -- every attack with every kind of method


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_attack_runs_or_is_refused_in_one_line(name: str, attack: str) -> None:
    made = ATTACKS[attack]()
    try:
        run = advance(simulation(RECIPES[name](), Liars(1, attack)), 2)
        assert run.replicas.parameters[: K - 1].isfinite().all()
        said = "nothing"
    except (UserError, TrainingDiverged) as error:
        said = str(error)
    assert "\n" not in said
    if made.per_victim and name != "monna":
        assert "needs a method without a server, such as monna" in said
    elif attack in ("inf", "nan", "silence") and name != "monna":
        assert "not finite at step" in said
    elif attack != "huge" or name == "monna":  # a mean of 1e30 is finite, what follows need not be
        assert said == "nothing"


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_on_the_trigger_runs_or_is_refused_in_one_line(attack: str) -> None:
    """Monitoring has a robust rule here, which stands all."""
    made = ATTACKS[attack]()
    if made.per_victim or made.needs_poisoned:
        reason = "tells everybody the same" if made.per_victim else "have no labels to flip"
        with pytest.raises(UserError, match=reason):
            Liars(1, states=attack)
        return
    recipe = tacit.fda(0.01, decision="trimmed_mean(f=1)")
    run = advance(simulation(recipe, Liars(1, states=attack)), 30)
    assert 0 < run.synchronisations < 30


# -- label flip


def flipped_gradients(run: Simulation) -> Tensor:
    """Of each honest worker's next batch, by plain PyTorch."""
    task, rows = run.task, []
    for k in range(len(run.training.feed.shards)):  # type: ignore[attr-defined]
        module = task.model()
        nn.utils.vector_to_parameters(run.replicas.parameters[k].clone(), module.parameters())
        draw = run.training.draws[k]
        x, y = task.train.batch(run.training.feed.shards[k].at(draw))  # type: ignore[attr-defined]
        task.loss(module(x), 3 - 1 - y).backward()
        rows.append(torch.cat([p.grad.flatten() for p in module.parameters()]))  # type: ignore[union-attr]
    return torch.stack(rows)


@pytest.mark.parametrize("execution", ["auto", "loop"])
def test_label_flip_sends_the_mean_gradient_of_flipped_labels(execution: str) -> None:
    fleet = Recording(K)
    run = simulation(tacit.synchronous(), Liars(F, "label_flip"), fleet, execution=execution)
    for _ in range(3):
        expected = flipped_gradients(run).mean(dim=0)
        run.step()
        _, rows, said = fleet.messages[-1]
        torch.testing.assert_close(said[H:], expected.expand(F, -1), rtol=1e-4, atol=1e-6)
        assert (rows[:H].mean(dim=0) - expected).norm() > 0.1


def test_label_flip_of_models_is_a_plain_step_further() -> None:
    """Along the gradients at the models before the step, without momentum."""
    fleet = Recording(K)
    run = simulation(tacit.monna(1, 0.9, 0.3, "worst"), Liars(1, "label_flip"), fleet, noise=0.1)
    for _ in range(3):
        gradients = flipped_gradients(run)
        run.step()
        _, rows, said = fleet.messages[-1]
        expected = (rows[:-1] - 0.3 * gradients).mean(dim=0)
        torch.testing.assert_close(said[-1], expected, rtol=1e-4, atol=1e-6)


def test_the_rate_is_that_of_the_step() -> None:
    fleet, liars = Recording(K), Liars(1, "label_flip")
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    run = simulation(tacit.local_sgd(1), liars, fleet, scheduler=scheduler)
    for rate in (0.1, 0.05, 0.025):
        gradients = flipped_gradients(run)
        run.step()
        assert liars.rate == pytest.approx(rate)
        _, rows, said = fleet.messages[-1]
        expected = (rows[:-1] - rate * gradients).mean(dim=0)
        torch.testing.assert_close(said[-1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", [mlp_task, conv_task])
def test_who_looks_at_flipped_labels_changes_nothing_else(task: Callable[..., Task]) -> None:
    """Neither models nor statistics, nor what dropout draws next."""
    runs = [
        simulation(tacit.local_sgd(100), Liars(1, a), task=task()) for a in (None, "label_flip")
    ]
    for _ in range(3):
        one, other = (advance(run, 1) for run in runs)
        assert torch.equal(one.replicas.parameters, other.replicas.parameters)
        assert torch.equal(one.replicas.buffers, other.replicas.buffers)
        for a, b in zip(one.replicas.counters, other.replicas.counters, strict=True):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)


def letters(**changes: Any) -> Task:
    """Five characters from each of seven, four times."""
    inputs = torch.randint(0, 7, (60, 4), generator=torch_stream(0, "letters"))
    windows = TensorData(inputs, inputs.roll(1, dims=1))
    settings: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7)),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "loss": character_loss,
        "correct": character_correct,
        "batch_size": 3,
    }
    return Task("letters", windows, windows, **{**settings, **changes})


def test_labels_of_a_text_are_flipped_too() -> None:
    fleet = Recording(K)
    run = simulation(tacit.synchronous(), Liars(1, "label_flip"), fleet, task=letters())
    module = run.task.model()
    nn.utils.vector_to_parameters(run.replicas.parameters[0].clone(), module.parameters())
    for k in range(K - 1):  # the same model: gradients add up
        x, y = run.task.train.batch(run.training.feed.shards[k].at(0))  # type: ignore[attr-defined]
        (run.task.loss(module(x), 6 - y) / (K - 1)).backward()
    run.step()
    expected = torch.cat([p.grad.flatten() for p in module.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(fleet.messages[0][2][-1], expected, rtol=1e-4, atol=1e-6)


def test_what_has_no_labels_cannot_be_flipped() -> None:
    def square(output: Tensor, y: Tensor) -> Tensor:
        return (output.squeeze(1) - y).square().mean()

    task = mlp_task(model=lambda: nn.Linear(6, 1), loss=square)
    with pytest.raises(UserError, match="there are no labels to flip") as caught:
        simulation(tacit.synchronous(), Liars(1, "label_flip"), task=task).step()
    assert "\n" not in str(caught.value)


def test_gradients_of_which_entries_travel_cannot_be_those_of_flipped_labels() -> None:
    recipe = tacit.compressed("randomk(density=0.2)")
    with pytest.raises(UserError, match="label_flip needs gradients that travel whole"):
        simulation(recipe, Liars(1, "label_flip")).step()
    for whole in ("topk(density=0.2)", "qsgd"):
        advance(simulation(tacit.compressed(whole), Liars(1, "label_flip")), 2)


# -- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Liars(0), "the number of liars is a whole number, at least 1, not 0"),
        (lambda: Liars(True), "at least 1, not True"),
        (lambda: Liars(1.0), "at least 1, not 1.0"),  # type: ignore[arg-type]
        (lambda: Liars(1, "sing_flip"), "unknown attack 'sing_flip'; did you mean 'sign_flip'"),
        (lambda: Liars(1, 3), "an attack is written as"),  # type: ignore[arg-type]
        (lambda: simulation(tacit.synchronous(), Liars(K - 1)), "5 of 6 workers lie; at least 2"),
        (
            lambda: simulation(tacit.fda(1.0), Liars(1, "dissensus")),
            "needs a method without a server, such as monna",
        ),
        (
            lambda: simulation(tacit.fedavg(fraction=0.5), Liars(1, "alie:z=1")),
            "all workers take part; leave out its fraction, or the liars",
        ),
        (
            lambda: simulation(tacit.ef21("topk(k=4)", fraction=0.5, start="zero"), Liars(1)),
            "all workers take part; leave out its fraction, or the liars",
        ),
        (
            lambda: simulation(tacit.monna(1), Liars(1, "mimic:worker=5")).step(),
            "there is no honest worker 5 among 5",
        ),
        (
            lambda: advance(simulation(tacit.monna(1), Liars(2, "nan")), 5),
            "2 of 5 rows hold NaN or inf or overflow .* more than the 1",
        ),
    ],
)
def test_impossible_liars(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- checkpoints


@pytest.mark.parametrize(
    ("recipe", "attack", "states"),
    [
        (lambda: tacit.monna(1, 0.9, reception="worst"), "mimic:learn=true,warmup=6", None),
        (lambda: tacit.monna(1, 0.9, 0.3), "label_flip", None),
        (lambda: tacit.learn(1, reception="worst", rule="mean"), "mimic:learn=true", None),
        (lambda: tacit.fda(0.01, decision="median"), "gaussian:scale=0.1", "mimic:learn=true"),
        (lambda: tacit.synchronous(aggregator="trimmed_mean(f=1)"), "alie:search=true", None),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, recipe: Callable[[], Recipe], attack: str, states: str | None
) -> None:
    def fresh() -> Simulation:
        return simulation(recipe(), Liars(1, attack, states), partition="dirichlet:1", noise=0.05)

    whole = advance(fresh(), 9)
    first = advance(fresh(), 4)
    everyone = {k: first.worker_state(k) for k in range(K)}
    checkpoint.write_folder(tmp_path, 4, first.fleet, first.shared_state(), everyone)
    advance(first, 2)  # what is saved is not touched by what comes later
    second = fresh()
    second.load_state(*checkpoint.read_folder(tmp_path, range(K)))
    advance(second, 5)
    assert torch.equal(second.replicas.parameters, whole.replicas.parameters)
    assert list(second.fleet.ledger) == list(whole.fleet.ledger)
    assert second.synchronisations == whole.synchronisations
    # its memory matters: without it the attack would have begun anew
    if "learn" in attack:
        forgetful = fresh()
        shared, workers = checkpoint.read_folder(tmp_path, range(K))
        forgetful.load_state({**shared, "liars": None}, workers)
        assert forgetful.liars is not None
        assert forgetful.liars.state_dict() != second.liars.state_dict()  # type: ignore[union-attr]


# -- processes

#: name: (recipe, attack, attack on the trigger); in two processes, the second hosts the liars alone
SPLIT: dict[str, tuple[Callable[[], Recipe], str | None, str | None]] = {
    "synchronous": (
        lambda: tacit.synchronous(aggregator="trimmed_mean(f=2)"),
        "alie:search=true",
        None,
    ),
    "synchronous mean": (tacit.synchronous, "sign_flip", None),
    "synchronous flip": (lambda: tacit.synchronous(aggregator="median"), "label_flip", None),
    "local_sgd": (lambda: tacit.local_sgd(2, aggregator="geometric_median(f=2)"), "nan", None),
    "fda": (lambda: tacit.fda(0.01, decision="trimmed_mean(f=2)"), "foe:scale=0.5", "inflate"),
    "monna": (lambda: tacit.monna(1, 0.9, 0.3, "worst"), "alie:search=true", None),
    "monna mimic": (lambda: tacit.monna(1, 0.9, 0.3, "worst"), "mimic:learn=true", None),
    "monna flip": (lambda: tacit.monna(1, 0.9, 0.3, "worst"), "label_flip", None),
    "monna dissensus": (lambda: tacit.monna(1, 0.9, 0.3, "worst"), "dissensus", None),
    "learn": (lambda: tacit.learn(1, 0.1, "worst", "mean"), "spectral", None),
    "byz_ef21": (
        lambda: tacit.byz_ef21(2, "trimmed_mean", "topk(density=0.2)"),
        "alie:search=true",
        None,
    ),
    # what is kept of them is in the other process alone
    "rosdhb back": (lambda: tacit.rosdhb(2, "median", 0.3, download="identity"), "gaussian", None),
}
#: One worker a process, of whom none is late.
ALONE: dict[str, tuple[Callable[[], Recipe], str | None, str | None]] = {
    "first": (lambda: tacit.monna(1, 0.9, 0.3, rule="mean"), "gaussian", None),
    "first dissensus": (lambda: tacit.monna(1, 0.9, 0.3, rule="mean"), "dissensus", None),
    "first silence": (lambda: tacit.monna(1, 0.9, 0.3, "all"), "silence", None),
}
WORKERS = {**dict.fromkeys(SPLIT, 5), **dict.fromkeys(ALONE, 3)}


def run_of(name: str, fleet: Fleet, deterministic: bool = False) -> dict[str, Any]:
    recipe, attack, states = {**SPLIT, **ALONE}[name]
    liars = Liars(1 if fleet.size == 3 else 2, attack, states)
    run = simulation(recipe(), liars, fleet, partition="dirichlet:2", execution="loop")
    fired = [step for step in range(1, 6) if run.step()]
    evaluation = run.evaluate()
    return {
        "fired": fired,
        "rows": run.replicas.parameters.clone(),
        "ledger": list(fleet.ledger),
        "accuracy": evaluation.accuracy,
        "losses": (evaluation.loss, evaluation.train_loss),
    }


def child(rank: int) -> dict[tuple[str, bool], Any]:
    group, results = dist.new_group([0, 1]), {}
    for name, bits in itertools.product(WORKERS, (False, True)):
        if name in ALONE:
            fleet = tacit.ProcessGroupFleet(1, deterministic=bits)
        elif rank == 2:
            continue
        else:
            fleet = tacit.ProcessGroupFleet((3, 2)[rank], group, deterministic=bits)
        results[name, bits] = run_of(name, fleet)
    return results


@pytest.fixture(scope="module")
def processes() -> list[dict[tuple[str, bool], Any]]:
    return run_processes(child, 3, timeout=120)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", WORKERS)
def test_liars_in_another_process(
    processes: list[dict[tuple[str, bool], Any]], name: str, deterministic: bool
) -> None:
    whole = run_of(name, LocalFleet(WORKERS[name], deterministic))
    parts = [
        results[name, deterministic] for results in processes if (name, deterministic) in results
    ]
    assert len(parts) == (3 if name in ALONE else 2)
    for part in parts:
        assert part["fired"] == whole["fired"]
        assert part["ledger"] == whole["ledger"]
        assert part["accuracy"] == whole["accuracy"]
        assert part["losses"] == pytest.approx(whole["losses"], rel=1e-4)
    tolerance = {"rtol": 0.0, "atol": 0.0} if deterministic else {"rtol": 1e-4, "atol": 1e-5}
    together = torch.cat([part["rows"] for part in parts])
    torch.testing.assert_close(together, whole["rows"], **tolerance)
