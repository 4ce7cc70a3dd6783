"""What experiments share: many runs, each kept in a file as it ends, and their report.

One thread a run: to be imported before torch, which looks at OMP_NUM_THREADS when it is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from _harness import check, environment

__all__ = ["check", "environment", "finish", "sweep"]

Outcome = TypeVar("Outcome")


def sweep(
    run: Callable[[Any], Outcome],
    kind: Callable[..., Outcome],
    cases: Sequence[Any],
    processes: int,
    cells: Path | None,
) -> list[Outcome]:
    """All runs, in the order of their cases; a line for each as it ends.

    ``run``: from a case, a frozen dataclass with a ``name``, to its outcome, a dataclass of type
    ``kind`` with that ``case``, a ``curve`` and a ``summary``. ``cells``: a folder in which each
    outcome is kept; one that is there is not run again.
    """
    outcomes = {case: found for case in cases if (found := _kept(kind, case, cells)) is not None}
    missing = [case for case in cases if case not in outcomes]
    with multiprocessing.get_context("spawn").Pool(max(1, min(processes, len(missing)))) as pool:
        for outcome in pool.imap_unordered(run, missing, chunksize=1):
            done: Any = outcome
            outcomes[done.case] = outcome
            _keep(done, cells)
            line = f"{len(outcomes):3d}/{len(cases)} {done.case.name}: {done.summary}"
            print(line, file=sys.stderr, flush=True)
    return [outcomes[case] for case in cases]


def finish(
    name: str, outcomes: Sequence[Any], checks: dict[str, Any], out: str | None, **more: Any
) -> None:
    """The results file, where one is asked for, and the last line."""
    content = {"experiment": name, "checks": checks, "environment": environment()}
    if out is not None:
        runs = [dataclasses.asdict(outcome) for outcome in outcomes]
        whole = {**content, "command": " ".join(["python", *sys.argv]), **more, "runs": runs}
        path = Path(f"{out}.partial")
        path.write_text(json.dumps(whole, indent=1) + "\n")
        path.rename(out)
    print(json.dumps(content))


def _kept(kind: Callable[..., Outcome], case: Any, cells: Path | None) -> Outcome | None:
    path = cells / f"{case.name}.json" if cells else None
    if path is None or not path.exists():
        return None
    found = json.loads(path.read_text())
    if found.pop("case") != dataclasses.asdict(case):
        return None
    return kind(case, **{**found, "curve": [tuple(point) for point in found["curve"]]})


def _keep(outcome: Any, cells: Path | None) -> None:
    if cells is None:
        return
    cells.mkdir(parents=True, exist_ok=True)
    partial_path = cells / f"{outcome.case.name}.partial"
    partial_path.write_text(json.dumps(dataclasses.asdict(outcome)) + "\n")
    partial_path.rename(partial_path.with_suffix(".json"))
