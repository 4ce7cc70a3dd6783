"""Federated Dynamic Averaging whose synchronisations are compressed: bytes to the same accuracy.

    python experiments/fda_topk.py [--quick] [--seeds 0,1,2] [--thetas 1,2,5] [--out FILE]

LeNet-5 on MNIST, K = 10, iid, to 0.98: Synchronous averages models at every step; LinearFDA when
their variance passes theta, dense, and with the largest 5 % of what a model has changed, in 8 bits,
with error feedback, in both directions. All bytes are the ledger's, what workers send and receive,
monitoring and headers included. Accuracy is tested every quarter of an epoch.

fda_topk.bytes_ratio    Synchronous' bytes over those of the best compressed theta, medians over
                        the seeds
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _cells
import torch

import tacit
from tacit.config import RunConfig, parse_call
from tacit.tasks import load

COMPRESSOR = "topk(density=0.05,values=int8)"
BOTH = f"compressor={COMPRESSOR},download={COMPRESSOR}"


@dataclass(frozen=True)
class Case:
    label: str
    recipe: str
    task: str
    target: float
    limit: int
    seed: int


def run(case: Case) -> dict[str, Any]:
    """Train to the target; what it took."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    recipe = RunConfig(*parse_call(case.recipe), task=case.task).build_recipe()
    simulation = tacit.Simulation(
        load(case.task), recipe, tacit.LocalFleet(10), seed=case.seed, order="resample"
    )
    every = max(1, round(simulation.steps_per_epoch / 4))
    for end in simulation.run(case.limit, evaluate_every=every):
        if end.accuracy >= case.target:
            break
    return {
        **dataclasses.asdict(case),
        "reached": end.accuracy >= case.target,
        "accuracy": end.accuracy,
        "steps": end.step,
        "synchronisations": end.synchronisations,
        "bytes": end.total_bytes,
        "by_kind": end.bytes,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, in under a minute")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--thetas", default="1,2,5")
    parser.add_argument("--limit", type=int, default=6000, help="steps")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out")
    args = parser.parse_args()
    task, target, seeds = "mnist", 0.98, [int(seed) for seed in args.seeds.split(",")]
    thetas = args.thetas.split(",")
    if args.quick:
        task, target, seeds, thetas = "digits", 0.93, [0], ["0.3"]
    methods = [("synchronous", "synchronous:exchange=models")]
    methods += [(f"FDA, theta {t}", f"fda:theta={t}") for t in thetas]
    methods += [(f"FDA, theta {t}, Top-k", f"fda:theta={t},{BOTH}") for t in thetas]
    cases = [Case(*m, task, target, args.limit, seed) for seed in seeds for m in methods]
    results = []
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for found in pool.imap_unordered(run, cases, chunksize=1):
            results.append(found)
            print(
                f"{len(results):3d}/{len(cases)} {found['label']}, seed {found['seed']}: "
                f"{found['steps']} steps, {found['synchronisations']} synchronisations, "
                f"{found['bytes'] / 1e6:,.2f} MB, accuracy {found['accuracy']:.4f}",
                file=sys.stderr,
                flush=True,
            )
    rows = [summary(label, results) for label, _ in methods]
    whole = rows[0]["bytes"]
    print(f"\n{task} to {target:.0%}, medians of {len(seeds)} seeds")
    print(f"{'method':24} {'MB':>10} {'fewer':>7} {'steps':>7} {'syncs':>7}  reached")
    for row in rows:
        print(
            f"{row['label']:24} {row['bytes'] / 1e6:10,.2f} {whole / row['bytes']:6.0f}x "
            f"{row['steps']:7,.0f} {row['synchronisations']:7,.0f}  {row['reached']}/{len(seeds)}"
        )
    best = [r["bytes"] for r in rows if "Top-k" in r["label"] and r["reached"] == len(seeds)]
    ratio = whole / min(best) if best else 0.0
    content = {
        "experiment": "fda_topk",
        "checks": {
            "fda_topk.bytes_ratio": _cells.check(ratio, at_least=500 if task == "mnist" else 20)
        },
        "environment": _cells.environment(),
    }
    if args.out is not None:
        path = Path(f"{args.out}.partial")
        command = " ".join(["python", *sys.argv])
        path.write_text(json.dumps({**content, "command": command, "runs": results}, indent=1))
        path.rename(args.out)
    print(json.dumps(content))


def summary(label: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of a method over its seeds."""
    own = [found for found in results if found["label"] == label]
    figures = ("bytes", "steps", "synchronisations")
    medians = {name: statistics.median(found[name] for found in own) for name in figures}
    return {"label": label, **medians, "reached": sum(found["reached"] for found in own)}


if __name__ == "__main__":
    main()
