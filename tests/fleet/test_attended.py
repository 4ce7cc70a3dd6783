"""Workers that are away, and messages of bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import tacit
from helpers.shared import once
from helpers.spawn import run_processes
from tacit.aggregators import Mean
from tacit.compression import Compression
from tacit.compressors import Identity, PerTensor, as_compressor
from tacit.fleet import AttendedFleet, Kind
from tacit.memory import EF21, Memory
from tacit.setting import Setting

K, N = 3, 40
AWAY = 2

#: name: (compressor, download); each loses nothing of rows with four entries.
WAYS: dict[str, tuple[str, str | None]] = {
    "gathered": ("topk(k=4)", None),
    "too long": ("whole", None),
    "reduced": ("randomk(density=1.0)", None),
    "coordinator": ("topk(k=4)", "topk(k=12)"),
}


def row(worker: int) -> Tensor:
    """Four entries, at places of its own."""
    vector = torch.zeros(N)
    vector[4 * worker : 4 * worker + 4] = torch.tensor([1.0, -2.0, 3.0, 4.0]) + worker
    return vector


def exchange(rank: int, way: str, kind: Kind, owes: bool, believes: bool) -> dict[str, Any]:
    """One exchange; the last worker is away, and owes a model or does not."""
    text, download = WAYS[way]
    # a sparse message of these rows is short, and the identity's are added in an all-reduce
    compressor = PerTensor(Identity()) if text == "whole" else as_compressor(text)
    assert compressor is not None
    fleet = AttendedFleet(1)
    vector = row(rank)[None]
    models: Any = SimpleNamespace(parameters=torch.zeros(1, N), gradients=vector)
    memory = EF21(start="zero") if believes else Memory()
    compression = Compression(compressor, memory, as_compressor(download))
    compression.start(fleet, models, Setting(K, N))
    fleet.ledger.step = 1
    if rank == AWAY:
        fleet.purpose, fleet.owes = "look", owes
        assert fleet.answer(0, kind)
    fleet.roll_call(kind)
    said = len(fleet.ledger)
    combined = compression.combine(vector, kind, torch.ones(K, dtype=torch.bool), Mean())
    return {
        "combined": combined,
        "took part": fleet.takes_part(kind),
        "gave": fleet.gave,
        "memory": [r[0].clone() for r in memory.rows().values()],
        "given up": compression.given_up,
        "operations": [event.operation for event in list(fleet.ledger)[said:]],
        "sent": fleet.ledger.sent(kind),
    }


def child(rank: int) -> dict[Any, Any]:
    cases: list[tuple[Kind, bool]] = [("gradient", False), ("model", False), ("model", True)]
    return {
        (way, kind, owes, believes): exchange(rank, way, kind, owes, believes)
        for way in WAYS
        for kind, owes in cases
        for believes in (False, True)
    }


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return once(tmp_path_factory, "away", lambda: run_processes(child, K, timeout=60))


@pytest.mark.filterwarnings("ignore:compressed messages")
@pytest.mark.parametrize("believes", [False, True])
@pytest.mark.parametrize(("kind", "owes"), [("gradient", False), ("model", False), ("model", True)])
@pytest.mark.parametrize("way", WAYS)
def test_who_is_away_sends_nothing_but_what_it_owes(processes, way, kind, owes, believes):
    results = [processes[rank][way, kind, owes, believes] for rank in range(K)]
    counted = range(K if owes else AWAY)
    together = torch.stack([row(worker) for worker in counted]).sum(0)
    # EF21 divides by those that train, of whom who is silent counts as one that sends zeros
    expected = together / (AWAY if believes else len(counted))
    for worker, result in enumerate(results):
        torch.testing.assert_close(result["combined"], expected)
        assert torch.equal(result["combined"], results[0]["combined"])
        assert result["took part"] is (worker in counted)
        assert result["gave"] is (kind == "model")
        assert result["given up"] == (way == "too long")
        assert (
            result["operations"]
            == {
                "gathered": ["gather", "gather"],
                "too long": ["gather", "reduce"],
                "reduced": ["reduce"],
                "coordinator": ["gather", "collect", "download", "download"],
            }[way]
        )
        if believes:
            believed = result["memory"][0]
            torch.testing.assert_close(believed, row(worker) * (worker in counted))
    if way in ("gathered", "coordinator") and not owes:
        roll_call = 6 * 4  # bytes: the word that a worker is away
        assert results[0]["sent"][AWAY] == roll_call
        assert (results[0]["sent"][:AWAY] > roll_call).all()


def nobody(rank: int) -> tuple[bool, bool, list[float]]:
    """Whether there was something to step with, while all skip and when one does not."""
    fleet = AttendedFleet(1)
    gradients = row(rank)[None]
    models: Any = SimpleNamespace(parameters=torch.zeros(1, N), gradients=gradients)
    recipe = tacit.ef21("topk(k=1)")
    assert recipe.gradients is not None
    recipe.gradients.start(fleet, models, Setting(K, N))
    everyone = torch.ones(K, dtype=torch.bool)
    fleet.ledger.step, fleet.has_gradient = 1, False
    first = recipe.gradients.step(everyone)
    fleet.ledger.step, fleet.has_gradient = 2, rank == 1
    return first, recipe.gradients.step(everyone), gradients[0].tolist()


def test_a_step_that_all_skip_is_no_first_step_of_ef21():
    """The first gradients still travel whole, though all scales were too large at first."""
    for first, second, gradient in run_processes(nobody, K, timeout=60):
        assert (first, second) == (False, True)
        assert gradient == pytest.approx((row(1) / K).tolist())
