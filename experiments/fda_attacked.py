"""Workers that lie to FDA's trigger: with the mean as decision, and with a trimmed mean.

    python experiments/fda_attacked.py [--quick] [--seeds 0,1,2] [--cells FOLDER] [--out FILE]

LeNet-5 on MNIST, 10 workers of whom 2 lie, LinearFDA with theta 1, equally many steps. *inflate*: a
liar's state says that it is far from all others; *deflate*: that all have moved together. Models
are combined by nearest-neighbour mixing and a trimmed mean in every run but that of plain FDA, so
that what differs is the decision; *and sign flip*: liars also send wrong models. In the runs
without liars all 10 are honest. Bytes are those that worker 0 sends and receives.

trigger.bytes_ratio     bytes under the worst attack over those without liars, robust decision
trigger.accuracy_lost   points that the worst attack costs there
trigger.plain_breaks    the plain decision under the same attacks: how many times more, or fewer,
                        synchronisations than without liars, at least
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import _cells
import torch
from _cells import check, finish

import tacit
from tacit.attacks import Liars
from tacit.tasks import load

AGGREGATOR = "nnm(f=2,then=trimmed_mean)"
#: By name: the aggregator of models, that of states.
DECISIONS: dict[str, tuple[str | None, str | None]] = {
    "plain FDA": (None, None),
    "mean": (AGGREGATOR, None),
    "trimmed mean": (AGGREGATOR, "trimmed_mean(f=2)"),
}
#: On models, on the trigger.
ATTACKS: dict[str, tuple[str | None, str | None]] = {
    "inflate": (None, "inflate"),
    "deflate": (None, "deflate:along=true"),
    "inflate and sign flip": ("sign_flip", "inflate"),
    "deflate and sign flip": ("sign_flip", "deflate:along=true"),
}


@dataclass(frozen=True)
class Case:
    """One run. ``attack``: None in a run without liars."""

    task: str
    decision: str
    attack: str | None
    workers: int
    liars: int
    theta: float
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.decision}-{self.attack}-seed{self.seed}".replace(" ", "_")


@dataclass
class Outcome:
    """``curve``: (step, test accuracy of the honest workers' mean). ``bytes``: that worker 0
    sent and received."""

    case: Case
    curve: list[tuple[int, float]] = field(default_factory=list)
    bytes: int = 0
    synchronisations: int = 0
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """At the end, in percent."""
        return 100 * self.curve[-1][1]

    @property
    def summary(self) -> str:
        return (
            f"{self.accuracy:.2f} %, {self.bytes / 1e6:,.2f} MB, "
            f"{self.synchronisations} synchronisations, {self.seconds:.0f} s"
        )


def run(case: Case) -> Outcome:
    """One run, in this process."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    liars = None if case.attack is None else Liars(case.liars, *ATTACKS[case.attack])
    aggregator, decision = DECISIONS[case.decision]
    simulation = tacit.Simulation(
        load(case.task),
        tacit.fda(case.theta, aggregator=aggregator, decision=decision),
        tacit.LocalFleet(case.workers),
        seed=case.seed,
        liars=liars,
    )
    outcome = Outcome(case)
    for end in simulation.run(case.steps, max(1, case.steps // 10)):
        outcome.curve.append((end.step, round(end.accuracy, 5)))
    ledger = simulation.fleet.ledger
    outcome.bytes = int(ledger.sent()[0] + ledger.received()[0])
    outcome.synchronisations = end.synchronisations
    outcome.seconds = round(time.perf_counter() - began, 1)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, in under a minute")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", help="a folder that keeps finished runs")
    parser.add_argument("--out")
    args = parser.parse_args()
    setting: dict[str, Any] = {"task": "mnist", "theta": 1.0, "steps": 1500}
    if args.quick:
        setting = {"task": "digits", "theta": 0.3, "steps": 200}
    case = partial(Case, workers=10, liars=2, **setting)
    seeds = [0] if args.quick else [int(seed) for seed in args.seeds.split(",")]
    cases = [
        case(decision=decision, attack=attack, seed=seed)
        for seed in seeds
        for decision in DECISIONS
        for attack in attacks_on(decision)
    ]
    cells = Path(args.cells) if args.cells else None
    outcomes = _cells.sweep(run, Outcome, cases, args.processes, cells)
    show(outcomes)
    robust, plain = "trimmed mean", "mean"
    ratio = max(compared(outcomes, robust, attack)[0] for attack in ATTACKS)
    lost = max(compared(outcomes, robust, attack)[1] for attack in ATTACKS)
    breaks = min(compared(outcomes, plain, attack)[2] for attack in ATTACKS)
    checks = {
        "trigger.bytes_ratio": check(ratio, at_most=1.5),
        "trigger.accuracy_lost": check(lost, at_most=1.0),
        "trigger.plain_breaks": check(breaks, at_least=5.0),
    }
    finish("fda_attacked", outcomes, checks, args.out)


def attacks_on(decision: str) -> list[str | None]:
    """The runs of a decision; plain FDA is there to compare bytes with."""
    return [None] if decision == "plain FDA" else [None, *ATTACKS]


def middle(outcomes: list[Outcome], decision: str, attack: str | None) -> tuple[float, float, int]:
    """Medians over seeds: bytes, accuracy, synchronisations."""
    some = [o for o in outcomes if (o.case.decision, o.case.attack) == (decision, attack)]
    counts = [o.synchronisations for o in some]
    return (
        statistics.median(o.bytes for o in some),
        statistics.median(o.accuracy for o in some),
        int(statistics.median(counts)),
    )


def compared(outcomes: list[Outcome], decision: str, attack: str) -> tuple[float, float, float]:
    """Compared with the run without liars: bytes over its bytes, points of accuracy lost, and how
    many times more synchronisations there are, or fewer."""
    moved, accuracy, count = middle(outcomes, decision, attack)
    honest_bytes, honest_accuracy, honest_count = middle(outcomes, decision, None)
    times = max(count, 1) / max(honest_count, 1)
    return moved / honest_bytes, honest_accuracy - accuracy, max(times, 1 / times)


def show(outcomes: list[Outcome]) -> None:
    print(f"\n{'decision':14} {'attack':24} {'accuracy':>9} {'MB':>9} {'synchronisations':>17}")
    for decision in DECISIONS:
        for attack in attacks_on(decision):
            moved, accuracy, count = middle(outcomes, decision, attack)
            print(
                f"{decision:14} {attack or 'no liars':24} {accuracy:8.2f}% "
                f"{moved / 1e6:9.2f} {count:17,}"
            )


if __name__ == "__main__":
    main()
