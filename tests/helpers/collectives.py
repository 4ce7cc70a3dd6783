"""Every collective of a fleet on known rows, for comparing fleets with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import tacit.fleet.fleet
from tacit.errors import PeerError
from tacit.fleet import Fleet
from tacit.fleet.letters import Distrust
from tacit.rng import numpy_stream, torch_stream

SIZES = (0, 1, 5, 3000)  # the last one goes over a ring


def rows(workers: int, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """``(K, n)``: what every worker holds."""
    values = [torch.randn(n, generator=torch_stream(0, "row", k, n)) for k in range(workers)]
    return torch.stack(values).to(dtype)


def weights(workers: int) -> Tensor:
    """``(K,)``: worker 1 takes no part."""
    values = torch.arange(1, workers + 1, dtype=torch.float64)
    values[1 % workers] = 0.0
    values[0] = 2.5
    return values


def messages(workers: int) -> list[bytes]:
    """Unequal, and one of them empty."""
    draw = numpy_stream(0, "messages")
    return [draw.bytes(0 if k == 1 else int(draw.integers(1, 3000))) for k in range(workers)]


def refusals(fleet: Fleet, mine: Sequence[bytes]) -> list[str]:
    """What is said of messages longer than 10 bytes."""
    said = []
    for ask in (
        lambda: fleet.collect_bytes(mine, "model", 10),
        lambda: fleet.spread_bytes(b"eleven byte" if fleet.leader else None, "model", 10),
    ):
        try:
            ask()
        except PeerError as error:
            said.append(str(error))
    return said


def exercise(fleet: Fleet) -> dict[str, Any]:
    """The result of every collective by name, and the ledger after all of them."""
    workers = fleet.size
    hosted = slice(fleet.hosted.start, fleet.hosted.stop)
    results: dict[str, Any] = {}
    for n in SIZES:
        mine = rows(workers, n)[hosted]
        results[f"mean {n}"] = fleet.mean(mine, "model")
        results[f"max {n}"] = fleet.max(mine, "control")
        results[f"rows {n}"] = fleet.gather_rows(mine, "gradient").clone()
    results["mean float64"] = fleet.mean(rows(workers, 5, torch.float64)[hosted], "model")
    results["rows int64"] = fleet.gather_rows(rows(workers, 5, torch.int64)[hosted], "control")
    strided = rows(workers, 10)[hosted][:, ::2]
    results["mean strided"] = fleet.mean(strided, "model")
    results["rows strided"] = fleet.gather_rows(strided, "model").clone()

    chunk = tacit.fleet.fleet.CHUNK
    tacit.fleet.fleet.CHUNK = 7  # more columns than the deterministic mean gathers at a time
    try:
        results["mean in pieces"] = fleet.mean(rows(workers, 50)[hosted], "model")
    finally:
        tacit.fleet.fleet.CHUNK = chunk

    poisoned = rows(workers, 5)
    poisoned[1 % workers] = torch.nan  # takes no part where there is another worker
    if workers > 1:
        results["weighted"] = fleet.mean(poisoned[hosted], "model", weights(workers))
    only = torch.zeros(workers)
    only[-1] = 3.0
    results["one worker"] = fleet.mean(rows(workers, 5)[hosted], "model", only)

    late = fleet.mean_later(rows(workers, 3000)[hosted], "monitoring", overlap=1)
    later = fleet.mean_later(rows(workers, 5)[hosted], "monitoring", overlap=1)
    results["between"] = fleet.max(rows(workers, 5)[hosted], "control")
    results["later"] = later.wait().clone()
    results["late"] = late.wait().clone()
    results["late again"] = late.wait().clone()

    for name, who in (("nobody", -1), ("first", 0), ("last", workers - 1)):
        flags = torch.tensor([k == who for k in fleet.hosted])
        results[f"any {name}"] = fleet.any(flags, "control")

    every = messages(workers)
    results["bytes"] = fleet.gather_bytes(every[hosted], "gradient")
    results["no bytes"] = fleet.gather_bytes([b""] * len(fleet.hosted), "gradient")
    results["within"] = fleet.gather_within(every[hosted], "gradient", sum(map(len, every)))
    results["beyond"] = fleet.gather_within(every[hosted], "gradient", sum(map(len, every)) - 1)
    distrust = Distrust(1000, b"?")
    results["distrusted"] = fleet.gather_within(
        every[hosted], "evaluation", 1000 * workers, distrust
    )
    collected = fleet.collect_bytes(every[hosted], "evaluation", 10, distrust)
    assert (collected is not None) == fleet.leader
    believed = [m if len(m) <= 1000 else b"?" for m in every]
    assert results["distrusted"] == believed
    assert collected in (None, believed)
    for name, sent in (("collected", every[hosted]), ("nothing", [b""] * len(fleet.hosted))):
        collected = fleet.collect_bytes(sent, "model")
        assert (collected is not None) == fleet.leader
        own = b"".join(collected) if collected is not None else None
        results[name] = fleet.spread_bytes(own, "model")
    results["refused"] = refusals(fleet, every[hosted])
    results["broadcast"] = fleet.broadcast(rows(workers, 5)[0] * (0 in fleet.hosted), "control")
    fleet.barrier()
    results["ledger"] = fleet.ledger.state_dict()
    return results
