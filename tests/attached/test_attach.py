from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tacit
from helpers.loops import COMPRESSED_GRADIENTS, RECIPES, train
from helpers.spawn import run_processes
from helpers.tasks import mlp_task
from tacit.fleet import LocalFleet

STEPS = 22


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_attached_loop_does_what_the_simulation_does(recipe):
    workers, task = 2, mlp_task()
    method = replace(RECIPES[recipe](), optimizer=None)
    simulation = tacit.Simulation(task, method, LocalFleet(workers), execution="loop")
    fired = [step for step in range(1, STEPS + 1) if simulation.step()]
    consensus = simulation.consensus()[0]
    results = run_processes(train, workers, workers, recipe, STEPS)
    for worker, result in enumerate(results):
        assert result["fired"] == fired
        assert result["steps"] == STEPS
        torch.testing.assert_close(result["own"], simulation.replicas.parameters[worker])
        torch.testing.assert_close(result["consensus"], consensus)
        torch.testing.assert_close(result["finished"], consensus)
    ledger = simulation.fleet.ledger
    counts = {k: ledger.count(k) for k in results[0]["counts"]}
    if recipe in COMPRESSED_GRADIENTS:
        counts["gradient"] += STEPS  # messages of bytes come after a roll call
    assert results[0]["counts"] == counts
