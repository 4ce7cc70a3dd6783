"""Workers that go on without those who are silent: MoNNA in processes of its own."""

from __future__ import annotations

import time

import pytest
import torch

import tacit
from helpers.spawn import run_processes
from helpers.tasks import mlp_task
from tacit.errors import PeerLost
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
