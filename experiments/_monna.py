"""What the MoNNA experiments share: one run of a method under an attack, among peers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import _cells
import torch
from _cells import check, finish
from torch import Tensor

import tacit
from tacit.attacks import Liars
from tacit.errors import UserError
from tacit.evaluation import examine
from tacit.recipes import Recipe
from tacit.recipes.parts import polyak
from tacit.tasks import load

__all__ = ["ATTACKS", "METHODS", "Case", "Outcome", "check", "finish", "sweep"]

#: The paper's four, the first two with its line search.
ATTACKS = {
    "ALIE": "alie:search=true",
    "FOE": "foe:search=true",
    "sign flip": "sign_flip",
    "label flip": "label_flip",
}

Method = Callable[[int, float], Recipe]


def _mixing(momentum: float, rule: str) -> Method:
    return lambda f, lr: tacit.monna(f, momentum, lr, "worst", rule)


def _averaging(f: int, lr: float) -> Recipe:
    del f
    return dataclasses.replace(tacit.synchronous("models"), optimizer=polyak(lr, 0.99))


#: By the names of the paper's figures; D-SGD is run without liars. Not as published: the geometric
#: median is the exact one (there three smoothed rounds from 0), LEARN's batch does not grow.
METHODS: dict[str, Method] = {
    "D-SGD": _averaging,
    "MoNNA": _mixing(0.99, "nna"),
    "NNA": _mixing(0.0, "nna"),
    "MoCWTM": _mixing(0.99, "trimmed_mean"),
    "BRIDGE": _mixing(0.0, "trimmed_mean"),
    "MoGM": _mixing(0.99, "geometric_median"),
    "GM": _mixing(0.0, "geometric_median"),
    "SCC": _mixing(0.9, "self_clipping(tau=2,rounds=3)"),
    "LEARN": lambda f, lr: tacit.learn(f, lr, "worst"),
}


#: Of how many samples of the test data the last accuracies are, where all would take too long.
FINAL = {"cifar10": 1000}


@dataclass(frozen=True)
class Case:
    """One run. ``workers``: honest and liars; ``f`` of them lie, if there is an ``attack``.
    ``rate``: at first; it is divided by 1, 2, 3, ... every 50 steps, on CIFAR-10 by 10 at 1500.
    ``every``: steps between points of the curve, which are of the first ``test`` samples of the
    test data (None: all)."""

    task: str
    model: str
    method: str
    attack: str | None
    alpha: float
    workers: int
    f: int
    steps: int
    seed: int
    rate: float
    batch: int
    every: int
    test: int | None = None

    @property
    def name(self) -> str:
        attack = self.attack or "no attack"
        text = f"{self.task}-{self.method}-{attack}-{self.alpha:g}-n{self.workers}-seed{self.seed}"
        return text.replace(" ", "_")


@dataclass
class Outcome:
    """``curve``: (step, accuracy of honest worker 0). ``accuracies``: of all honest workers at the
    end. ``spread``: mean squared distance of the honest models from their mean, then; None where
    they are no longer finite. ``received``: bytes that an honest worker got in a step.
    ``diverged``: the step at which a loss or a model was no longer finite, ``reason``: in words."""

    case: Case
    curve: list[tuple[int, float]] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    spread: float | None = None
    received: float = 0.0
    seconds: float = 0.0
    diverged: int | None = None
    reason: str = ""

    @property
    def accuracy(self) -> float:
        """The mean over honest workers, in percent."""
        return 100 * sum(self.accuracies) / len(self.accuracies)

    @property
    def summary(self) -> str:
        low, high = 100 * min(self.accuracies), 100 * max(self.accuracies)
        end = f", diverged at step {self.diverged}" if self.diverged else ""
        return f"{self.accuracy:.2f} % ({low:.2f} to {high:.2f}), {self.seconds:.0f} s{end}"


def run(case: Case) -> Outcome:
    """One run, in this process."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=_factor(case.task))
    liars = None if case.attack is None else Liars(case.f, ATTACKS[case.attack])
    simulation = tacit.Simulation(
        load(case.task, case.model),
        METHODS[case.method](case.f, case.rate),
        tacit.LocalFleet(case.workers),
        seed=case.seed,
        partition=f"dirichlet-classes:{case.alpha:g}",
        batch_size=case.batch,
        scheduler=schedule,
        liars=liars,
    )
    outcome = Outcome(case)
    honest = case.workers - (case.f if liars else 0)
    while simulation.steps < case.steps:
        try:
            simulation.step()
        except UserError as error:  # a loss or a model that is no longer finite
            outcome.diverged, outcome.reason = simulation.steps, str(error)
            break
        if simulation.steps % case.every == 0 and simulation.steps < case.steps:
            outcome.curve.append((simulation.steps, accuracy(simulation, 0, case.test)))
    final = FINAL.get(case.task)
    outcome.accuracies = [accuracy(simulation, k, final) for k in range(honest)]
    outcome.curve.append((simulation.steps, accuracy(simulation, 0, case.test)))
    models = simulation.replicas.parameters[:honest]
    spread = float((models - models.mean(dim=0)).double().square().sum() / honest)
    outcome.spread = spread if math.isfinite(spread) else None
    outcome.received = float(simulation.fleet.ledger.received()[0]) / simulation.steps
    outcome.seconds = round(time.perf_counter() - began, 1)
    return outcome


def _factor(task: str) -> Callable[[int], float]:
    """Of the rate, by the step."""
    if task == "cifar10":
        return lambda step: 1.0 if step < 1500 else 1 / (1500 / 167 + 1)
    return lambda step: 1 / (step // 50 + 1)


def accuracy(simulation: tacit.Simulation, worker: int, test: int | None) -> float:
    """Of one worker's own model, on the test data (the first ``test`` samples of it)."""
    replicas, task = simulation.replicas, simulation.task
    buffers: Tensor = replicas.buffers[worker] if replicas.buffers.numel() else replicas.buffers[0]
    module = replicas.show(replicas.parameters[worker], buffers)
    count = min(test or len(task.test), len(task.test))
    _, correct = examine(module, task, task.test, range(count), simulation.training.device)
    return round(correct / count, 5)


def sweep(cases: Sequence[Case], processes: int, cells: Path | None) -> list[Outcome]:
    """See ``_cells.sweep``."""
    return _cells.sweep(run, Outcome, cases, processes, cells)
