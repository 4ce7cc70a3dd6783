"""MoNNA on CIFAR-10: against D-SGD without liars, for as many steps as there is time for.

    python experiments/monna_cifar10.py [--quick] [--steps 2000] [--attacks "ALIE;FOE"]
        [--methods "D-SGD;MoNNA"] [--cells FOLDER] [--out FILE]

The paper's setting: 16 workers of whom 3 lie, a convolutional network of 1,310,922 parameters,
batches of 50, rate 0.5 (0.05 from step 1500), Dirichlet 5. Batch norm is in training mode here,
each worker with statistics of its own, where the published code keeps it in inference mode; images
are normalised by ImageNet's statistics, and not mirrored. Accuracies are of the first 1,000 test
images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from _monna import ATTACKS, Case, finish, sweep

SETTING = {"task": "cifar10", "model": "monna-cifar", "workers": 16, "f": 3, "rate": 0.5,
           "batch": 50, "test": 1000}  # fmt: skip
QUICK = {"task": "digits", "model": "mlp", "workers": 8, "f": 1, "rate": 0.5,
         "batch": 10, "test": 1000}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, in under a minute")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--methods", default="D-SGD;MoNNA")
    parser.add_argument("--attacks", default=";".join(ATTACKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", help="a folder that keeps finished runs")
    parser.add_argument("--out")
    args = parser.parse_args()
    setting: dict[str, Any] = dict(QUICK if args.quick else SETTING)
    steps = 40 if args.quick else args.steps
    common = {"alpha": 5.0, "seed": args.seed, "steps": steps, "every": max(1, steps // 10)}
    cases = []
    for method in args.methods.split(";"):
        if method == "D-SGD":
            alone = {**setting, "workers": setting["workers"] - setting["f"]}
            cases.append(Case(method=method, attack=None, **common, **alone))
        else:
            attacks = args.attacks.split(";")
            cases += [Case(method=method, attack=a, **common, **setting) for a in attacks]
    outcomes = sweep(cases, args.processes, Path(args.cells) if args.cells else None)
    for outcome in outcomes:
        curve = ", ".join(f"{100 * value:.1f}" for _, value in outcome.curve)
        print(f"{outcome.case.method:8} {outcome.case.attack or 'no liars':12} {curve}")
    finish("monna_cifar10", outcomes, {}, args.out)


if __name__ == "__main__":
    main()
