"""MoNNA on MNIST: the paper's methods under its attacks, among peers who lie.

    python experiments/monna_mnist.py [--quick] [--alphas 5,1] [--seeds 0,1,2] [--cells FOLDER]
        [--methods "MoNNA;NNA"] [--out FILE]

Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, "Robust Collaborative Learning with Linear
Gradient Overhead", ICML 2023: 26 workers of whom 5 lie, a network of 431,080 parameters, batches of
25, 600 steps, rate 0.75 / (t // 50 + 1), momentum 0.99, each honest worker's data drawn by its own
Dirichlet proportions over the classes; every worker holds 21 models, those of all liars among them.

MoNNA and D-SGD are run with all seeds, the others with the first; at alpha 1, of the others, two.
D-SGD has no liars and the data of the same 21 workers. Not as published: every worker has its own
copy of the first model; no norm penalty; SCC has the data of all others; LEARN has the same batches
as the others; the geometric median is the exact one.

monna.ALPHA.ATTACK    points of accuracy that MoNNA loses against D-SGD without liars, means over
                      the honest workers, medians over the seeds
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from _monna import ATTACKS, METHODS, Case, Outcome, check, finish, sweep

SETTING = {"task": "mnist", "model": "monna-cnn", "workers": 26, "f": 5, "steps": 600,
           "rate": 0.75, "batch": 25, "every": 30, "test": 2000}  # fmt: skip
QUICK = {"task": "digits", "model": "mlp", "workers": 11, "f": 2, "steps": 60,
         "rate": 0.75, "batch": 25, "every": 20}  # fmt: skip
#: At alpha 1: beside MoNNA, two that stood all attacks at alpha 5.
FEW = ("D-SGD", "MoNNA", "MoCWTM", "MoGM")
BAR = 1.0
SEVERAL_SEEDS = ("D-SGD", "MoNNA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, in under a minute")
    parser.add_argument("--alphas", default="5,1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", help="some of them, with ; between")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", help="a folder that keeps finished runs")
    parser.add_argument("--out")
    args = parser.parse_args()
    alphas = [5.0] if args.quick else [float(alpha) for alpha in args.alphas.split(",")]
    seeds = [0] if args.quick else [int(seed) for seed in args.seeds.split(",")]
    methods = args.methods.split(";") if args.methods else list(METHODS)
    if args.quick:
        methods = ["D-SGD", "MoNNA", "BRIDGE"]
    setting: dict[str, Any] = QUICK if args.quick else SETTING
    cases = [case for alpha in alphas for case in cases_of(methods, alpha, seeds, setting)]
    outcomes = sweep(cases, args.processes, Path(args.cells) if args.cells else None)
    checks: dict[str, Any] = {}
    for alpha in alphas:
        group = [outcome for outcome in outcomes if outcome.case.alpha == alpha]
        show(alpha, group)
        for attack in ATTACKS:
            if "MoNNA" in methods and "D-SGD" in methods:
                lost = median(group, "D-SGD", None) - median(group, "MoNNA", attack)
                checks[f"monna.{alpha:g}.{attack.replace(' ', '_')}"] = check(lost, at_most=BAR)
    finish("monna_mnist", outcomes, checks, args.out)


def cases_of(
    methods: list[str], alpha: float, seeds: list[int], setting: dict[str, Any]
) -> list[Case]:
    """All of one alpha, the most wanted first."""
    honest = {**setting, "workers": setting["workers"] - setting["f"]}
    chosen = [m for m in methods if alpha != 1 or m in FEW]
    chosen.sort(key=lambda method: method not in SEVERAL_SEEDS)
    cases = []
    for method in chosen:
        for seed in seeds if method in SEVERAL_SEEDS else seeds[:1]:
            named: dict[str, Any] = {"method": method, "alpha": alpha, "seed": seed}
            if method == "D-SGD":
                cases.append(Case(attack=None, **named, **honest))
            else:
                cases += [Case(attack=attack, **named, **setting) for attack in ATTACKS]
    return cases


def median(group: list[Outcome], method: str, attack: str | None) -> float:
    """Over seeds, of the mean accuracy of the honest workers, in percent."""
    found = [o.accuracy for o in group if (o.case.method, o.case.attack) == (method, attack)]
    return statistics.median(found)


def show(alpha: float, group: list[Outcome]) -> None:
    print(f"\nDirichlet {alpha:g}: test accuracy in percent, mean (lowest, highest) worker")
    print(f"{'method':8} " + " ".join(f"{attack:>22}" for attack in ATTACKS))
    for method in dict.fromkeys(outcome.case.method for outcome in group):
        attacks = [None] if method == "D-SGD" else list(ATTACKS)
        cells = []
        for attack in attacks:
            some = [o for o in group if (o.case.method, o.case.attack) == (method, attack)]
            every = [100 * value for o in some for value in o.accuracies]
            middle = median(group, method, attack)
            cells.append(f"{middle:6.2f} ({min(every):5.2f}, {max(every):5.2f})")
        print(f"{method:8} " + " ".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
