"""Accuracy against what it cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tacit.report.figure import Figure, blank, level, plain
from tacit.report.palette import Style
from tacit.report.thinning import spread
from tacit.report.units import human_bytes, human_seconds, short
from tacit.runs import RunRecord

Evaluated = dict[str, Any]

#: With more evaluations than this, a curve is drawn without marks.
_MARKED = 80

#: How far below the target the accuracy axis starts.
_DEPTH = 0.3


class Axis(NamedTuple):
    """What accuracy is drawn against; ``title`` is that of the axis."""

    name: str
    caption: str
    title: str
    value: Callable[[Evaluated], float | None]
    options: dict[str, Any]


def total(row: Evaluated) -> int:
    """Bytes of all kinds of one evaluation."""
    return sum(row["bytes"].values())


BYTES = Axis(
    "bytes",
    "What all workers together sent and received to get there.",
    "bytes of all workers (log scale)",
    total,
    {"type": "log", "tickformat": "~s"},
)
STEPS = Axis(
    "steps",
    "What the method costs in computation.",
    "steps of each worker",
    lambda row: row["step"],
    {"rangemode": "tozero"},
)
TIME = Axis(
    "time",
    "Computation as measured, messages as predicted for the link.",
    "predicted seconds (log scale)",
    lambda row: row.get("predicted_seconds"),
    {"type": "log", "tickformat": "~g"},
)


def accuracy(
    axis: Axis,
    runs: Sequence[RunRecord],
    labels: Sequence[str],
    styles: Sequence[Style],
    target: float | None,
) -> Figure:
    """Accuracy against bytes, steps or time: two traces for each run, the curve and a larger mark
    where it first reaches the target."""
    data = []
    for index, (run, label, style) in enumerate(zip(runs, labels, styles, strict=True)):
        rows = [row for row in spread(run.rows) if drawable(axis, row)]
        crossing = run.at_target(target) if target is not None else None
        hit = [crossing] if crossing is not None and drawable(axis, crossing) else []
        marks = "lines+markers" if len(rows) <= _MARKED else "lines"
        for points, mode, size in ((rows, marks, 4), (hit, "markers", 11)):
            data.append(
                {
                    "type": "scatter",
                    "name": plain(label),
                    "meta": {"run": index},
                    "mode": mode,
                    "x": [axis.value(row) for row in points],
                    "y": [row["accuracy"] for row in points],
                    "hovertext": [_describe(label, row) for row in points],
                    "hoverinfo": "text",
                    "line": {"color": style.colour, "dash": style.dash, "width": 2},
                    "marker": {"color": style.colour, "symbol": style.mark, "size": size},
                }
            )
    layout = blank({"title": {"text": axis.title}, **axis.options}, 380)
    layout["yaxis"].update(title={"text": "test accuracy"}, tickformat=".2~f")
    if target is not None:
        layout["yaxis"]["range"] = _around(target, runs)
        if axis.options.get("type") == "log":
            _fit(layout["xaxis"], axis, runs, layout["yaxis"]["range"][0])
        level(layout, target, f"target {short(target)}")
    return Figure(
        id=f"accuracy-{axis.name}",
        heading=f"Accuracy against {axis.name}",
        caption=axis.caption + _left_out(axis, runs, labels),
        data=data,
        layout=layout,
        half=axis is not BYTES,
    )


def drawable(axis: Axis, row: Evaluated) -> bool:
    """Whether an evaluation has a place on the axis: a logarithmic one has none for 0."""
    value = axis.value(row)
    if value is None or not math.isfinite(value):
        return False
    return value > 0 or axis.options.get("type") != "log"


def _around(target: float, runs: Sequence[RunRecord]) -> list[float]:
    """The range of accuracies in which methods differ; what lies below is a double click away."""
    seen = [row["accuracy"] for run in runs for row in run.rows]
    low, high = min([*seen, target]), max([*seen, target])
    low = max(low, min(target, max(seen, default=target)) - _DEPTH)
    room = 0.05 * (high - low) + 0.005
    return [low - room, high + 2 * room]


def _fit(xaxis: dict[str, Any], axis: Axis, runs: Sequence[RunRecord], low: float) -> None:
    """Set the range, in powers of ten, to what is drawn above accuracy ``low``, if anything is."""
    shown = [
        math.log10(axis.value(row) or 1.0)
        for run in runs
        for row in run.rows
        if drawable(axis, row) and row["accuracy"] >= low
    ]
    if shown:
        room = 0.04 * (max(shown) - min(shown)) + 0.05
        xaxis["range"] = [min(shown) - room, max(shown) + room]


def _left_out(axis: Axis, runs: Sequence[RunRecord], labels: Sequence[str]) -> str:
    """What a logarithmic axis leaves out."""
    never = [
        label
        for run, label in zip(runs, labels, strict=True)
        if run.rows and not any(drawable(axis, row) for row in run.rows)
    ]
    if never:
        return f" Not drawn, since 0 has no place on a logarithmic axis: {', '.join(never)}."
    if any(not drawable(axis, row) for run in runs for row in run.rows):
        return " Evaluations before the first byte have no place on a logarithmic axis."
    return ""


def _describe(label: str, row: Evaluated) -> str:
    time = row.get("predicted_seconds")
    spent = total(row)
    lines = [
        f"<b>{plain(label)}</b>",
        f"accuracy {row['accuracy']:.4f}",
        f"{spent:,} bytes ({human_bytes(spent)})",
        f"step {row['step']:,}, {row['synchronisations']:,} synchronisations",
    ]
    if time is not None:
        lines.append(f"predicted {time:,.3f} s ({human_seconds(time)})")
    return "<br>".join(lines)
