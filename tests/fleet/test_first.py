"""Workers that go on without those who are silent: MoNNA in processes of its own."""

from __future__ import annotations

import copy
import time

import pytest
import torch

import tacit
from helpers.spawn import run_processes
from helpers.tasks import mlp_task
from tacit.errors import PeerLost, UserError
from tacit.fleet import Fleet

N, STEPS = 4, 12


def simulation(fleet: Fleet, f: int) -> tacit.Simulation:
    return tacit.Simulation(mlp_task(), tacit.monna(f, momentum=0.9), fleet, seed=3)


def of_all(rank: int) -> torch.Tensor:
    run = simulation(tacit.ProcessGroupFleet(), 0)
    for _ in range(STEPS):
        run.step()
    return run.replicas.parameters[0].clone()


def test_with_nobody_silent_it_is_the_simulation() -> None:
    """f = 0: a worker waits for all, so which come first does not matter."""
    models = run_processes(of_all, N)
    run = simulation(tacit.LocalFleet(N), 0)
    for _ in range(STEPS):
        run.step()
    for worker, model in enumerate(models):
        torch.testing.assert_close(model, run.replicas.parameters[worker], rtol=1e-5, atol=1e-6)


def wider() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 24), torch.nn.Tanh(), torch.nn.Linear(24, 3))


def one_run_after_the_other(rank: int) -> list[torch.Tensor]:
    """On the same fleet, without a new recipe, with a new one and with another model."""
    fleet, recipe, ends = tacit.ProcessGroupFleet(), tacit.monna(0, momentum=0.9), []
    for task in (mlp_task(), mlp_task(), mlp_task(model=wider)):
        run = tacit.Simulation(task, recipe, fleet, seed=3)
        for _ in range(STEPS):
            run.step()
        ends.append(run.replicas.parameters[0].clone())
    return ends


def test_a_run_hears_nothing_of_the_one_before() -> None:
    ends = run_processes(one_run_after_the_other, N)
    for number, task in enumerate((mlp_task(), mlp_task(), mlp_task(model=wider))):
        run = tacit.Simulation(task, tacit.monna(0, momentum=0.9), tacit.LocalFleet(N), seed=3)
        for _ in range(STEPS):
            run.step()
        for worker, models in enumerate(ends):
            expected = run.replicas.parameters[worker]
            torch.testing.assert_close(models[number], expected, rtol=1e-5, atol=1e-6)


def two_at_a_time(rank: int) -> list[torch.Tensor]:
    fleet = tacit.ProcessGroupFleet()
    runs = [simulation(fleet, 0) for _ in range(2)]
    for step in range(STEPS):
        for number, run in enumerate(runs):
            if number == 0 or step % 2:
                run.step()
    return [run.replicas.parameters[0].clone() for run in runs]


def back_to_a_checkpoint(rank: int, recipe: str) -> tuple[torch.Tensor, torch.Tensor]:
    run = tacit.Simulation(mlp_task(), RECIPES[recipe](), tacit.ProcessGroupFleet(), seed=3)
    for step in range(STEPS):
        if step == 4:
            shared, own = copy.deepcopy((run.shared_state(), {rank: run.worker_state(rank)}))
        run.step()
    first = run.replicas.parameters[0].clone()
    with torch.no_grad():
        run.replicas.parameters.add_(1.0)
    run.load_state(shared, own)
    assert run.steps == 4
    for _ in range(STEPS - 4):
        run.step()
    return first, run.replicas.parameters[0].clone()


RECIPES = {
    "monna": lambda: tacit.monna(0, momentum=0.9),
    "learn": lambda: tacit.learn(0),
}


def test_two_runs_at_a_time_do_not_mix() -> None:
    ends = run_processes(two_at_a_time, N)
    run = simulation(tacit.LocalFleet(N), 0)
    states = []
    for _ in range(STEPS):
        run.step()
        states.append(run.replicas.parameters.clone())
    for worker, (whole, half) in enumerate(ends):
        torch.testing.assert_close(whole, states[-1][worker], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(half, states[STEPS // 2 - 1][worker], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_goes_back_to_a_checkpoint(recipe: str) -> None:
    for first, again in run_processes(back_to_a_checkpoint, N, recipe):
        torch.testing.assert_close(again, first, rtol=1e-5, atol=1e-6)


def step_by_step_again(rank: int) -> str:
    """A step that goes back without a new run."""
    run = simulation(tacit.ProcessGroupFleet(), 0)
    for _ in range(3):
        run.step()
    run.steps = 1
    try:
        run.step()
    except UserError as error:
        return str(error)
    return "went on"


def test_a_step_that_goes_back_is_an_error() -> None:
    for said in run_processes(step_by_step_again, N):
        assert "step 3 was sent before this one of step 2" in said


def with_a_dead_one(rank: int) -> tuple[int, bool]:
    run = simulation(tacit.ProcessGroupFleet(), 1)
    for step in range(STEPS):
        if rank == 2 and step == 4:
            break
        run.step()
    return run.steps, bool(run.replicas.parameters.isfinite().all())


def test_the_others_go_on_without_one_that_ends() -> None:
    ends = run_processes(with_a_dead_one, N)
    assert [steps for steps, _ in ends] == [STEPS, STEPS, 4, STEPS]
    assert all(finite for _, finite in ends)


def with_a_slow_one(rank: int) -> float:
    run = simulation(tacit.ProcessGroupFleet(), 1)
    began = time.perf_counter()
    for _ in range(STEPS):
        if rank == 3:
            time.sleep(0.25)
        run.step()
    return time.perf_counter() - began


def test_a_slow_one_holds_nobody_up() -> None:
    seconds = run_processes(with_a_slow_one, N)
    assert max(seconds[:3]) < seconds[3] - 1


def with_two_dead_ones(rank: int) -> str:
    run = simulation(tacit.ProcessGroupFleet(), 1)
    try:
        for step in range(STEPS):
            if rank < 2 and step == 4:
                return "ended"
            run.step()
    except PeerLost as error:
        return str(error)
    return "went on"


def test_with_too_many_gone_the_error_says_who() -> None:
    ends = run_processes(with_two_dead_ones, N)
    assert ends[:2] == ["ended", "ended"]
    assert all("worker 0" in end or "worker 1" in end for end in ends[2:]), ends


@pytest.mark.parametrize("workers", [2])
def test_workers_that_share_a_process_draw(workers: int) -> None:
    """Where nobody is late, whose models a worker holds is drawn, the same in every layout."""
    models = run_processes(_shared, 2)
    run = simulation(tacit.LocalFleet(2 * workers), 1)
    for _ in range(STEPS):
        run.step()
    together = torch.cat(models)
    torch.testing.assert_close(together, run.replicas.parameters, rtol=1e-5, atol=1e-6)


def _shared(rank: int) -> torch.Tensor:
    run = simulation(tacit.ProcessGroupFleet(2), 1)
    for _ in range(STEPS):
        run.step()
    return run.replicas.parameters.clone()
