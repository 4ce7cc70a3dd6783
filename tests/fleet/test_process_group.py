"""The collectives over gloo processes give what they give in one process, in every layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from helpers.collectives import exercise
from helpers.shared import once
from helpers.spawn import run_processes
from tacit.errors import UserError
from tacit.fleet import LocalFleet, ProcessGroupFleet

#: name: (the ranks, how many workers each hosts)
LAYOUTS = {
    "2 processes": ((0, 1), (3, 3)),
    "2 unequal": ((2, 3), (2, 4)),
    "3+1+2": ((0, 1, 2), (3, 1, 2)),
    "4 processes": ((0, 1, 2, 3), (1, 2, 1, 2)),
    "one worker each": ((0, 1, 2, 3), (1, 1, 1, 1)),
    "1 process": ((3,), (6,)),
}
PROCESSES = 4


def child(rank: int) -> dict[Any, Any]:
    results: dict[Any, Any] = {}
    for name, (ranks, counts) in LAYOUTS.items():
        group = dist.new_group(list(ranks))
        if rank not in ranks:
            continue
        workers = counts[ranks.index(rank)]
        for deterministic in (False, True):
            fleet = ProcessGroupFleet(workers, group, deterministic=deterministic)
            results[name, deterministic] = exercise(fleet)
            total = fleet.total(torch.tensor([1.0, float(workers)], dtype=torch.float64))
            results[name, deterministic].update(
                hosted=fleet.hosted, size=fleet.size, leader=fleet.leader, total=total.tolist()
            )
    try:
        ProcessGroupFleet(0 if rank == 2 else 1)
    except UserError as error:
        results["nobody hosted"] = str(error)
    return results


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return once(tmp_path_factory, "collectives", lambda: run_processes(child, PROCESSES))


@pytest.fixture(scope="module")
def local():
    return {size: exercise(LocalFleet(size)) for size in (4, 6)}


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_process_gets_what_one_process_would(processes, local, name, deterministic):
    ranks, counts = LAYOUTS[name]
    expected = local[sum(counts)]
    for rank in ranks:
        results = processes[rank][name, deterministic]
        for operation, value in expected.items():
            if operation == "ledger":
                continue
            if isinstance(value, torch.Tensor):
                exact = deterministic or not value.is_floating_point()
                tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-6}
                torch.testing.assert_close(
                    results[operation], value, **tolerance, msg=f"{operation} on rank {rank}"
                )
            else:
                assert results[operation] == value, operation


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_ledger_is_the_same_in_every_layout(processes, local, name, deterministic):
    ranks, counts = LAYOUTS[name]
    expected = local[sum(counts)]["ledger"]
    for rank in ranks:
        ledger = processes[rank][name, deterministic]["ledger"]
        assert ledger["step"] == expected["step"]
        for table in ("columns", "sent", "received"):
            for column, values in expected[table].items():
                assert ledger[table][column].tolist() == values.tolist(), (table, column)


@pytest.mark.parametrize("name", LAYOUTS)
def test_who_hosts_whom(processes, name):
    ranks, counts = LAYOUTS[name]
    hosted = [processes[rank][name, False]["hosted"] for rank in ranks]
    assert [len(part) for part in hosted] == list(counts)
    assert [worker for part in hosted for worker in part] == list(range(sum(counts)))
    assert [processes[rank][name, False]["leader"] for rank in ranks] == [
        place == 0 for place in range(len(ranks))
    ]
    for rank in ranks:
        assert processes[rank][name, False]["size"] == sum(counts)
        assert processes[rank][name, False]["total"] == [len(ranks), sum(counts)]


def gathers(rank: int) -> dict[str, Any]:
    """What travels while bytes are gathered, 3 of the 5 workers in process 1: the collectives that
    are called, with the bytes that each gives every process."""
    fleet = ProcessGroupFleet((1, 3, 1)[rank])
    mine = [b"first"] if rank == 0 else [b"a", b"", b"long" * 9000] if rank == 1 else [b"xy"]
    real, calls = dist.all_to_all_single, []

    def watched(received, sent, *sizes, group):
        calls.append((sent.numel() * sent.element_size() // 3, received.numel()))
        return real(received, sent, *sizes, group=group)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("this one goes round a ring")

    names = ("all_gather", "all_gather_into_tensor", "all_gather_single", "all_reduce", "broadcast")
    kept = {name: getattr(dist, name) for name in names if hasattr(dist, name)}
    for name in kept:
        setattr(dist, name, refused)
    dist.all_to_all_single = watched
    try:
        got = fleet.gather_bytes(mine, "gradient")
    finally:
        dist.all_to_all_single = real
        for name, function in kept.items():
            setattr(dist, name, function)
    return {"got": got, "calls": calls}


def test_bytes_are_gathered_in_two_hops_and_not_padded():
    for rank, results in enumerate(run_processes(gathers, 3, timeout=60)):
        assert results["got"] == [b"first", b"a", b"", b"long" * 9000, b"xy"]
        own = (5, 36_001, 2)[rank]
        # the lengths of the hosted workers' messages, then these
        assert results["calls"] == [(8 * (1, 3, 1)[rank], 5), (own, 5 + 36_001 + 2)]


def test_a_process_without_workers_is_an_error_in_every_process(processes):
    for results in processes:
        assert "at least 1 worker" in results["nobody hosted"]
        assert "[1, 1, 0, 1]" in results["nobody hosted"]


def test_torch_distributed_comes_first():
    with pytest.raises(UserError, match="init_process_group"):
        ProcessGroupFleet(1)


def test_a_failing_process_ends_the_others():
    with pytest.raises(Exception, match="rank 1 gives up"):
        run_processes(_fail_or_wait, 2, timeout=60)


def _fail_or_wait(rank: int) -> None:
    if rank == 1:
        raise RuntimeError("rank 1 gives up")
    dist.barrier()
