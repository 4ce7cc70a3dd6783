"""Time to the same accuracy over real links: Tacit beside what PyTorch users have today.

    python benchmarks/link.py [--quick] [--profiles wan,edge] [--models cnn] [--ranks 2] ...

Real processes and real TCP. Each rank has a network namespace of its own; `lan`, `wan` and `edge`
are shaped and delayed (links/network.py), which needs root; `loopback` does not. What a method
computes does not depend on the link, so the number of steps it needs to the target is found on
loopback (links/targets.py); then exactly so many steps are timed on each link, and the final model
is tested again. Evaluation is never inside the timed part; the last
averaging is, for methods whose models differ from rank to rank.

link.wan.vs_ddp, link.edge.vs_ddp, link.loopback.vs_ddp    time to target: DDP over the best FDA
link.wan.vs_best_peer, link.edge.vs_best_peer              the best other method over the best FDA
link.wan.step_ratio    time of a step: the best FDA over the same steps without communication
link.ledger_error      the ledger's bytes on the wire against the interface counters, model messages
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _harness import environment, report
from links.cells import Case, run_cell
from links.methods import method
from links.network import PROFILES, obstacle
from links.table import Row, checks, show
from links.targets import Tester, steps_to_target

from tacit.errors import UserError, unknown

PEERS = [
    "ddp",
    "ddp_bf16",
    "powersgd_1",
    "powersgd_2",
    "powersgd_4",
    "postlocal_4",
    "postlocal_16",
    "postlocal_64",
    "diloco:period=50",
]
LATE = "every=10,lag=10"
FDA = [
    f"fda:theta={theta}{options}"
    for theta in (30, 100)
    for options in ("", f",{LATE}", f",{LATE},overlap=30")
]
#: Nothing but model messages, to hold the ledger against the counters.
LEDGER = "local_sgd:period=4"
QUICK = ["local", "ddp", f"fda:theta=100,{LATE},overlap=30"]


def main() -> None:
    args = parse()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        rows = measure(args)
    except UserError as error:
        sys.exit(f"link.py: {error}")
    found = checks(rows)
    if args.out:
        content = {
            "command": " ".join(["python", *sys.argv]),
            "target": args.target,
            "rows": [row.as_dict() for row in rows],
            "checks": found,
            "environment": environment(),
        }
        partial = Path(f"{args.out}.partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.rename(args.out)
    report(found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="loopback, easy data, under a minute")
    parser.add_argument("--profiles", default="edge,wan,lan,loopback", help="in this order")
    parser.add_argument("--models", default="cnn", help="of cnn, lenet5")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--methods", help="separated by spaces; a recipe with options is one too")
    parser.add_argument("--target", type=float, default=0.98, help="test accuracy")
    parser.add_argument("--limit", type=int, default=1000, help="steps")
    parser.add_argument("--steps", type=int, help="time so many steps; look for no target")
    parser.add_argument("--every", type=int, default=25, help="steps between tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cap", type=float, help="seconds a cell may take; then it is cut")
    parser.add_argument("--out", help="a file for everything that was measured, JSON")
    args = parser.parse_args()
    if args.quick:
        args.profiles, args.models, args.target = "loopback", "cnn", 0.9
        args.methods = args.methods or " ".join(QUICK)
        args.limit, args.every = 60, 10
    for name in args.profiles.split(","):
        if name not in PROFILES:
            raise SystemExit(f"link.py: {unknown('profile', name, PROFILES)}")
        if problem := obstacle(PROFILES[name]):
            raise SystemExit(
                f"link.py: profile {name}: {problem}; --profiles loopback runs without it"
            )
    return args


def measure(args: argparse.Namespace) -> list[Row]:
    """All rows of the table, printed as they come."""
    source = "patterns" if args.quick else "mnist"
    names = args.methods.split() if args.methods else [*PEERS, "local", *FDA, "local", LEDGER]
    rows: list[Row] = []
    lock = threading.Lock()
    testers = {model: Tester(model, source) for model in args.models.split(",")}
    cases = [Case(m, name, args.ranks, args.seed, source) for m in testers for name in names]
    needed = {case: find_steps(case, testers[case.model], args) for case in cases}

    def run(case: Case, profile: str) -> None:
        steps = needed[case]
        if steps is not None:
            outcome = run_cell(case, PROFILES[profile], steps, [steps], args.cap)
            with lock:
                rows.append(Row.of(case, profile, outcome, testers[case.model], args.target))
                print(rows[-1].line(), flush=True)

    with ThreadPoolExecutor(max_workers=8) as background:
        later = []
        for profile in args.profiles.split(","):
            # beside the slowest link these do little but wait, and disturb nobody
            idle = [c for c in cases if profile == "edge" and method(c.method).waits]
            later += [background.submit(run, case, profile) for case in idle]
            for case in cases:
                if case not in idle:
                    run(case, profile)
        for future in later:
            future.result()
    show(rows)
    return rows


def find_steps(case: Case, tester: Tester, args: argparse.Namespace) -> int | None:
    if args.steps is not None:
        return int(args.steps)
    if case.method in ("local", LEDGER):
        return min(args.limit, 300)  # not a contender: its steps are timed, or its bytes counted
    steps = steps_to_target(case, tester, args.target, args.limit, args.every)
    said = f"{steps} steps" if steps else f"not within {args.limit} steps"
    print(f"{case.model}, {method(case.method).label}: {args.target:.1%} after {said}", flush=True)
    return steps


if __name__ == "__main__":
    main()
