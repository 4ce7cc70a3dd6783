"""A peer dies, or hangs."""

from __future__ import annotations

import pytest
import torch

from helpers import quarrels
from helpers.spawn import run_processes, run_survivors
from tacit import checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dies", "hangs"])
@pytest.mark.parametrize("recipe", ["synchronous", "fda", "fda-averaged", "dynamic"])
def test_the_others_stop_in_time_name_the_rank_and_leave_a_checkpoint(recipe, how, tmp_path):
    results = run_survivors(quarrels.lose, 3, 3, recipe, how, str(tmp_path), timeout=60)
    assert results[1] is None
    for result in (results[0], results[2]):
        assert "rank 1 of 3 did not answer at step" in result["error"]
        assert "saved in" in result["error"]
        assert "\n" not in result["error"]
        assert result["seconds"] < 3 + 10 + 5
    shared, files = checkpoint.open_folder(tmp_path)
    assert sorted(files) == [0, 2]
    assert shared["steps"] in range(5, 10)
    own = checkpoint.load(files[0])["model"]["parameters"]
    assert torch.equal(own, results[0]["own"])


@pytest.mark.parametrize("recipe", ["compressed-topk", "ef21-both_ways"])
def test_a_gradient_that_is_not_finite_is_named_to_everybody(recipe):
    """Whether all hear it from worker 1, or from the coordinator."""
    for said in run_processes(quarrels.poison, 3, 3, recipe, timeout=60):
        assert "what worker 1 has to send is not finite at step 3" in said
        assert "\n" not in said


def test_a_model_that_is_not_finite_is_named_to_everybody():
    """Worker 1's loss overflows; the coordinator, beside worker 0, refuses its model."""
    results = run_processes(quarrels.poison, 3, 3, "dynamic")
    for said in results:
        assert "worker 1 sent a model that is not finite at step 4" in said
        assert "\n" not in said
