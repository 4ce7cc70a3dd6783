"""Why the workers synchronised: the estimates of a trigger and its threshold."""

from __future__ import annotations

import math
from typing import Any

from tacit.report.curves import STEPS
from tacit.report.figure import Figure, blank, level
from tacit.report.palette import Style
from tacit.report.thinning import thin
from tacit.runs import RunRecord


def variance(index: int, run: RunRecord, label: str, style: Style) -> Figure | None:
    """The estimates of one run with the threshold, and its synchronisations; None if it has no
    estimates, or these are not compared with a threshold."""
    theta = next((r["threshold"] for r in run.rows if r.get("threshold") is not None), None)
    checks = [
        (step, estimate, bool(fired))
        for row in run.rows
        for step, estimate, fired in row.get("checks", ())
        if estimate is not None and math.isfinite(estimate)
    ]
    if not checks or theta is None:
        return None
    line = thin(checks)
    fired = [check for check in checks if check[2]]
    shared = {"type": "scatter", "hoverinfo": "text", "meta": {"run": index}}
    data: list[dict[str, Any]] = [
        {
            **shared,
            "name": "estimate",
            "mode": "lines",
            "x": [step for step, _, _ in line],
            "y": [estimate for _, estimate, _ in line],
            "hovertext": [f"step {step:,}<br>estimate {e:.6g}" for step, e, _ in line],
            "line": {"color": style.colour, "width": 1.2},
        },
        {
            **shared,
            "name": "synchronisation",
            "mode": "markers",
            "x": [step for step, _, _ in fired],
            "y": [estimate for _, estimate, _ in fired],
            "hovertext": [f"step {s:,}<br>estimate {e:.6g}<br>synchronised" for s, e, _ in fired],
            "marker": {"color": style.colour, "symbol": "triangle-down", "size": 9},
        },
    ]
    layout = blank({"title": {"text": STEPS.title}, "rangemode": "tozero"}, 280)
    heights = [estimate for _, estimate, _ in checks]
    top = 1.2 * max(theta, *heights) or 1.0
    # a sketch's estimate can fall a little below 0
    layout["yaxis"].update(title={"text": "variance estimate"}, range=[min(0, *heights), top])
    level(layout, theta, f"threshold {theta:g}")
    caption = (
        f"{len(checks):,} estimates and {len(fired):,} synchronisations "
        f"in {run.rows[-1]['step']:,} steps."
    )
    return Figure(f"variance-{index}", label, caption, data, layout, run=index, section="estimates")
