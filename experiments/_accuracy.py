"""What the experiments on accuracy share: train by different recipes for equally many steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import _cells
import torch
from _cells import check, finish

import tacit
from tacit.config import RunConfig, parse_call
from tacit.tasks import load

__all__ = ["Case", "Outcome", "check", "finish", "sweep"]


@dataclass(frozen=True)
class Case:
    """One run. ``optimizer``: options of ``torch.optim.SGD``, where the recipe brings none; the
    rate falls by a half cosine to zero over the run. ``batch``: of each worker."""

    task: str
    label: str
    recipe: str
    workers: int
    epochs: int
    seed: int
    optimizer: str
    batch: int = 32
    partition: str = "iid"
    model: str | None = None

    @property
    def name(self) -> str:
        return f"{self.task}-K{self.workers}-{self.label}-seed{self.seed}".replace(" ", "_")


@dataclass
class Outcome:
    """``curve``: (step, test accuracy, test loss in nats) after each epoch. ``bytes``: charged, all
    workers together, sent and received. ``sent``: those that a worker sent on average; ``settled``:
    in a step of the last epoch, after every warm-up."""

    case: Case
    steps: int
    parameters: int
    bytes: int
    sent: float
    settled: float
    seconds: float
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        return self.curve[-1][1]

    @property
    def summary(self) -> str:
        return (
            f"accuracy {self.accuracy:.4f}, loss {self.curve[-1][2]:.4f}, "
            f"{self.settled:,.0f} bytes a step, {self.seconds:.0f} s"
        )

    @property
    def perplexity(self) -> float:
        """Of a language model's last test."""
        return math.exp(self.curve[-1][2])


def run(case: Case) -> Outcome:
    """One run, in this process."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    task = load(case.task, case.model)
    steps = int(case.epochs * len(task.train) / (case.workers * case.batch))
    _, options = parse_call(f"sgd:{case.optimizer}")
    simulation = tacit.Simulation(
        task,
        RunConfig(*parse_call(case.recipe), task=case.task).build_recipe(),
        tacit.LocalFleet(case.workers),
        seed=case.seed,
        partition=case.partition,
        batch_size=case.batch,
        optimizer=partial(torch.optim.SGD, **options),
        scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps),
    )
    curve, sent = [], [(0, 0.0)]
    for end in simulation.run(steps):
        curve.append((end.step, round(end.accuracy, 5), round(end.loss, 5)))
        sent.append((end.step, float(simulation.fleet.ledger.sent().mean())))
    (before, less), (step, total) = sent[-2:]
    return Outcome(
        case,
        steps,
        simulation.replicas.d,
        sum(end.bytes.values()),
        total,
        (total - less) / (step - before),
        round(time.perf_counter() - began, 1),
        curve,
    )


def sweep(cases: Sequence[Case], processes: int, cells: Path | None) -> list[Outcome]:
    """See ``_cells.sweep``."""
    return _cells.sweep(run, Outcome, cases, processes, cells)
