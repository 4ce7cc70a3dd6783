"""Golden traces: what each method does on a problem whose gradients involve no matrix products.

The loss of a worker is half the squared distance of its model to its samples, so the gradient is
``w - x`` and the traces are the same on every machine but for the last digits. Decisions and bytes
must match exactly, numbers to 1e-4. After a change that is meant to change them, write them anew:

    TACIT_WRITE_GOLDEN=1 pytest tests/test_golden.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tacit
from tacit.recipes import Recipe
from tacit.rng import numpy_stream
from tacit.tasks.data import TensorData
from tacit.tasks.task import Task

FOLDER = Path(__file__).parent / "golden"
WRITE = os.environ.get("TACIT_WRITE_GOLDEN") == "1"
K, D, STEPS, THETA = 4, 12, 24, 0.5
#: Where messages are compressed: a vector of 12 numbers is no longer than its message. In more
#: dimensions workers drift further apart.
WIDE, WIDE_THETA = 96, 4.0

RECIPES: dict[str, Callable[[], Recipe]] = {
    "synchronous": lambda: tacit.synchronous(),
    "synchronous-models": lambda: tacit.synchronous("models"),
    "local_sgd": lambda: tacit.local_sgd(period=5),
    "fda-linear": lambda: tacit.fda(THETA),
    "fda-naive": lambda: tacit.fda(THETA, "naive"),
    "fda-exact": lambda: tacit.fda(THETA, "exact"),
    "fda-sketch": lambda: tacit.fda(THETA, "sketch", rows=3, columns=8),
    "fda-lag": lambda: tacit.fda(THETA, lag=1),
    "fda-overlap": lambda: tacit.fda(THETA, every=2, lag=1, overlap=3),
    "fda-every-3": lambda: tacit.fda(THETA, every=3),
    "fda-state": lambda: tacit.fda(THETA, optimizer_state="average"),
    "local_sgd-overlap": lambda: tacit.local_sgd(period=5, overlap=2),
    "dynamic_averaging": lambda: tacit.dynamic_averaging(0.8, every=2),
    "dynamic_averaging-nearest": lambda: tacit.dynamic_averaging(
        0.8, every=2, augmentation="nearest", counter=False, weights="samples"
    ),
    "dynamic_averaging-hedge": lambda: tacit.dynamic_averaging(0.5, every=2, augmentation="hedge"),
    "continuous": lambda: tacit.continuous(),
    "periodic": lambda: tacit.periodic(period=7),
    "no_sync": lambda: tacit.no_sync(),
    "serial": lambda: tacit.serial(),
    "fedavg-period": lambda: tacit.fedavg(fraction=0.5, period=3),
    "fedavg": lambda: tacit.fedavg(fraction=0.5, epochs=1.0, lr=0.2),
    "fedavgm": lambda: tacit.fedavgm(epochs=1.0, lr=0.2),
    "fedadam": lambda: tacit.fedadam(fraction=0.5, epochs=1.0, lr=0.2, server_lr=0.1),
    "fedadagrad": lambda: tacit.fedadagrad(epochs=1.0, lr=0.2, server_lr=0.1),
    "diloco": lambda: tacit.diloco(period=5),
    "compressed-topk": lambda: tacit.compressed("topk(k=6)", feedback=True),
    "compressed-qsgd": lambda: tacit.compressed("qsgd", download="topk(k=24,values=int8)"),
    "compressed-randomk": lambda: tacit.compressed("randomk(k=24,scaled=true)"),
    "compressed-lowrank": lambda: tacit.compressed("lowrank", feedback=True),
    "dgc": lambda: tacit.dgc(
        0.06, nesterov=True, clip=3.0, warmup=2, weight_decay=0.01, per_tensor=False, lr=0.05
    ),
    "ef21": lambda: tacit.ef21("topk(k=6)"),
    "ef21-momentum": lambda: tacit.ef21("topk(k=6)", momentum=0.3, start="zero"),
    "ef21-both_ways": lambda: tacit.ef21("topk(k=6)", download="topk(k=12)"),
    "ef21-partial": lambda: tacit.ef21("topk(k=6)", fraction=0.5, lr=0.05, heavy_ball=0.5),
    "ef21_w": lambda: tacit.ef21_w("topk(k=6)", estimate=4),
    "byz_ef21": lambda: tacit.byz_ef21(1, compressor="topk(k=6)"),
    "byz_ef21-both_ways": lambda: tacit.byz_ef21(
        1, "trimmed_mean", "topk(k=6)", download="topk(k=12)", lr=0.05
    ),
    "rosdhb": lambda: tacit.rosdhb(1, density=0.25, lr=0.2),
    "monna": lambda: tacit.monna(1, 0.9, lr=0.2),
    "monna-all": lambda: tacit.monna(1, 0.9, 0.2, "all", "self_clipping(tau=0.5)"),
    "learn": lambda: tacit.learn(1, lr=0.05),
    "sparseloco": lambda: tacit.sparseloco(period=5, k=6, block=32),
    "local_sgd-compressed": lambda: tacit.local_sgd(5, compressor="topk(k=12,values=int8)"),
    "fda-compressed": lambda: tacit.fda(WIDE_THETA, compressor="topk(k=12)", download="topk(k=24)"),
}


class Point(nn.Module):
    """A model that is its parameters."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.w - x


def task(d: int) -> Task:
    """Workers pull in different directions: sample i is near one of four corners."""
    draw = numpy_stream(11, "golden")
    corners = draw.normal(size=(K, d))
    samples = corners.repeat(8, axis=0) + 0.3 * draw.normal(size=(8 * K, d))
    inputs = torch.from_numpy(samples.astype(np.float32))
    points = TensorData(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    return Task(
        "points",
        points,
        points,
        partial(Point, d),
        partial(torch.optim.SGD, lr=0.05, momentum=0.5),
        loss=lambda output, y: 0.5 * output.square().sum(dim=1).mean(),
        batch_size=2,
    )


def trace(recipe: Recipe) -> dict[str, Any]:
    parts = recipe.gradients or recipe.averaging
    d = D if parts.compression is None else WIDE
    simulation = tacit.Simulation(task(d), recipe, tacit.LocalFleet(K), seed=6)
    synchronised, estimates, norms, settled = [], [], [], []
    for step in range(1, STEPS + 1):
        if simulation.step():
            synchronised.append(step)
        averaging = recipe.averaging
        if averaging is not None and averaging.estimate is not None:
            estimates.append([step, float(f"{averaging.estimate:.6g}")])
        if averaging is not None and averaging.settled is not None:
            callers, members = averaging.settled.callers, averaging.settled.members
            settled.append(
                [step, np.flatnonzero(callers).tolist(), np.flatnonzero(members).tolist()]
            )
        if step % 4 == 0:
            rows = simulation.replicas.parameters.double().square().sum(dim=1).sqrt()
            norms.append([float(f"{norm:.6g}") for norm in rows.tolist()])
    ledger = simulation.fleet.ledger
    return {
        "synchronised": synchronised,
        "bytes": ledger.by_kind(),
        "ring_bytes": ledger.ring_bytes(),
        "sent_by_worker": ledger.sent().tolist(),
        "bytes_by_round": ledger.by_round().tolist(),
        "estimates": estimates,
        **({"callers_and_members": settled} if settled else {}),
        "norms_every_4_steps": norms,
    }


@pytest.mark.parametrize("name", RECIPES)
def test_trace(name):
    path, got = FOLDER / f"{name}.json", trace(RECIPES[name]())
    if WRITE:
        path.write_text(_json(got))
    expected = json.loads(path.read_text())
    assert got.keys() == expected.keys()
    for key in got.keys() - {"estimates", "norms_every_4_steps"}:
        assert got[key] == expected[key], key
    assert [step for step, _ in got["estimates"]] == [step for step, _ in expected["estimates"]]
    for key in ("estimates", "norms_every_4_steps"):
        np.testing.assert_allclose(got[key], expected[key], rtol=1e-4, atol=1e-7, err_msg=key)


def test_the_traces_say_something():
    """Thresholds are crossed now and then, and methods differ."""
    traces = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in RECIPES}
    for name, golden in traces.items():
        if name.startswith("fda"):
            assert 1 < len(golden["synchronised"]) < len(golden["estimates"]), name
            theta = WIDE_THETA if name == "fda-compressed" else THETA
            margins = [abs(estimate - theta) for _, estimate in golden["estimates"]]
            assert min(margins) > 1e-3 * theta, f"{name} hangs on a last digit"
    for name in ("dynamic_averaging", "dynamic_averaging-nearest"):
        sizes = {len(members) for _, _, members in traces[name]["callers_and_members"]}
        assert K in sizes, f"{name}: full synchronisations"
        assert sizes - {1, K}, f"{name}: partial ones"
    assert traces.pop("continuous") == traces["synchronous-models"]
    assert len({json.dumps(golden) for golden in traces.values()}) == len(traces)


def test_every_recipe_and_no_other_has_a_trace():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RECIPES)
    assert set(tacit.RECIPES) == {name.split("-")[0] for name in RECIPES}


def _json(value: dict[str, Any]) -> str:
    """One line for each entry: a change shows as one line in a diff."""
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
    return f"{{\n{lines}\n}}\n"
