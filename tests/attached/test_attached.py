"""What happens to users' training loops."""

from __future__ import annotations

import pytest
import torch

from helpers import situations
from helpers.loops import COMPRESSED_GRADIENTS
from helpers.spawn import run_processes

ALL = [
    "synchronous",
    "local_sgd",
    "local_sgd-overlap",
    "fda",
    "fda-late",
    "fda-averaged",
    "dynamic",
    "dynamic-samples",
    "no_sync",
    "diloco",
]
COMPRESSED = [
    "compressed-randomk",
    "dgc",
    "ef21-both_ways",
    "ef21-partial",
    "ef21_w",
    "byz_ef21",
    "byz_ef21-both_ways",
    "rosdhb",
    "local_sgd-compressed",
    "fda-compressed",
]


def same(results, key="finished"):
    for other in results[1:]:
        torch.testing.assert_close(other[key], results[0][key], rtol=0, atol=0)
    return results[0][key]


# -- workers with different amounts of data


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        *((name, steps) for name in ALL for steps in ([5, 9], [9, 5], [4, 0, 11])),
        *((name, steps) for name in COMPRESSED for steps in ([5, 9], [4, 0, 11])),
    ],
    ids=str,
)
def test_who_runs_out_of_data_waits_for_the_others(recipe, steps):
    epochs = 2
    results = run_processes(
        situations.unequal, len(steps), len(steps), recipe, steps, epochs, None, timeout=60
    )
    finished = same(results)
    assert torch.isfinite(finished).all()
    assert {r["steps"] for r in results} == {max(steps) * epochs}
    for k in range(epochs):
        for r in results[1:]:
            assert torch.equal(r["seen"][k], results[0]["seen"][k])
    assert torch.equal(results[0]["seen"][-1], finished)


def test_a_worker_without_data_is_no_part_of_the_direction_for_ever():
    """EF21 keeps what it believes of a worker; of one that is done, that would be its last gradient
    at every step. Without compression EF21 is synchronous SGD, so it must end where that does."""
    ends = {}
    for recipe in ("synchronous", "ef21-identity"):
        results = run_processes(situations.unequal, 2, 2, recipe, [4, 25], 2, None, timeout=60)
        ends[recipe] = same(results)
    torch.testing.assert_close(ends["ef21-identity"], ends["synchronous"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", ["synchronous", "fda-late", "ef21-both_ways", "fda-compressed"])
def test_a_worker_that_waits_also_helps_to_save(recipe, tmp_path):
    results = run_processes(situations.unequal, 2, 2, recipe, [3, 10], 1, str(tmp_path), timeout=60)
    same(results)
    assert (tmp_path / "latest").read_text() == "step-000000009"
    assert len(list((tmp_path / "step-000000009").iterdir())) == 3


# -- mixed precision


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("recipe", [*ALL, *COMPRESSED[:4]])
def test_workers_stay_in_step_when_a_gradscaler_skips(recipe, fused):
    results = run_processes(situations.overflow, 3, 3, recipe, fused, True, timeout=60)
    assert torch.isfinite(same(results)).all()
    if recipe in ("synchronous", *COMPRESSED_GRADIENTS):
        same(results, "own")  # who skipped has followed the others
    assert [r["steps"] for r in results] == [12] * 3
    assert results[1]["scale"] < results[0]["scale"]
    assert not any(r["wrapped"] for r in results)


@pytest.mark.parametrize("recipe", ["synchronous", "fda"])
def test_without_the_scaler_the_others_wait_for_the_next_step(recipe):
    results = run_processes(situations.overflow, 2, 2, recipe, False, False, timeout=60)
    assert torch.isfinite(same(results)).all()
    assert [r["steps"] for r in results] == [11, 11]


# -- parameters of every kind


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("recipe", ["synchronous", "fda", "local_sgd-overlap", "compressed-topk"])
def test_tied_frozen_unused_and_sometimes_used_parameters(recipe, views):
    results = run_processes(situations.odd_parameters, 2, 2, recipe, views)
    same(results)
    if recipe in ("synchronous", "compressed-topk"):
        same(results, "own")
    for r in results:
        assert r["frozen unchanged"]
        assert r["tied"]
        assert r["back"]
        assert not r["unused gradient"]
        assert torch.equal(r["unused"], torch.ones(3))
        assert not torch.equal(r["sometimes"], torch.ones(6))
        assert any(r["moved"]) is views


@pytest.mark.parametrize("compiled", [False, True])
def test_accumulation_schedules_buffers_and_compiled_models(compiled):
    results = run_processes(situations.accumulate, 2, 2, "fda", compiled, timeout=120)
    same(results)
    for r in results:
        assert r["steps"] == 8
        assert r["lr"] == [0.1 * 0.25]
    mean = torch.stack([r["own statistics"] for r in results]).mean(0)
    torch.testing.assert_close(same(results, "consensus statistics"), mean)
    assert not torch.equal(results[0]["own statistics"], results[1]["own statistics"])
