"""Made-up runs, so that a test can say what each of them did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tacit.config import RunConfig, parse_call
from tacit.runs import RunRecord

MakeRun = Callable[..., RunRecord]


def make_run(
    call: str,
    accuracies: Sequence[float],
    *,
    model: int = 0,
    gradient: int = 0,
    monitoring: int = 0,
    seconds: float | None = 1.0,
    checks: Sequence[Sequence[tuple[int, float | None, bool]]] = (),
    ended: bool = True,
    folder: str = "run",
    **settings: Any,
) -> RunRecord:
    """A run evaluated after steps 10, 20, ...; bytes and seconds are those between evaluations."""
    name, options = parse_call(call)
    config = dataclasses.asdict(RunConfig(name, options, **settings))
    rows = []
    for number, accuracy in enumerate(accuracies, start=1):
        spent = {"model": model, "gradient": gradient, "monitoring": monitoring, "control": 0}
        rows.append(
            {
                "step": 10 * number,
                "epoch": number / 2,
                "accuracy": accuracy,
                "loss": 1 - accuracy,
                "train_loss": 1 - accuracy,
                "synchronisations": number if model else 0,
                "bytes": {kind: number * count for kind, count in spent.items()},
                "ring_bytes": number * sum(spent.values()) * 9 // 10,
                "seconds": number * 0.5,
                "step_seconds": 0.05,
                "predicted_seconds": None if seconds is None else number * seconds,
                "checks": [list(check) for check in checks[number - 1]] if checks else [],
                "threshold": options.get("theta"),
            }
        )
    summary = {"finished": True, "error": None} if ended else {}
    return RunRecord(Path("runs") / folder, config, rows, summary)


@pytest.fixture
def comparison() -> list[RunRecord]:
    """Synchronous: 0.9 at step 30 for 3000 bytes. fda: 0.9 at step 40 for 4 x 25 bytes, of which
    20 are monitoring. local_sgd: never 0.9."""
    checks = [[(10 * n + s, 0.1 * s + 0.02 * n, s == 10) for s in range(1, 11)] for n in range(4)]
    return [
        make_run("synchronous", [0.3, 0.7, 0.9, 0.92], gradient=1000, seconds=10.0),
        make_run("fda:theta=1.0", [0.2, 0.6, 0.85, 0.91], model=20, monitoring=5, checks=checks),
        make_run("local_sgd:period=5", [0.2, 0.5, 0.8, 0.84], model=40),
    ]


def make_stream(
    call: str,
    losses: Sequence[float],
    *,
    sent: int = 0,
    every: int = 10,
    drifts: Sequence[int] = (),
    conversations: Sequence[tuple[int, int, int, bool]] = (),
    ended: bool = True,
    folder: str = "run",
    **settings: Any,
) -> RunRecord:
    """A run on a stream, with an evaluation after every 10 steps. ``losses``: of each step;
    every step has one wrong answer. ``sent``: bytes at each ``every``-th step."""
    name, options = parse_call(call)
    config = dataclasses.asdict(RunConfig(name, options, **{"task": "graphical", **settings}))
    rows = []
    for last in range(10, len(losses) + 1, 10):
        steps = range(last - 9, last + 1)
        spent = sent * (last // every)
        talks = [list(entry) for entry in conversations if entry[0] in steps]
        rows.append(
            {
                "step": last,
                "epoch": last / 2000,
                "accuracy": 0.8,
                "loss": 0.5,
                "train_loss": 0.5,
                "synchronisations": last // every if sent else 0,
                "bytes": {"model": spent, "gradient": 0, "monitoring": 0, "control": 0},
                "ring_bytes": spent,
                "seconds": last * 0.5,
                "step_seconds": 0.05,
                "predicted_seconds": float(last),
                "checks": [[step, called / 4, True] for step, called, *_ in talks],
                "threshold": None,
                "rounds": [[losses[step - 1], 1, sent * (step // every)] for step in steps],
                "drifts": [step for step in drifts if step in steps],
                "conversations": talks,
            }
        )
    summary = {"finished": True, "error": None} if ended else {}
    return RunRecord(Path("runs") / folder, config, rows, summary)


@pytest.fixture
def streams() -> list[RunRecord]:
    """40 steps with a drift at step 21. periodic: 80.0 for 4000 bytes. dynamic_averaging: 80.4 for
    400 bytes, with one full and two partial averages. serial and no_sync: nothing sent."""
    steps = {"drifts": [21]}
    talks = [(10, 1, 2, False), (21, 4, 4, True), (31, 2, 3, False)]
    return [
        make_stream("periodic:period=10", [2.0] * 40, sent=1000, **steps),
        make_stream(
            "dynamic_averaging:delta=1", [2.01] * 40, sent=100, conversations=talks, **steps
        ),
        make_stream("serial", [1.5] * 40, **steps),
        make_stream("no_sync", [3.0] * 40, **steps),
    ]
