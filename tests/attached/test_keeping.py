from __future__ import annotations

import pytest
import torch

from helpers import keeping
from helpers.loops import RECIPES
from helpers.spawn import run_processes
from tacit import checkpoint

STEPS = 13
DENSE = ["synchronous", "fda", "fda-late", "fda-averaged", "diloco"]
COMPRESSED = [
    "dgc",
    "ef21-both_ways",
    "ef21_w",
    "byz_ef21",
    "byz_ef21-both_ways",
    "compressed-lowrank",
    "fda-compressed",
]


@pytest.mark.parametrize(
    ("recipe", "through"),
    [
        *((name, "folder") for name in [*DENSE, *COMPRESSED]),
        *((name, "dcp") for name in [*DENSE, "ef21-both_ways", "byz_ef21", "compressed-lowrank"]),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(recipe, through, tmp_path):
    whole = run_processes(keeping.run, 2, 2, recipe, STEPS)
    for stop in (5, 7) if recipe == "fda-late" and through == "folder" else (7,):
        folder = str(tmp_path / f"{stop}")
        run_processes(keeping.run, 2, 2, recipe, stop, folder, (stop,), through)
        again = run_processes(keeping.run, 2, 2, recipe, STEPS, folder, (), through)
        for expected, got in zip(whole, again, strict=True):
            assert got["began"] == stop
            for key in ("own", "moments", "memory", "consensus", "statistics"):
                assert torch.equal(got[key], expected[key]), key
            for key in ("lr", "synchronisations", "events", "given up"):
                assert got[key] == expected[key], key
            assert expected["memory"].any() == (recipe in COMPRESSED)


@pytest.mark.parametrize("recipe", ["synchronous", "fda", "fda-late", "diloco"])
@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_workers_goes_on_from_the_consensus_model(recipe, workers, tmp_path):
    before = run_processes(keeping.run, 2, 2, recipe, 7, str(tmp_path), (7,))
    saved = torch.stack([r["own"] for r in before])
    after = run_processes(keeping.run, workers, workers, recipe, STEPS, str(tmp_path))
    for worker, result in enumerate(after):
        assert result["began"] == 7
        torch.testing.assert_close(result["first"], saved.mean(0))
        assert result["lr"] == after[0]["lr"]
        # workers that were there before have kept their optimizers' state; where all have the same
        # gradients they have the same state too, and stay equal
        kept = worker < 2 or recipe == "synchronous"
        assert result["updates"] == (STEPS if kept else STEPS - 7)
        assert torch.equal(result["consensus"], after[0]["consensus"])


@pytest.mark.parametrize("recipe", [name for name in COMPRESSED if name != "compressed-lowrank"])
@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_workers_takes_over_what_was_not_sent(recipe, workers, tmp_path):
    before = run_processes(keeping.run, 2, 2, recipe, 7, str(tmp_path), (7,))
    shared, _ = checkpoint.open_folder(tmp_path)
    mean = torch.stack([r["memory"] for r in before]).mean(0)
    if "ef21" in recipe:  # they begin at what has arrived
        direction = shared["gradients"]["memory"]["direction"]
        mean[: len(direction)] = direction
    saved = torch.stack([r["own"] for r in before]).mean(0)
    after = run_processes(keeping.run, workers, workers, recipe, STEPS, str(tmp_path))
    for result in after:
        assert result["began"] == 7
        torch.testing.assert_close(result["first"], saved)
        torch.testing.assert_close(result["first memory"], mean, rtol=1e-5, atol=1e-6)
        assert result["first memory"].any()
        assert torch.equal(result["consensus"], after[0]["consensus"])
        assert torch.isfinite(result["consensus"]).all()
        assert not torch.equal(result["consensus"], result["first"])


@pytest.mark.parametrize("recipe", ["ef21-both_ways", "fda-compressed"])
def test_what_the_coordinator_has_not_sent_may_be_lost_with_its_file(recipe, tmp_path):
    run_processes(keeping.run, 2, 2, recipe, 7, str(tmp_path), (7,))
    _, files = checkpoint.open_folder(tmp_path)
    files[0].unlink()
    after = run_processes(keeping.run, 2, 2, recipe, STEPS, str(tmp_path))
    assert torch.isfinite(after[0]["consensus"]).all()


def test_a_worker_whose_file_was_lost_starts_from_the_others(tmp_path):
    before = run_processes(keeping.run, 2, 2, "fda", 7, str(tmp_path), (7,))
    _, files = checkpoint.open_folder(tmp_path)
    files[1].unlink()
    after = run_processes(keeping.run, 2, 2, "fda", STEPS, str(tmp_path))
    for result in after:
        assert torch.equal(result["first"], before[0]["own"])


def test_dcp_with_another_number_of_workers_is_refused(tmp_path):
    run_processes(keeping.run, 2, 2, "fda", 7, str(tmp_path / "c"), (7,), "dcp")
    with pytest.raises(Exception, match="state is of 2 workers, here are 1"):
        run_processes(keeping.run, 1, 1, "fda", 8, str(tmp_path / "c"), (), "dcp")


def test_every_recipe_saves_at_any_step(tmp_path):
    for recipe in RECIPES:
        run_processes(keeping.run, 1, 1, recipe, 4, str(tmp_path / recipe), (1, 2, 3, 4))
        shared, workers = checkpoint.open_folder(tmp_path / recipe)
        assert shared["steps"] == 4
        assert list(workers) == [0]
