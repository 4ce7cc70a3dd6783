"""Workers that are several processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from helpers import quarrels
from helpers.collectives import refusals
from helpers.spawn import run_processes
from tacit.fleet import IslandFleet

DENSE = ["fda", "fda-late", "dynamic", "local_sgd", "diloco"]
COMPRESSED = ["fda-random", "local_sgd-random", "local_sgd-compressed"]


@pytest.mark.parametrize(
    ("recipe", "ddp"),
    [*((name, ddp) for name in DENSE for ddp in (False, True)), *((n, False) for n in COMPRESSED)],
)
def test_two_islands_of_two_do_what_two_workers_with_larger_batches_do(recipe, ddp):
    four = run_processes(quarrels.islands, 4, recipe, ddp, [12] * 4)
    two = run_processes(quarrels.islands_flat, 2, recipe, 12)
    for island in (0, 1):
        one, other = four[2 * island : 2 * island + 2]
        assert torch.equal(one["rows"], other["rows"])
    assert not torch.equal(four[0]["rows"], four[2]["rows"])
    for result in four:
        assert result["fired"] == two[0]["fired"]
        torch.testing.assert_close(result["finished"], two[0]["finished"])
        # an island counts as one worker, whose model crosses once
        assert result["stats"]["bytes"]["model"] == two[0]["stats"]["bytes"]["model"]


@pytest.mark.parametrize(
    "recipe", ["fda", "dynamic", "local_sgd", "local_sgd-overlap", "fda-compressed"]
)
@pytest.mark.parametrize("steps", [[4, 4, 9, 9], [9, 9, 5, 5], [5, 8, 6, 3], [1, 5, 1, 1]], ids=str)
def test_islands_and_their_members_may_run_out_of_data(recipe, steps):
    results = run_processes(quarrels.islands, 4, recipe, False, steps, timeout=60)
    for result in results:
        assert (result["finished"] == 0).sum() == 0
        assert torch.equal(result["finished"], results[0]["finished"])
        assert result["steps"] == max(steps)


def bytes_of_islands(rank: int) -> dict[str, Any]:
    """Two islands of two; the second one's message is longer."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "island"))
    fleet = IslandFleet(mesh["replica"].get_group(), mesh["island"].get_group())
    message = [b"first"] if rank < 2 else [b"the second"]
    results: dict[str, Any] = {
        "gathered": fleet.gather_within(message, "model", 15),
        "too long": fleet.gather_within(message, "model", 14),
        "none": fleet.gather_within([b""], "model"),
        "collected": fleet.collect_bytes(message, "model"),
        "leader": fleet.leader,
    }
    answer = b"coordinator" if fleet.leader else None
    results["spread"] = fleet.spread_bytes(answer, "model")
    results["nothing spread"] = fleet.spread_bytes(b"" if fleet.leader else None, "model")
    results["sent"] = fleet.ledger.sent("model").tolist()
    results["refused"] = refusals(fleet, [b"much too long"])
    return results


def test_bytes_between_islands():
    every = run_processes(bytes_of_islands, 4, timeout=60)
    for rank, results in enumerate(every):
        assert results["gathered"] == [b"first", b"the second"]
        assert results["too long"] is None
        assert results["none"] == [b"", b""]
        assert results["leader"] is (rank == 0)
        assert results["collected"] == (None if rank else [b"first", b"the second"])
        assert results["spread"] == b"coordinator"
        assert results["nothing spread"] == b""
        assert results["sent"] == [10, 20]  # an island is one worker
        who = [said.split(" announces")[0] for said in results["refused"]]
        assert who == ["worker 0", "the coordinator"]


def test_all_of_an_island_are_told_that_a_model_was_refused():
    for said, took in run_processes(quarrels.poisoned_island, 4, timeout=60):
        assert "worker 1 sent a model that is not finite" in said
        assert took < 10
