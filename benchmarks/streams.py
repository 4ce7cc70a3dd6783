"""How fast 100 learners on streams are simulated, against the learning that it contains.

    python benchmarks/streams.py [--quick]

streams.step_ratio    a round of dynamic averaging, its stream, checks and conversations included,
                      over the same learners' passes and optimizer steps on batches made beforehand
"""

from __future__ import annotations

import argparse
import itertools
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _harness import check, paired, report

import tacit
from tacit.tasks import load

WORKERS, SIZE = 100, 10
#: Rounds in one timing: several checks, and the conversations that follow.
ROUNDS = 50
#: The middle of the sweep in experiments/dynamic_averaging_drift.py.
DELTA = 1.0


def simulation(recipe: tacit.Recipe) -> tacit.Simulation:
    return tacit.Simulation(load("graphical"), recipe, tacit.LocalFleet(WORKERS))


class Ready:
    """A feed whose batches are there already, over and over."""

    even = True

    def __init__(self, run: tacit.Simulation) -> None:
        everyone = list(range(WORKERS))
        assert run.stream is not None
        self.batches = [run.stream.batches(everyone, t) for t in range(ROUNDS)]

    def take(self, rows: list[int], draws: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.batches[draws[0] % ROUNDS]


def bare() -> tacit.Simulation:
    """The simulation's own learners, for their passes and steps alone."""
    run = simulation(tacit.no_sync())
    run.training.feed = Ready(run)  # type: ignore[assignment]
    run.training.count = False
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    everyone = list(range(WORKERS))
    learners = bare()

    stream, fresh = simulation(tacit.no_sync()).stream, itertools.count()
    assert stream is not None

    def learn() -> None:
        for step in range(ROUNDS):
            learners.training.gradients(everyone, step)
            learners.training.step(everyone)

    runs = {
        "dynamic averaging": simulation(tacit.dynamic_averaging(DELTA)),
        "periodic averaging": simulation(tacit.periodic(10)),
        "no synchronisation": simulation(tacit.no_sync()),
    }

    def rounds(run: tacit.Simulation) -> None:
        for _ in range(ROUNDS):
            run.step()

    def draw() -> None:
        for _ in range(ROUNDS):
            stream.batches(everyone, next(fresh))

    # fresh samples are a part of the rounds below; only reported
    cases = {"learning alone": learn, "fresh samples": draw}
    cases |= {name: lambda run=run: rounds(run) for name, run in runs.items()}
    seconds = paired(cases, 3 if args.quick else 21)
    for name, value in seconds.items():
        print(f"{name:20} {value / ROUNDS * 1e3:7.3f} ms a round")
    ratio = seconds["dynamic averaging"] / seconds["learning alone"]
    report({"streams.step_ratio": check(ratio, at_most=1.25)})


if __name__ == "__main__":
    main()
