"""Paired timings and the report that every benchmark ends with.

Ratios are what benchmarks here promise, since the speed of a machine changes from minute to minute:
so the things compared are timed in turn, many times over, and medians are divided.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any


def paired(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each case over ``repeats`` rounds; a round runs every case once, in turn.

    Two rounds before that are not counted: they compile, and fill the caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(-2, repeats):
        for name, run in cases.items():
            begin = time.perf_counter()
            run()
            end = time.perf_counter()
            if round_ >= 0:
                seconds[name].append(end - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}


def check(
    value: float, *, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    """One line of a report: a measured value against its bar. Give one of the two bars."""
    if (at_most is None) == (at_least is None):
        raise ValueError("a check has exactly one bar")
    bar = at_most if at_most is not None else at_least
    ok = value <= bar if at_most is not None else value >= bar  # type: ignore[operator]
    return {"value": round(value, 4), "bar": bar, "ok": bool(ok)}


def report(checks: Mapping[str, Mapping[str, Any]], benchmark: str | None = None) -> None:
    """Print the report as one line of JSON, to be the last line of the output.

    ``benchmark`` defaults to the script's name. A bar that is missed is data, not a failure.
    """
    name = benchmark or os.path.splitext(os.path.basename(sys.argv[0]))[0]
    print(json.dumps({"benchmark": name, "checks": checks, "environment": environment()}))


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    versions = {}
    for package in ("torch", "numpy", "numba"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        **versions,
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
