"""The robust rules against ByzFL 0.0.11: time, memory and arithmetic.

    python benchmarks/robust.py [--quick] [--out FILE] [--only RULE,...] [--n 10,20,50]
        [--d 100000,1000000]

One thread, float32, standard Gaussian rows (n, d), f = n / 5; f = 2 of n = 50 for MDA and SMEA,
where ByzFL looks at every subset. Both libraries get the same rows and take turns: a warm-up, then
at least 5 rounds, 3 where a call takes more than a second; the warm-up alone where more than 10.
Ratios are of median wall times; "cpu" is that of processor times, which a busy machine changes
less. ByzFL takes minutes for SMEA at n = 20 and 50, d = 10^6. Left out: where it would take more
memory than is free. ByzFL's Clipping and ARC write into the caller's rows, so they get a copy,
which is timed: the rows are the same afterwards, as Tacit leaves them.

speedup.RULE.nN.dD   ByzFL's time over Tacit's
memory.RULE          extra peak memory, output included, over the input's bytes (``_peak_memory``)
accuracy.RULE        relative error against float64
neighbours.nna       models with a common part of norm 1 that differ by 1e-5, 5 outliers of 26 by 3
                     times that: in how many trials are the chosen not those of float64?

Before that the two must agree to 1e-5 where they mean the same, or the benchmark fails. ByzFL is
no dependency: ``make byzfl``. ``--quick`` is small, and does without it; where it is there, times
are shown but not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _byzfl import HOW, VERSION, byzfl
from _harness import check, environment
from _peak_memory import peaks
from _robust_reference import chosen, matched_buckets, nearest, reference
from _robust_rules import RULES, bad, models, noise, senders
from torch import Tensor

#: At n = 20 and 50, d = 10^6; those below only at n = 50; elsewhere never slower than by noise.
BARS = dict.fromkeys(("trimmed_mean", "median", "meamed", "nnm"), 8.0) | dict.fromkeys(
    ("krum", "multi_krum", "geometric_median", "caf"), 4.0
)
BARS_50 = {"mda": 3.0, "nna": 3.0}
NEVER_SLOWER = 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 10, d = 10^4; without ByzFL too")
    parser.add_argument("--out", help="a file for everything that was measured, JSON")
    parser.add_argument("--only", help="some rules, with , between; of timings alone")
    parser.add_argument("--n", default="10,20,50")
    parser.add_argument("--d", default="100000,1000000")
    args = parser.parse_args()
    torch.set_num_threads(1)
    library = byzfl()
    if library is None and not args.quick:
        print(HOW, file=sys.stderr)
        return 2
    sizes = [int(n) for n in args.n.split(",")]
    widths = [int(d) for d in args.d.split(",")]
    if args.quick:
        sizes, widths = [10], [10_000]
    names = args.only.split(",") if args.only else list(RULES)
    print(f"one thread (OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}), float32")
    checks: dict[str, Any] = {}
    cells: list[dict[str, Any]] = []
    if library is None:
        print(f"no comparison: {HOW}")
    else:
        agree(library, names, sizes, 10_000 if args.quick else 100_000)
        cells = timings(library, names, sizes, widths, {} if args.quick else checks)
    if not args.only:
        size = (10, 500_000) if args.quick else (20, 1_000_000)
        cells += memory(*size, library is not None, checks)
        accuracy(*((10, 10_000) if args.quick else (20, 100_000)), checks)
        cells += neighbours(library, *((5, 50_000) if args.quick else (20, 431_080)), checks)
    content = {"benchmark": "robust", "checks": checks, "environment": environment()}
    if args.out:
        command = " ".join(["python", *sys.argv])
        whole = {**content, "byzfl": library and VERSION, "command": command, "cells": cells}
        Path(args.out).write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(content))
    return 0


def error(found: Tensor, expected: Any) -> float:
    """Relative, of all numbers together."""
    expected = torch.as_tensor(expected).double()
    return float((found.double() - expected).norm() / expected.norm())


def agree(library: ModuleType, names: list[str], sizes: list[int], d: int) -> None:
    """Ends the program where the two differ though they mean the same."""
    print(f"\ndifference from ByzFL, d = {d:,}")
    wrong = []
    for name in names:
        rule, found = RULES[name], []
        for n in sizes:
            if rule.differs:
                break
            f = bad(name, n)
            rows = senders(n, f, d)
            difference = error(rule.ours(n, f)(rows), rule.theirs(library, f)(rows))
            found.append(f"{difference:.1e}")
            wrong += [f"{name} at n = {n}: {difference:.1e}"] if difference > 1e-5 else []
        print(f"{name:20}{'  '.join(found) or 'not the same: ' + rule.differs}")
    if wrong:
        sys.exit(f"ByzFL and Tacit must agree to 1e-5 and do not: {'; '.join(wrong)}")


def timings(
    library: ModuleType, names: list[str], sizes: list[int], widths: list[int], checks: Any
) -> list[dict[str, Any]]:
    print(f"\n{'milliseconds':20}{'n':>4}{'f':>4}{'d':>10}{'Tacit':>10}{'ByzFL':>10}{'ratio':>8}"
          f"{'bar':>6}{'cpu':>8}{'rounds':>8}")  # fmt: skip
    cells = []
    for d in widths:
        for n in sizes:
            rows = noise(n, d)
            for name in names:
                f = bad(name, n)
                start = f"{name:20}{n:4d}{f:4d}{d:10,}"
                needed = 1.2 * 4 * n * (n - f) * d
                if name == "nnm" and needed > 1e9 and needed > free():
                    print(f"{start}  left out: ByzFL would need {needed / 1e9:.1f} GB")
                    continue
                ours, theirs = RULES[name].ours(n, f), RULES[name].theirs(library, f)
                (a, b), cpu, rounds = turns(lambda: ours(rows), lambda: theirs(rows))  # noqa: B023
                large = d == 1_000_000 and n in (20, 50)
                bar = BARS.get(name, NEVER_SLOWER) if large else NEVER_SLOWER
                bar = BARS_50.get(name, bar) if large and n == 50 else bar
                print(f"{start}{1e3 * a:10.2f}{1e3 * b:10.2f}{b / a:8.2f}{bar:6g}"
                      f"{cpu[1] / cpu[0]:8.2f}{rounds:8d}", flush=True)  # fmt: skip
                checks[f"speedup.{name}.n{n}.d{d}"] = check(b / a, at_least=bar)
                seconds = {"tacit": a, "byzfl": b, "cpu_ratio": cpu[1] / cpu[0], "rounds": rounds}
                cells.append({"rule": name, "n": n, "f": f, "d": d, **seconds})
    return cells


def turns(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any, int]:
    """Both take turns: the median seconds of each, of wall time and of processor time, and of how
    many rounds."""

    def once(function: Callable[[], Any]) -> tuple[float, float]:
        wall, busy = time.perf_counter(), time.process_time()
        function()
        return time.perf_counter() - wall, time.process_time() - busy

    once(ours)
    first = (*once(ours), *once(theirs))
    slow = max(first[0], first[2])
    rounds = 1 if slow > 10 else 3 if slow > 1 else min(41, max(5, int(0.3 / slow)))
    times = [first] if rounds == 1 else [(*once(ours), *once(theirs)) for _ in range(rounds)]
    wall, busy, their_wall, their_busy = (
        statistics.median(each) for each in zip(*times, strict=True)
    )
    return (wall, their_wall), (busy, their_busy), rounds


def free() -> float:
    """Bytes of memory that are to be had, as far as is known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(x.split()[1] for x in lines if x.startswith("MemAvailable")))
    except (OSError, StopIteration):
        return float("inf")


def memory(n: int, d: int, theirs: bool, checks: Any) -> list[dict[str, Any]]:
    size = 4 * n * d
    print(f"\nextra peak memory over the input's {size / 1e6:.0f} MB, n = {n}, d = {d:,}")
    found = peaks(n, d, theirs)
    if not found:
        print("not measured: /proc/self/clear_refs of Linux tells, and is not here")
    print(f"{'':20}{'Tacit':>10}{'ByzFL':>10}" if found else "")
    for name, (own, other) in found.items():
        beside = "" if other is None else f"{other / size:10.2f}"
        print(f"{name:20}{(own or 0) / size:10.2f}{beside}")
        checks[f"memory.{name}"] = check((own or 0) / size, at_most=1.25)
    return [
        {"rule": name, "n": n, "d": d, "tacit_bytes": own, "byzfl_bytes": other}
        for name, (own, other) in found.items()
    ]


def accuracy(n: int, d: int, checks: Any) -> None:
    print(f"\nrelative error against float64, n = {n}, d = {d:,}")
    for name, rule in RULES.items():
        f = bad(name, n)
        rows = senders(n, f, d)
        found, wide = rule.ours(n, f)(rows), rows.double().numpy()
        if name == "bucketing":
            expected = matched_buckets(wide, found.double().numpy())
        else:
            expected = reference(name, wide, f)
        value = error(found, expected)
        print(f"{name:20}{value:10.1e}")
        checks[f"accuracy.{name}"] = {**check(value, at_most=1e-5), "value": float(f"{value:.2g}")}


def neighbours(
    library: ModuleType | None, trials: int, d: int, checks: Any
) -> list[dict[str, Any]]:
    """How often NNA, and ByzFL's MoNNA, choose others than float64 does."""
    n, f = 26, 5
    wrong, their_wrong, admitted, missed = 0, 0, [], []
    for trial in range(trials):
        rows = models(trial, n, f, d)
        wide = rows.double().numpy()
        expected = nearest(wide, f).tolist()
        wrong += chosen(wide, RULES["nna"].ours(n, f)(rows).double().numpy()) != expected
        if library is not None:
            theirs = chosen(wide, RULES["nna"].theirs(library, f)(rows).double().numpy())
            their_wrong += theirs != expected
            admitted.append(sum(i >= n - f for i in theirs))
            missed.append(len(set(expected) - set(theirs)))
    print(f"\nneighbours, n = {n}, f = {f}, d = {d:,}: not those of float64 in {wrong} of {trials}")
    checks["neighbours.nna"] = check(wrong, at_most=0)
    if library is None:
        return []
    print(
        f"ByzFL's MoNNA: in {their_wrong} of {trials}; of {f} outliers it admits "
        f"{statistics.mean(admitted):.1f} on average, {max(admitted)} at most"
    )
    theirs_found = {"wrong": their_wrong, "admitted": admitted, "missed": missed}
    return [{"rule": "nna", "n": n, "d": d, "trials": trials, "byzfl_neighbours": theirs_found}]


if __name__ == "__main__":
    sys.exit(main())
