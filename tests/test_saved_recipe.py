"""A checkpoint belongs to its recipe."""

from __future__ import annotations

import pytest

import tacit
from helpers.tasks import mlp_task
from tacit.errors import UserError


def saved(recipe: tacit.Recipe) -> tuple[dict, dict]:
    run = tacit.Simulation(mlp_task(), recipe, tacit.LocalFleet(2))
    run.step()
    return run.shared_state(), {worker: run.worker_state(worker) for worker in range(2)}


@pytest.mark.parametrize("other", [tacit.fda, tacit.synchronous, tacit.ef21])
def test_another_recipe_is_refused(other):
    run = tacit.Simulation(mlp_task(), other(), tacit.LocalFleet(2))
    with pytest.raises(UserError, match=f"of recipe dgc, not of {other.__name__}"):
        run.load_state(*saved(tacit.dgc(lr=0.1)))


def test_another_option_is_refused_where_the_state_does_not_fit():
    run = tacit.Simulation(mlp_task(), tacit.dgc(lr=0.1, weight_decay=0.1), tacit.LocalFleet(2))
    with pytest.raises(UserError, match="of another recipe, or of other options"):
        run.load_state(*saved(tacit.dgc(lr=0.1)))


def test_a_checkpoint_from_before_compression_is_still_read():
    shared, workers = saved(tacit.synchronous())
    del shared["gradients"], shared["recipe"]
    for state in workers.values():
        del state["gradients"]
    run = tacit.Simulation(mlp_task(), tacit.synchronous(), tacit.LocalFleet(2))
    run.load_state(shared, workers)
    assert run.steps == 1
    run.step()
