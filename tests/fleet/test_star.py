"""Conversations with a coordinator: the same in one process and in several, and what they cost."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from helpers.collectives import rows
from helpers.shared import once
from helpers.spawn import run_processes, run_survivors
from tacit.errors import PeerError, PeerLost
from tacit.fleet import Fleet, Ledger, Link, LocalFleet, ProcessGroupFleet, Star
from tacit.fleet.conversation import Post
from tacit.fleet.star import CONTROL, Settled, charge

K, N = 6, 40

#: name: (the ranks, how many workers each hosts)
LAYOUTS = {
    "2 processes": ((0, 1), (3, 3)),
    "3+1+2": ((1, 2, 3), (3, 1, 2)),
    "4 processes": ((0, 1, 2, 3), (1, 2, 1, 2)),
    "1 process": ((2,), (6,)),
}
#: name: (who calls, whom the coordinator asks in turn, whether the result is everybody's)
SCRIPTS: dict[str, tuple[list[int], list[list[int]], bool]] = {
    "callers alone": ([1, 4], [], False),
    "one asked": ([2], [[5]], False),
    "waves": ([3], [[0], [4, 1]], False),
    "everyone": ([0, 1], [[2], [3, 4, 5]], True),
    "all call": ([0, 1, 2, 3, 4, 5], [], True),
    "nobody calls": ([], [[2, 3]], False),
}


def talk(fleet: Fleet, script: str) -> Settled:
    callers, waves, whole = SCRIPTS[script]

    def lead(star: Star) -> tuple[list[int], Tensor, bool]:
        assert np.flatnonzero(star.callers).tolist() == callers
        assert star.weights.tolist() == [k + 0.5 for k in range(K)]
        members, got = list(callers), [star.rows(callers)] if callers else []
        for wave in waves:
            got.append(star.rows(wave))
            members += wave
        return members, torch.cat(got).sum(0), whole

    calls = torch.tensor([k in callers for k in fleet.hosted])
    weights = torch.tensor([k + 0.5 for k in fleet.hosted])
    return fleet.coordinate(
        rows(K, N)[fleet.hosted.start : fleet.hosted.stop], calls, weights, lead
    )


def conversations(fleet: Fleet) -> tuple[list[Settled], dict[str, Any]]:
    return [talk(fleet, script) for script in SCRIPTS], fleet.ledger.state_dict()


def child(rank: int) -> dict[str, Any]:
    results = {}
    for name, (ranks, counts) in LAYOUTS.items():
        group = dist.new_group(list(ranks))
        if rank in ranks:
            fleet = ProcessGroupFleet(counts[ranks.index(rank)], group)
            results[name] = (fleet.hosted, *conversations(fleet))
    return results


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return once(tmp_path_factory, "star", lambda: run_processes(child, 4))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_process_learns_what_one_process_would(processes, name):
    expected, ledger = conversations(LocalFleet(K))
    for rank in LAYOUTS[name][0]:
        hosted, got, spent = processes[rank][name]
        for one, other in zip(got, expected, strict=True):
            assert np.array_equal(one.callers, other.callers)
            assert np.array_equal(one.members, other.members)
            assert (one.whole, one.waves) == (other.whole, other.waves)
            if one.receivers()[hosted.start : hosted.stop].any():
                assert torch.equal(one.combination, other.combination)
            elif 0 not in hosted:  # the coordinator is beside worker 0, and has it anyway
                assert one.combination is None
        for column, values in ledger["columns"].items():
            assert spent["columns"][column].tolist() == values.tolist(), column


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_it_costs(script):
    callers, waves, whole = SCRIPTS[script]
    fleet = LocalFleet(K)
    talk(fleet, script)
    members = len(callers) + sum(map(len, waves))
    row, ledger = 4 * N, fleet.ledger
    assert ledger.sent("model").sum() == members * row
    assert ledger.received("model").sum() == (K if whole else members) * row
    assert ledger.sent("control").sum() == len(callers) * CONTROL
    assert ledger.received("control").sum() == (members - len(callers)) * CONTROL
    assert ledger.sent("monitoring").sum() == (K - len(callers)) * CONTROL
    assert ledger.received("monitoring").sum() == K * (CONTROL + 2)  # two masks of 6 bits
    assert ledger.bytes() == ledger.ring_bytes() == ledger.by_round().sum()


def test_the_clock_knows_waves():
    """The coordinator's link carries every row; each wave is a question and its answer."""
    link = Link(bandwidth=8e6, latency=1.0)  # a byte is a microsecond

    def seconds(waves: int, members: int) -> float:
        ledger = Ledger(K)
        mask = np.arange(K)
        charge(ledger, Settled(mask == 0, mask < members, False, waves, None), 10**6)
        columns = (ledger.column(name) for name in ("operation", "payload", "participants"))
        return float(link.seconds(*columns).sum())

    quick, slow = seconds(1, 3), seconds(2, 3)
    assert slow == pytest.approx(quick + 2.0)  # there and back
    assert seconds(1, 4) == pytest.approx(quick + 2.0, abs=1e-3)  # a row up, a row down: 1 s each


def test_one_hop_for_nobody_takes_no_time():
    ledger = Ledger(3)
    ledger.upload("model", 100, np.zeros(3, bool))
    columns = (ledger.column(name) for name in ("operation", "payload", "participants"))
    assert Link(1e6, 1.0).seconds(*columns).tolist() == [0.0]


# -- what goes wrong


def misfits(rank: int) -> list[str]:
    fleet = ProcessGroupFleet(1)
    said = []
    for width, calls in ((N + (rank == 2), rank == 2), (N + (rank == 1), rank == 2)):
        try:
            fleet.coordinate(
                torch.zeros(1, width),
                torch.tensor([calls]),
                torch.ones(1),
                lambda star: ([], torch.zeros(N), False),
            )
        except PeerError as error:
            said.append(str(error))

    def refuse(star: Star) -> tuple[list[int], Tensor, bool]:
        star.rows([2])
        raise PeerError("worker 2 sent rubbish")

    for calls in (rank == 2, rank == 0):
        try:
            fleet.coordinate(torch.zeros(1, N), torch.tensor([calls]), torch.ones(1), refuse)
        except PeerError as error:
            said.append(str(error))
    # and after all this they still understand each other
    said.append(str(float(fleet.mean(torch.full((1, 3), float(rank)), "control")[0])))
    return said


def test_a_row_that_does_not_fit_is_named_in_every_process():
    for said in run_processes(misfits, 3):
        assert "worker 2 has a row of 41 numbers and the others of 40" in said[0]
        assert "worker 1 has a row of 41 numbers" in said[1]
        assert said[2:] == ["worker 2 sent rubbish"] * 2 + ["1.0"]


def bereaved(rank: int, gone: int) -> str:
    fleet = ProcessGroupFleet(1)
    if rank == gone:
        os._exit(0)
    try:
        fleet.coordinate(
            torch.zeros(1, 10**6),
            torch.tensor([rank == 1]),
            torch.ones(1),
            lambda star: ([0, 1, 2], star.rows([0, 1, 2]).sum(0), True),
        )
    except PeerLost as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("gone", [0, 2])
def test_a_process_that_is_gone(gone):
    for rank, said in enumerate(run_survivors(bereaved, 3, gone)):
        if rank != gone:
            assert "a peer is gone or did not answer in time" in said


def bereaved_in_the_middle(rank: int) -> tuple[str, float]:
    """Rank 1 is gone once the coordinator has everybody's report; when each of the others knows,
    though the coordinator's process goes on for a while."""
    fleet = ProcessGroupFleet(1)

    def lead(star: Star) -> tuple[list[int], Tensor, bool]:
        time.sleep(0.5)  # until rank 1 is gone
        return [0, 1], star.rows([0, 1]).sum(0), False

    if rank == 1:
        post = Post(fleet)
        post.wait([post.send(torch.tensor([[-float(N), 1.0]]).double(), 0)])
        time.sleep(0.2)
        os._exit(0)
    began, said = time.monotonic(), "nothing"
    try:
        fleet.coordinate(torch.zeros(1, N), torch.tensor([rank == 0]), torch.ones(1), lead)
    except PeerLost as error:
        said = str(error)
    took = time.monotonic() - began
    time.sleep(0 if rank else 3)
    return said, took


def test_all_who_are_left_know_at_once():
    results = run_survivors(bereaved_in_the_middle, 4)
    for rank in (0, 2, 3):
        said, took = results[rank]
        assert "a peer is gone or did not answer in time" in said
        assert took < 2.5
