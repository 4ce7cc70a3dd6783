"""EF21 and EF21-W: step sizes by theory, and the gradient norm against bits sent.

    python experiments/ef21_w.py [--quick] [--data FOLDER] [--seed N] [--out FILE]

Logistic regression with a non-convex regulariser on six LIBSVM sets, rows in file order, and least
squares with a given spread of the clients' smoothness constants L_i; Top-1, from x = 0. EF21 with
its first step, 1 / (L + L_QM xi), with the step of EF21-W's analysis, 1 / (L + L_AM xi), and EF21-W
with that; the two are the same method if C(t v) = t C(v). So all runs are also made with values
rounded to random powers of two ("natural"), where it is not. On some problems: values rounded to a
fixed grid, for which no theory holds; half of the clients absent at random; minibatches of a
quarter of the rows; and the steps for rare features.

Bits: what all clients send, their first gradients (whole) and all headers included. Not counted is
the way down, which is the same in all methods.

ef21_w.step_ratio.SET   the new step over the old one
ef21_w.coincide         how far x of EF21-W and of EF21 with the same step differ, to the norm of x;
                        the worst of 50 rounds and all problems
ef21_w.bits_ratio.SET   bits of EF21 over those of EF21-W, to the least gradient norm that EF21
                        reaches, where L_QM / L_AM is above 1.2
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import _cells
import numpy as np
import torch
from _ef21 import Gradients, Trace, run
from _ef21_problems import SETS, Problem, baseline, problems

#: Below this part of the first one rounding, not the method, decides a gradient norm's square.
FLOOR = 1e-20
CURVE = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a thirtieth of the rounds")
    parser.add_argument("--data", help="folder that holds libsvm/ (default: TACIT_DATA)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = problems(args.data, args.seed, 30 if args.quick else 1)
    constants = [problem.constants() for problem in chosen]
    show_constants(constants)
    results = [solve(problem, args.seed) for problem in chosen if problem.rounds]
    ratios = {row["problem"]: row["ratio"] for row in constants}
    checks = {
        f"ef21_w.step_ratio.{name}": near(ratios[name], bar, within)
        for name, (_, _, bar, within) in SETS.items()
    }
    worst = max(result["differ"] for result in results if "differ" in result)
    checks["ef21_w.coincide"] = {"value": worst, "bar": 1e-9, "ok": worst <= 1e-9}
    for result, row in zip(results, constants, strict=False):
        name = result["problem"]
        if "differ" in result and row["L_QM"] > 1.2 * row["L_AM"]:
            found = result["methods"]["EF21-W"]["bits_ratio"][-1]
            checks[f"ef21_w.bits_ratio.{name.replace(' ', '_')}"] = _cells.check(found, at_least=1)
    finish(args, checks, constants, results)


def near(value: float, bar: float, within: float) -> dict[str, Any]:
    return {"value": round(value, 4), "bar": bar, "ok": abs(value / bar - 1) <= within}


def show_constants(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'problem':20} {'n':>5} {'d':>4} {'L':>9} {'L_AM':>9} {'L_QM':>9} {'L_var':>8}  "
        f"{'n w_i: least, median, most':26} {'old step':>9} {'new step':>9} {'ratio':>6} "
        f"{'cloned':>6} {'RF':>6} {'RF, w.':>6}"
    )
    for row in rows:
        weights = " ".join(f"{weight:8.3g}" for weight in row["weights"])
        print(
            f"{row['problem']:20} {row['n']:5} {row['d']:4} {row['L']:9.4g} {row['L_AM']:9.4g} "
            f"{row['L_QM']:9.4g} {row['L_var']:8.2g}  {weights:26} {row['old']:9.3g} "
            f"{row['new']:9.3g} {row['ratio']:6.3f} {row['cloned_ratio']:6.3f} "
            f"{row['rare_ratio']:6.3f} {row['weighted_rare_ratio']:6.3f}"
        )


def solve(problem: Problem, seed: int) -> dict[str, Any]:
    """All methods on a problem."""
    gradients = Gradients(problem.objective, problem.own_features)
    began, traces, methods = time.perf_counter(), {}, {}
    print(f"\n{problem.name}, {problem.rounds} rounds; bits to three gradient norms")
    for method in problem.methods():
        trace = traces[method.name] = run(gradients, method, problem.rounds, seed)
        old = traces[baseline(method)]
        targets = goals(old)
        bits = [bits_to(trace, target) for target in targets]
        before = [bits_to(old, target) for target in targets]
        ratios = [b / a if a is not None and b else None for a, b in zip(bits, before, strict=True)]
        methods[method.name] = {
            "step": method.step,
            "targets": targets,
            "bits": bits,
            "payload_bits": bits_to(trace, targets[-1], trace.payload),
            "bits_ratio": ratios,
            "curve": curve(trace),
        }
        reached = "  ".join(
            f"{target:8.2e}: " + ("not reached     " if a is None else f"{a:8.2e} {r:6.3f} x")
            for target, a, r in zip(targets, bits, ratios, strict=True)
        )
        print(f"  {method.name:22} step {method.step:9.3g}  {reached}", flush=True)
    result = {"problem": problem.name, "rounds": problem.rounds, "methods": methods}
    if "EF21-W" in traces:
        result["differ"] = differ(traces["EF21 new step"], traces["EF21-W"])
    print(f"  {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return result


def goals(trace: Trace) -> list[float]:
    """Three squared gradient norms that the trace reaches, evenly on a logarithmic scale."""
    first, least = trace.norms[0], max(trace.norms.min(), FLOOR * trace.norms[0])
    return [float(first * (least / first) ** part) for part in (1 / 3, 2 / 3, 1)]


def bits_to(trace: Trace, target: float, bits: np.ndarray | None = None) -> int | None:
    """Sent until ||grad f||^2 is at most ``target``; None if it never is."""
    reached = trace.norms <= target * (1 + 1e-12)
    return int((trace.bits if bits is None else bits)[reached.argmax()]) if reached.any() else None


def differ(one: Trace, other: Trace) -> float:
    """The largest ||x - y|| / ||x|| over the points kept; the first is the start, 0."""
    apart = np.linalg.norm(one.points - other.points, axis=1)[1:]
    return float((apart / np.linalg.norm(one.points, axis=1)[1:]).max())


def curve(trace: Trace) -> list[list[float]]:
    """Some [bits, ||grad f||^2], closer together at the beginning."""
    rounds = len(trace.norms)
    places = np.unique(np.geomspace(1, rounds, CURVE).astype(int)) - 1
    return [[int(trace.bits[t]), float(f"{trace.norms[t]:.5g}")] for t in places]


def finish(
    args: argparse.Namespace,
    checks: dict[str, Any],
    constants: list[dict[str, Any]],
    results: list[dict[str, Any]],
) -> None:
    """Write the results, if asked to, and print the last line."""
    content = {
        "experiment": "ef21_w",
        "command": "python experiments/ef21_w.py" + " --quick" * args.quick,
        "seed": args.seed,
        "checks": checks,
        "constants": constants,
        "results": results,
        "environment": _cells.environment(),
    }
    if args.out is not None:
        partial = Path(f"{args.out}.partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.rename(args.out)
    print(json.dumps({"experiment": "ef21_w", "checks": checks}))


if __name__ == "__main__":
    main()
