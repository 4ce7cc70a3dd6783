"""What the experiments on streams share: run a sweep in a few processes, and say what it shows."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import _cells
import numpy as np
import torch

import tacit
from tacit.config import RunConfig, parse_call
from tacit.tasks import load

__all__ = ["Case", "Outcome", "check", "finish", "pooled", "show", "sweep"]

check = _cells.check


@dataclass(frozen=True)
class Case:
    """One run. ``lr``: of SGD, if not the task's."""

    task: str
    recipe: str
    workers: int
    rounds: int
    seed: int
    model: str | None = None
    lr: float | None = None


@dataclass
class Outcome:
    """``losses``, ``bytes``: of each round, ``(T,)``; all learners together. ``mistakes``: wrong
    answers in all, to so many ``samples``. ``accuracy``: of the mean model at the end. ``events``:
    full and partial synchronisations. ``by_kind``: bytes of each kind."""

    case: Case
    losses: np.ndarray
    bytes: np.ndarray
    mistakes: int
    samples: int
    accuracy: float
    events: tuple[int, int]
    by_kind: dict[str, int]
    drifts: list[int]
    seconds: float

    @property
    def loss(self) -> float:
        """Cumulative loss of all learners."""
        return float(self.losses.sum())

    @property
    def total(self) -> int:
        """Charged bytes, monitoring included."""
        return int(self.bytes.sum())

    @property
    def event_driven(self) -> int:
        """Bytes as the paper counts them, where nobody needs to say that nothing has happened.
        What FDA's workers say at a check is no such thing: it decides."""
        silent = self.family == "dynamic_averaging"
        return self.total - (self.by_kind["monitoring"] if silent else 0)

    @property
    def family(self) -> str:
        return parse_call(self.case.recipe)[0]

    def summary(self) -> dict[str, Any]:
        """For the results file."""
        return {
            **dataclasses.asdict(self.case),
            "cumulative_loss": round(self.loss, 3),
            "error": round(self.mistakes / self.samples, 5),
            "bytes": self.total,
            "event_driven_bytes": self.event_driven,
            "by_kind": self.by_kind,
            "full": self.events[0],
            "partial": self.events[1],
            "final_accuracy": round(self.accuracy, 4),
        }


def run(case: Case) -> Outcome:
    """One run, in this process."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    config = RunConfig(*parse_call(case.recipe), task=case.task)
    task = load(case.task, case.model)
    if case.lr is not None:
        task = dataclasses.replace(task, optimizer=partial(torch.optim.SGD, lr=case.lr))
    simulation = tacit.Simulation(
        task, config.build_recipe(), tacit.LocalFleet(case.workers), seed=case.seed
    )
    assert simulation.stream is not None
    *_, end = simulation.run(case.rounds, evaluate_every=case.rounds)
    spent = np.array([total for _, _, total in end.rounds], np.int64)
    full = sum(whole for *_, whole in end.conversations)
    return Outcome(
        case,
        np.array([loss for loss, _, _ in end.rounds]),
        np.diff(spent, prepend=0),
        sum(wrong for _, wrong, _ in end.rounds),
        sum(simulation.stream.sizes) * case.rounds,
        end.accuracy,
        (full or _averages(end), len(end.conversations) - full),
        end.bytes,
        end.drifts,
        time.perf_counter() - began,
    )


def _averages(end: tacit.Evaluation) -> int:
    """Averages of all models, where no coordinator keeps count."""
    return end.synchronisations if end.bytes["model"] and not end.conversations else 0


def sweep(cases: Sequence[Case], processes: int) -> list[Outcome]:
    """All runs, in their order; a line for each as it ends."""
    outcomes: dict[Case, Outcome] = {}
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, len(cases))) as pool:
        # the dearest first, so that no process is left with one at the end
        order = sorted(cases, key=lambda case: -case.workers * case.rounds)
        for outcome in pool.imap_unordered(run, order, chunksize=1):
            outcomes[outcome.case] = outcome
            print(
                f"{len(outcomes):3d}/{len(cases)} {time.perf_counter() - began:6.0f} s  "
                f"{outcome.case.workers:3d} learners, seed {outcome.case.seed}, "
                f"{outcome.case.recipe}: loss {outcome.loss:,.0f}, {outcome.total / 1e6:,.2f} MB",
                file=sys.stderr,
                flush=True,
            )
    return [outcomes[case] for case in cases]


def show(outcomes: Iterable[Outcome]) -> None:
    """A table, by number of learners and bytes."""
    print(
        f"{'m':>4} {'recipe':48} {'loss':>10} {'error':>7} {'MB':>10} {'event MB':>10} "
        f"{'full':>5} {'part':>5} {'acc':>6}"
    )
    for outcome in sorted(outcomes, key=lambda o: (o.case.workers, o.total)):
        full, part = outcome.events
        print(
            f"{outcome.case.workers:4d} {outcome.case.recipe:48} {outcome.loss:10,.0f} "
            f"{outcome.mistakes / outcome.samples:7.2%} {outcome.total / 1e6:10,.3f} "
            f"{outcome.event_driven / 1e6:10,.3f} {full:5d} {part:5d} {outcome.accuracy:6.3f}"
        )


def pooled(outcomes: Sequence[Outcome], recipe: str) -> list[Outcome]:
    """The runs of a recipe, one a seed."""
    return [outcome for outcome in outcomes if outcome.case.recipe == recipe]


def finish(
    experiment: str,
    outcomes: Sequence[Outcome],
    checks: dict[str, Any],
    out: str | None,
    **more: Any,
) -> None:
    """Write the results, if asked to, and print the last line."""
    content = {
        "experiment": experiment,
        "command": " ".join(["python", *sys.argv]),
        "checks": checks,
        **more,
        "runs": [outcome.summary() for outcome in outcomes],
        "environment": _cells.environment(),
    }
    if out is not None:
        partial_file = Path(f"{out}.partial")
        partial_file.write_text(json.dumps(content, indent=1) + "\n")
        partial_file.rename(out)
    print(json.dumps({"experiment": experiment, "checks": checks, **more}))
