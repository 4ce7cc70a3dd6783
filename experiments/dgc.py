"""Deep Gradient Compression beside dense momentum SGD and naive Top-k, at equally many steps.

    python experiments/dgc.py [--quick] [--tasks mnist,speech,text,cifar10] [--seeds 0,1,2]
        [--methods "dense;DGC"] [--cells FOLDER] [--out FILE]

Images, language and speech, as in Lin et al., ICLR 2018: LeNet-5 on MNIST with 4 and 16 workers, an
LSTM on the characters of tiny Shakespeare, a GRU on spoken digits with a worker for each of six
speakers, ResNet-20 on CIFAR-10. Density 0.1 %, four epochs of warm-up as published (two on
CIFAR-10, of four in all). Naive Top-k sends the largest entries of the accumulated gradients, from
the first step; momentum comes after.

Bytes that a worker sends are given for a step after the warm-up, and over all.

dgc.accuracy.TASK    what DGC loses against dense: points of test accuracy, percent of perplexity
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from _accuracy import Case, Outcome, check, finish, sweep

DENSITY = 0.001
#: Task: workers, epochs, batch of a worker, partition, model, rate, weight decay, clips to try.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "mnist": [
        {"workers": 4, "epochs": 12, "lr": 0.05},
        {"workers": 16, "epochs": 20, "lr": 0.1},
    ],
    "speech": [
        {"task": "fsdd", "workers": 6, "epochs": 25, "batch": 4, "partition": "group",
         "lr": 0.05, "clips": (1.0,)},
    ],
    "text": [{"task": "shakespeare", "workers": 4, "epochs": 40, "batch": 16, "lr": 1.0}],
    "cifar10": [{"workers": 4, "epochs": 4, "model": "resnet20", "lr": 0.1, "decay": 1e-4,
                 "warmup": 2}],
    "digits": [{"workers": 4, "epochs": 30, "lr": 0.05}],
}  # fmt: skip
#: Points of accuracy, or percent of perplexity, that DGC may lose.
BARS = {"mnist": 0.5, "fsdd": 1.0, "shakespeare": 1.0, "digits": 3.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, in under a minute")
    parser.add_argument("--tasks", default="mnist,speech,text,cifar10")
    parser.add_argument("--seeds", default="0,1,2", help="of cifar10, the first")
    parser.add_argument("--methods", help="some of them, by their label, with ; between")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", help="a folder that keeps finished runs")
    parser.add_argument("--out")
    args = parser.parse_args()
    tasks = ["digits"] if args.quick else args.tasks.split(",")
    seeds = [0] if args.quick else [int(seed) for seed in args.seeds.split(",")]
    cases = [
        case
        for seed in seeds
        for name in tasks
        for setting in SETTINGS[name]
        if name != "cifar10" or seed == seeds[0]
        for case in cases_of(setting.get("task", name), setting, seed)
        if not args.methods or case.label in args.methods.split(";")
    ]
    outcomes = sweep(cases, args.processes, Path(args.cells) if args.cells else None)
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.case.task, outcome.case.workers), []).append(outcome)
    checks: dict[str, Any] = {}
    for (task, workers), group in groups.items():
        show(task, workers, group)
        if task in BARS:
            lost = [loss(group, "dense", label) for label in labels(group) if "DGC" in label]
            name = f"dgc.accuracy.{task}" + (f".K{workers}" if task == "mnist" else "")
            checks[name] = check(max(lost), at_most=BARS[task])
    finish("dgc", outcomes, checks, args.out)


def cases_of(task: str, setting: dict[str, Any], seed: int) -> list[Case]:
    """One for each method."""
    lr, decay = setting["lr"], setting.get("decay", 0.0)
    shared = {
        "task": task,
        "workers": setting["workers"],
        "epochs": setting["epochs"],
        "seed": seed,
        "batch": setting.get("batch", 32),
        "partition": setting.get("partition", "iid"),
        "model": setting.get("model"),
    }
    momentum = f"lr={lr},momentum=0.9,weight_decay={decay}"
    dgc = f"dgc:density={DENSITY},warmup={setting.get('warmup', 4)},weight_decay={decay}"
    naive = f"compressed:compressor=topk(density={DENSITY}),feedback=true,per_tensor=true"
    methods = [("dense", "synchronous", momentum), ("DGC", dgc, f"lr={lr}")]
    for clip in setting.get("clips", ()):
        # of mean gradients: see VelocityMemory on the power
        methods.append((f"DGC, clip {clip:g}", f"{dgc},clip={clip},clip_power=0.5", f"lr={lr}"))
    methods.append(("naive Top-k", naive, momentum))
    return [Case(label=label, recipe=r, optimizer=o, **shared) for label, r, o in methods]


def labels(group: list[Outcome]) -> list[str]:
    return list(dict.fromkeys(outcome.case.label for outcome in group))


def figures(group: list[Outcome], label: str) -> list[float]:
    """Test accuracy in percent, or perplexity, of each seed."""
    chosen = [outcome for outcome in group if outcome.case.label == label]
    if chosen[0].case.task == "shakespeare":
        return [outcome.perplexity for outcome in chosen]
    return [100 * outcome.accuracy for outcome in chosen]


def loss(group: list[Outcome], dense: str, label: str) -> float:
    """What ``label`` loses against dense, medians over seeds: points, or percent of perplexity."""
    one, other = (statistics.median(figures(group, name)) for name in (dense, label))
    if group[0].case.task == "shakespeare":
        return 100 * (other / one - 1)
    return one - other


def show(task: str, workers: int, group: list[Outcome]) -> None:
    what = "perplexity" if task == "shakespeare" else "accuracy %"
    first = group[0]
    print(f"\n{task}, {workers} workers, {first.parameters:,} parameters, {first.steps:,} steps")
    print(
        f"{'method':16} {what:>10}  {'seeds':24} {'bytes a step':>13} {'fewer':>7} {'over all':>9}"
    )
    dense = next(o for o in group if o.case.label == "dense")
    for label in labels(group):
        values = figures(group, label)
        chosen = [o for o in group if o.case.label == label]
        settled = statistics.median(o.settled for o in chosen)
        sent = statistics.median(o.sent for o in chosen)
        every = " ".join(f"{value:.2f}" for value in values)
        print(
            f"{label:16} {statistics.median(values):10.2f}  {every:24} {settled:13,.0f} "
            f"{dense.settled / settled:6.0f}x {dense.sent / sent:8.1f}x"
        )


if __name__ == "__main__":
    main()
