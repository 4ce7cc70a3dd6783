"""Cumulative loss against bytes on MNIST streams: the whole sweep of every protocol.

    python experiments/dynamic_averaging_mnist.py [--quick] [--learners 10,30,100] [--rounds N]
        [--recipes "periodic:period=10 ..."] [--out FILE]

Every learner goes through MNIST in its own order, as far as the rounds reach (1000, 500 and 200 of
6000 with 10, 30 and 100 learners); convolutional net of 21,840 parameters, B = 10, b = 10, SGD at
0.1, after Kamp et al. 2018. Two seeds with 10 learners, one with more.

stream.bytes_ratio    bytes of the best periodic protocol over those of the cheapest dynamic one
                      within 5 % of its cumulative loss; of all numbers of learners, the least
"""

from __future__ import annotations

import argparse
from typing import Any

from _streams import Case, Outcome, check, finish, show, sweep

#: How much worse than the best periodic one a protocol may be.
CLOSE = 1.05
CHECKED = 10
DELTAS = (0.1, 0.3, 1, 3, 10)
THETAS = (0.1, 0.3, 1, 3)
PERIODS = (10, 20, 40, 80)
FRACTIONS = (0.3, 0.7)

RECIPES = [
    "no_sync",
    "serial",
    *(f"periodic:period={period}" for period in PERIODS),
    *(f"fedavg:period=50,fraction={fraction}" for fraction in FRACTIONS),
    *(f"dynamic_averaging:delta={delta},every={CHECKED}" for delta in DELTAS),
    *(f"fda:theta={theta},every={CHECKED}" for theta in THETAS),
]
#: Rounds by the number of learners, so that a run takes a minute or two.
ROUNDS = {10: 1000, 30: 500, 100: 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, 4 learners")
    parser.add_argument("--learners", default="10,30,100")
    parser.add_argument("--rounds", type=int, help="6000 are one pass; default: see ROUNDS")
    parser.add_argument("--recipes", help="separated by spaces; default: the whole sweep")
    parser.add_argument("--seeds", default="0,1", help="of the smallest number of learners")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out")
    args = parser.parse_args()
    task, learners, seeds = "mnist-stream", _numbers(args.learners), _numbers(args.seeds)
    rounds = {m: args.rounds or ROUNDS.get(m, 200) for m in learners}
    recipes = args.recipes.split() if args.recipes else RECIPES
    if args.quick:
        task, learners, seeds, rounds = "digits-stream", [4], [0], {4: 140}
    cases = [
        Case(task, recipe, m, rounds[m], seed)
        for m in learners
        for seed in (seeds if m == min(learners) else seeds[:1])
        for recipe in recipes
    ]
    outcomes = sweep(cases, args.processes)
    show(outcomes)
    groups = dict.fromkeys((case.workers, case.seed) for case in cases)
    comparisons = [
        compare([o for o in outcomes if (o.case.workers, o.case.seed) == group]) for group in groups
    ]
    least = min(found["bytes_ratio"] for found in comparisons)
    checks = {"stream.bytes_ratio": check(least, at_least=10)}
    finish("dynamic_averaging_mnist", outcomes, checks, args.out, comparisons=comparisons)


def compare(group: list[Outcome]) -> dict[str, Any]:
    """The cheapest dynamic protocol near the best periodic one, and what else is near it."""
    best = min((o for o in group if o.family == "periodic"), key=lambda o: o.loss)
    near = {
        family: min(
            (o for o in group if o.family == family and o.loss <= CLOSE * best.loss),
            key=lambda o: o.total,
            default=None,
        )
        for family in ("dynamic_averaging", "periodic", "fda", "fedavg", "no_sync")
    }
    dynamic = near["dynamic_averaging"]
    return {
        "learners": best.case.workers,
        "seed": best.case.seed,
        "best_periodic": best.case.recipe,
        "cheapest_within_5_percent": {
            name: {"recipe": o.case.recipe, "bytes": o.total, "loss": round(o.loss, 2)}
            for name, o in near.items()
            if o is not None
        },
        "bytes_ratio": round(best.total / dynamic.total, 3) if dynamic else 0.0,
    }


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
