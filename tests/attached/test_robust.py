"""Aggregators that are no mean, where workers may be away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import tacit
from helpers import keeping, quarrels, situations
from helpers.loops import RECIPES, batches, model_of, train, vector
from helpers.shared import once
from helpers.spawn import run_processes
from helpers.tasks import mlp_task
from tacit.aggregators import NNM, Aggregator, Median, TrimmedMean
from tacit.errors import PeerError, UserError
from tacit.fleet import AttendedFleet, IslandFleet, LocalFleet, Star

WORKERS, STEPS = 4, 12
TRIM, NEAR = "trimmed_mean(f=1)", "nnm(f=1,then=trimmed_mean)"

ROBUST: dict[str, Callable[[], tacit.Recipe]] = {
    "synchronous": lambda: tacit.synchronous(aggregator=TRIM),
    "synchronous-near": lambda: tacit.synchronous(aggregator=NEAR),
    "synchronous-models": lambda: tacit.synchronous("models", aggregator=TRIM),
    "local_sgd": lambda: tacit.local_sgd(4, aggregator=NEAR),
    "local_sgd-overlap": lambda: tacit.local_sgd(4, overlap=2, aggregator=TRIM),
    "local_sgd-compressed": lambda: tacit.local_sgd(
        4, compressor="randomk(density=0.5,shared=false)", aggregator=TRIM
    ),
    "fda": lambda: tacit.fda(2e-3, aggregator=NEAR, decision=TRIM),
    "fda-models": lambda: tacit.fda(2e-3, aggregator=TRIM),
    "fda-states": lambda: tacit.fda(2e-3, "sketch", columns=20, decision="median"),
    "fda-late": lambda: tacit.fda(
        2e-3, every=3, lag=2, overlap=4, aggregator=TRIM, decision="median"
    ),
    "fda-averaged": lambda: tacit.fda(
        2e-3,
        lag=1,
        overlap=2,
        buffers="average",
        optimizer_state="average",
        aggregator=TRIM,
        decision=TRIM,
    ),
    "fedavg": lambda: tacit.fedavg(aggregator=TRIM),
    "fedavg-drawn": lambda: tacit.fedavg(fraction=0.75, period=3, aggregator=TRIM),
    "diloco": lambda: tacit.diloco(5, aggregator=NEAR),
}
#: Those in which different messages come first, and travel at other times.
SOME = [
    "synchronous",
    "synchronous-models",
    "local_sgd-overlap",
    "local_sgd-compressed",
    "fda",
    "fda-models",
    "fda-late",
    "fda-averaged",
]
RULES: dict[str, Aggregator] = {
    **dict.fromkeys(ROBUST, TrimmedMean(1)),
    **dict.fromkeys(("synchronous-near", "local_sgd", "fda", "diloco"), NNM(1, TrimmedMean(1))),
    "fda-states": tacit.aggregators.Mean(),
}
#: For two islands.
OF_TWO: dict[str, Callable[[], tacit.Recipe]] = {
    "local_sgd": lambda: tacit.local_sgd(4, aggregator="trimmed_mean(f=0)"),
    "fda": lambda: tacit.fda(2e-3, aggregator="median", decision="median"),
}


def each(
    worker: int, function: Callable[..., Any], recipes: list[str], *arguments: Any
) -> dict[str, Any]:
    """``function`` with each recipe, one after the other in the same processes."""
    RECIPES.update(ROBUST)
    return {name: function(worker, recipe=name, **dict(arguments)) for name in recipes}


def together(
    function: Callable[..., Any], recipes: list[str], **arguments: Any
) -> list[dict[str, Any]]:
    return run_processes(each, WORKERS, function, recipes, *arguments.items(), timeout=90)


def same(results: list[dict[str, Any]], recipe: str, key: str = "finished") -> Tensor:
    first: Tensor = results[0][recipe][key]
    for other in results[1:]:
        assert torch.equal(other[recipe][key], first), recipe
    assert torch.isfinite(first).all(), recipe
    return first


# -- workers with equal amounts of data


@pytest.fixture(scope="module")
def attached(tmp_path_factory):
    names = list(ROBUST)
    run = partial(together, train, names, workers=WORKERS, steps=STEPS)
    return once(tmp_path_factory, "robust", run)


@pytest.mark.parametrize("recipe", ROBUST)
def test_an_attached_loop_does_what_the_simulation_does(attached, recipe):
    method = replace(ROBUST[recipe](), optimizer=None)
    simulation = tacit.Simulation(mlp_task(), method, LocalFleet(WORKERS), execution="loop")
    fired = [step for step in range(1, STEPS + 1) if simulation.step()]
    rows = simulation.replicas.parameters
    counts = {k: simulation.fleet.ledger.count(k) for k in ("model", "gradient", "monitoring")}
    assert counts["model"] or counts["gradient"]
    if counts["gradient"]:
        counts["gradient"] += STEPS  # rows that are gathered come after a roll call
    for worker, processes in enumerate(attached):
        result = processes[recipe]
        assert result["fired"] == fired
        assert result["steps"] == STEPS
        assert result["counts"] == counts
        torch.testing.assert_close(result["own"], rows[worker])
        # how the run ends is up to the rule as well
        torch.testing.assert_close(result["consensus"], RULES[recipe](rows))
        assert torch.equal(result["finished"], result["consensus"])


# -- workers with different amounts of data


@pytest.mark.parametrize("steps", [[4, 7, 7, 7], [7, 7, 0, 7]], ids=str)
def test_who_runs_out_of_data_waits_for_the_others(steps):
    arguments = {"workers": WORKERS, "steps": steps, "epochs": 2, "save": None}
    results = together(situations.unequal, SOME, **arguments)
    for recipe in SOME:
        finished = same(results, recipe)
        for result in results:
            assert result[recipe]["steps"] == 2 * max(steps)
            assert torch.equal(result[recipe]["seen"][0], results[0][recipe]["seen"][0])
            assert torch.equal(result[recipe]["seen"][1], finished)


def middle(worker: int, recipe: str, folder: str) -> dict[str, Any]:
    """Save and look in the middle of a run, worker 1 one step before the others."""
    task, module = mlp_task(), model_of(mlp_task())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    shard = batches(task, worker, WORKERS)
    early = worker == 1
    seen = torch.empty(0)
    checkpoint = f"{folder}/{recipe}"
    options: dict[str, Any] = {"steps_per_epoch": 4.0, "checkpoint": checkpoint}
    with tacit.attach(module, optimizer, RECIPES[recipe](), **options) as sync:
        while sync.steps < 9:
            situations.loss_of(task, module, shard, sync.steps).backward()
            optimizer.step()
            optimizer.zero_grad()
            if sync.steps == 5 - early:
                sync.save()
            if sync.steps == 7 - early:
                with sync.consensus() as model:
                    seen = vector(model)
    return {"seen": seen, "finished": vector(module), "steps": sync.steps}


def test_workers_that_wait_help_to_save_and_to_look(tmp_path):
    results = together(middle, SOME, folder=str(tmp_path))
    for recipe in SOME:
        same(results, recipe), same(results, recipe, "seen")
        assert {result[recipe]["steps"] for result in results} == {9}
        assert (tmp_path / recipe / "latest").read_text() == "step-000000005"


def resumed(worker: int, recipe: str, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run without a break, and the same with one."""
    whole = keeping.run(worker, WORKERS, recipe, 11)
    keeping.run(worker, WORKERS, recipe, 7, f"{folder}/{recipe}", (7,))
    return whole, keeping.run(worker, WORKERS, recipe, 11, f"{folder}/{recipe}")


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    names = ["synchronous", "fda", "fda-late"]
    for processes in together(resumed, names, folder=str(tmp_path)):
        for whole, again in processes.values():
            assert again["began"] == 7
            for key in ("own", "moments", "consensus"):
                assert torch.equal(again[key], whole[key]), key
            assert again["events"] == whole["events"]


def too_few(worker: int, recipe: str) -> tuple[str, int]:
    """Two of four workers have more data; what each process is told, and at which step."""
    task, module = mlp_task(), model_of(mlp_task())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    shard = batches(task, worker, WORKERS)
    sync = tacit.attach(module, optimizer, RECIPES[recipe](), steps_per_epoch=4.0)
    try:
        for draw in range(3 if worker < 2 else 12):
            situations.loss_of(task, module, shard, draw).backward()
            optimizer.step()
            optimizer.zero_grad()
        sync.finish()
    except (UserError, PeerError) as error:
        sync.detach()
        return f"{type(error).__name__}: {error}", sync.fleet.ledger.step
    return "nothing", 0


#: The step at which it is too late: models that are owed are still taken in.
LATE = {"synchronous": 4, "synchronous-models": 4, "local_sgd": 8, "fda": 4, "fda-models": 0}


def test_all_are_told_at_the_same_step_that_too_few_are_left():
    results = together(too_few, list(LATE))
    for recipe, step in LATE.items():
        assert len({result[recipe] for result in results}) == 1
        said, when = results[0][recipe]
        assert said.startswith("UserError: ")
        assert "with f=1 needs n > 2 f, at least 3 rows, not 2" in said
        assert when == step or not step


def combined(worker: int) -> dict[tuple[str, bool], Any]:
    """What a rule makes of everybody's rows; worker 3 is away, and owes a model or does not."""
    rows = torch.arange(5.0)[None] * 10**worker
    results: dict[tuple[str, bool], Any] = {}
    for kind in ("gradient", "model", "monitoring"):
        for owes in (False, True):
            fleet = AttendedFleet(1)
            fleet.ledger.step = 1
            if worker == 3:
                fleet.purpose, fleet.owes = "look", owes
                assert fleet.answer(0, "control")
            fleet.roll_call()
            everyone = torch.ones(WORKERS, dtype=torch.bool)
            value = Median().combine(fleet, rows, kind, everyone)  # type: ignore[arg-type]
            results[kind, owes] = value, fleet.gave, fleet.ledger.sent(kind)[worker]
    return results


def test_rows_of_who_is_away_do_not_count_but_for_what_it_owes():
    for results in run_processes(combined, WORKERS, timeout=60):
        for (kind, owes), (value, gave, sent) in results.items():
            between = 55.0 if kind == "model" and owes else 10.0
            torch.testing.assert_close(value, torch.arange(5.0) * between)
            assert gave is (kind == "model")
            assert sent == (5 + 1) * 4


# -- steps that are skipped, and rows that are no numbers


def test_workers_stay_in_step_when_a_gradscaler_skips():
    names = ["synchronous", "local_sgd", "fda"]
    results = together(situations.overflow, names, workers=WORKERS, fused=False, watched=True)
    for recipe in names:
        same(results, recipe)
        assert [result[recipe]["steps"] for result in results] == [12] * WORKERS
    same(results, "synchronous", "own")  # who skipped has followed the others


def broken(worker: int, recipe: str) -> dict[str, Any]:
    """The last worker's gradients are NaN."""
    task, module = mlp_task(), model_of(mlp_task())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    shard = batches(task, worker, WORKERS)
    with tacit.attach(module, optimizer, RECIPES[recipe](), steps_per_epoch=4.0) as sync:
        for draw in range(9):
            loss = situations.loss_of(task, module, shard, draw)
            (loss * torch.nan if worker == WORKERS - 1 else loss).backward()
            optimizer.step()
            optimizer.zero_grad()
    return {"finished": vector(module), "synchronisations": sync.synchronisations}


def test_a_broken_worker_breaks_nothing_not_even_the_end():
    names = ["synchronous", "local_sgd", "local_sgd-overlap", "fda"]
    results = together(broken, names)
    for recipe in names:
        same(results, recipe)
        assert results[0][recipe]["synchronisations"] > 0


# -- islands


def flat(worker: int, steps: int) -> dict[str, Any]:
    RECIPES.update(OF_TWO)
    return {recipe: quarrels.islands_flat(worker, recipe, steps) for recipe in OF_TWO}


def two_islands(worker: int, runs: list[tuple[str, list[int]]]) -> list[dict[str, Any]]:
    RECIPES.update(OF_TWO)
    return [quarrels.islands(worker, recipe, False, steps) for recipe, steps in runs]


def test_islands_do_what_workers_with_larger_batches_do():
    four = run_processes(two_islands, 4, [(recipe, [10] * 4) for recipe in OF_TWO], timeout=60)
    two, _ = run_processes(flat, 2, 10, timeout=60)
    for results in four:
        for result, expected in zip(results, two.values(), strict=True):
            assert result["fired"] == expected["fired"] != []
            torch.testing.assert_close(result["finished"], expected["finished"])
            assert result["stats"]["bytes"]["model"] == expected["stats"]["bytes"]["model"]


def test_islands_and_their_members_may_run_out_of_data():
    runs = [(recipe, steps) for recipe in OF_TWO for steps in ([4, 4, 9, 9], [5, 8, 6, 3])]
    every = run_processes(two_islands, 4, runs, timeout=60)
    for results in every:
        for result, first, (_, steps) in zip(results, every[0], runs, strict=True):
            assert torch.equal(result["finished"], first["finished"])
            assert result["steps"] == max(steps)


def rows_of_islands(worker: int) -> dict[str, Any]:
    """Two islands of two; the second one is away. Rows of all sizes."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "island"))
    island = worker // 2
    results: dict[str, Any] = {}
    for n in (1, 7, 5001):
        fleet = IslandFleet(mesh["replica"].get_group(), mesh["island"].get_group())
        fleet.purpose = "look" if island else None
        row = torch.arange(float(n))[None] + 1 + 7 * island
        results[f"all {n}"] = fleet.gather_rows(row, "model")
        results[f"present {n}"] = fleet.gather_present(row, "model")
    calls, weights = torch.ones(1, dtype=torch.bool), torch.ones(1)

    def lead(star: Star) -> Any:
        raise UserError(f"{len(star.callers)} are too few")

    try:
        fleet.coordinate(row, calls, weights, lead)
    except (UserError, PeerError) as error:
        results["told"] = str(error)
    return results


def test_rows_between_islands():
    for results in run_processes(rows_of_islands, 4, timeout=60):
        for n in (1, 7, 5001):
            row = torch.arange(float(n)) + 1
            assert torch.equal(results[f"all {n}"], torch.stack([row, row + 7]))
            present, who = results[f"present {n}"]
            assert torch.equal(present, torch.stack([row, torch.zeros(n)]))
            assert who.tolist() == [True, False]
        assert results["told"] == "2 are too few"
