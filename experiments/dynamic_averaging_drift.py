"""What happens when the concept drifts: bytes and loss around the drifts, for every protocol.

    python experiments/dynamic_averaging_drift.py [--quick] [--seeds 0,1,2] [--out FILE]

Two streams of 150 features: the random graphical model, whose Bayes error is some 13 %, learned by
a small perceptron; and a linear separator without noise, learned by a linear model, so that the
loss goes to nothing between drifts. m = 10, B = 10, b = 10, SGD at 0.1. At the largest delta of the
sweep, sums over drifts and seeds:

drift.rate_ratio              bytes in the 200 rounds after a drift over those in the 200 before
drift.rate_ratio_realisable   the same on the separable stream
drift.recovery                loss in those 200 rounds, without the first 20 (the peak is much the
                              same for all), over continuous averaging's; the worse of both streams

Beside it, the rounds until the loss of 50 rounds has come back nine tenths of the way from the
first 20 rounds' to that before the drift.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from _streams import Case, Outcome, check, finish, pooled, show, sweep

WINDOW, PEAK, SMOOTH = 200, 20, 50
LEARNERS, CHECKED = 10, 10
DELTAS = (0.1, 0.3, 1, 3, 10)
THETAS = (0.03, 0.1, 0.3, 1, 3)
PERIODS = (10, 20, 50, 100, 200)
RECIPES = [
    "no_sync",
    "serial",
    "continuous",
    *(f"periodic:period={period}" for period in PERIODS),
    *(f"dynamic_averaging:delta={delta},every={CHECKED}" for delta in DELTAS),
    *(f"fda:theta={theta},every={CHECKED}" for theta in THETAS),
]
#: name: (task, model, rounds between drifts)
STREAMS = {
    "graphical": ("graphical", "kamp-mlp", 1000),
    "realisable": ("separator:noise=0", "linear", 3000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, short concepts, few runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out")
    args = parser.parse_args()
    seeds = [0] if args.quick else [int(seed) for seed in args.seeds.split(",")]
    recipes = RECIPES
    if args.quick:
        recipes = ["continuous", "periodic:period=50", RECIPES[len(RECIPES) - len(THETAS) - 1]]
    everything: list[Outcome] = []
    around: dict[str, dict[str, Any]] = {}
    for name, (task, model, gap) in STREAMS.items():
        gap = 400 if args.quick else gap
        at = [gap, 2 * gap, 3 * gap]
        text = f"{task}{',' if ':' in task else ':'}at={'/'.join(map(str, at))}"
        cases = [Case(text, r, LEARNERS, 4 * gap, s, model) for s in seeds for r in recipes]
        outcomes = sweep(cases, args.processes)
        print(f"\n{name}: {text}, {model}; seed 0")
        show(o for o in outcomes if o.case.seed == seeds[0])
        around[name] = {r: around_drifts(pooled(outcomes, r), at) for r in recipes}
        compare(around[name])
        everything += outcomes
    largest = f"dynamic_averaging:delta={DELTAS[-1]},every={CHECKED}"
    checks = {
        "drift.rate_ratio": check(around["graphical"][largest]["rate_ratio"], at_least=2),
        "drift.rate_ratio_realisable": check(
            around["realisable"][largest]["rate_ratio"], at_least=10
        ),
        "drift.recovery": check(
            max(stream[largest]["recovery"] for stream in around.values()), at_most=1.2
        ),
    }
    finish("dynamic_averaging_drift", everything, checks, args.out, around_drifts=around)


def around_drifts(outcomes: Sequence[Outcome], at: Sequence[int]) -> dict[str, Any]:
    """Sums over drifts and seeds. ``at``: the rounds that begin with a new concept."""
    drifts = [(outcome, t) for outcome in outcomes for t in at]
    before = sum(int(o.bytes[t - WINDOW : t].sum()) for o, t in drifts)
    after = sum(int(o.bytes[t : t + WINDOW].sum()) for o, t in drifts)
    losses = [float(o.losses[t + PEAK : t + WINDOW].mean()) for o, t in drifts]
    return {
        "bytes_before": before,
        "bytes_after": after,
        "rate_ratio": round(after / max(before, 1), 3),
        "loss_after": round(float(np.mean(losses)) / LEARNERS, 4),
        "rounds_to_recover": float(np.mean([recovery(o, t) for o, t in drifts])),
    }


def recovery(outcome: Outcome, t: int) -> int:
    """Rounds after the drift at t until the loss is nearly back."""
    base = float(outcome.losses[t - WINDOW : t].mean())
    level = base + 0.1 * (float(outcome.losses[t : t + PEAK].mean()) - base)
    means = np.convolve(outcome.losses[t:], np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    back = np.flatnonzero(means <= level)
    return int(back[0]) if len(back) else len(means)


def compare(around: dict[str, Any]) -> None:
    """A table; adds the loss after drifts as a ratio to continuous averaging's."""
    print(
        f"\n{'recipe':40} {'kB before':>10} {'kB after':>10} {'ratio':>8} {'loss after':>11} "
        f"{'rounds to recover':>18}"
    )
    for recipe, row in around.items():
        row["recovery"] = round(row["loss_after"] / around["continuous"]["loss_after"], 4)
        print(
            f"{recipe:40} {row['bytes_before'] / 1e3:10,.0f} {row['bytes_after'] / 1e3:10,.0f} "
            f"{row['rate_ratio']:8.2f} {row['recovery']:10.3f}x {row['rounds_to_recover']:18.0f}"
        )


if __name__ == "__main__":
    main()
