"""What was lost against what was sent: the figure of the papers on streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tacit.report.figure import Figure, blank, plain
from tacit.report.palette import Style
from tacit.report.streams.rows import StreamRow
from tacit.report.units import human_bytes

#: Points of a horizontal line, so that a pointer anywhere is near one.
_ALONG = 40


def loss_against_bytes(rows: Sequence[StreamRow], styles: Sequence[Style]) -> Figure | None:
    """One mark a run, at the bytes and the cumulative loss of its end; a dashed line for a run that
    sent nothing. Runs that did not see all samples are left out. None for fewer than two runs, and
    where nobody sent anything."""
    drawn = [
        (index, row, style)
        for index, (row, style) in enumerate(zip(rows, styles, strict=True))
        if row.loss is not None and not row.sampled
    ]
    powers = [math.log10(row.total_bytes) for _, row, _ in drawn if row.total_bytes]
    if len(drawn) < 2 or not powers:
        return None
    room = 0.06 * (max(powers) - min(powers)) + 0.1
    span = (min(powers) - room, max(powers) + room)
    axis = {
        "title": {"text": "bytes of all workers in the whole run (log scale)"},
        "type": "log",
        "tickformat": "~s",
        "range": list(span),
        # 1, 2 and 5 of each power: labels in between would run into each other
        "dtick": "D2" if span[1] - span[0] < 3 else 1,
    }
    layout = blank(axis, 380)
    layout["yaxis"].update(title={"text": "cumulative loss"}, tickformat=",", range=_around(drawn))
    data = [
        _mark(index, row, style) if row.total_bytes else _line(index, row, style, span)
        for index, row, style in drawn
    ]
    # lines last would hide marks
    data.sort(key=lambda trace: trace["mode"] == "markers")
    return Figure(
        id="loss-bytes",
        heading="Cumulative loss against bytes",
        caption="Each run at its end; low and left is good." + _remarks(drawn),
        data=data,
        layout=layout,
    )


def _around(drawn: Sequence[tuple[int, StreamRow, Style]]) -> list[float]:
    """The range of losses, with room for a name above the highest line."""
    losses = [row.loss or 0.0 for _, row, _ in drawn]
    low, high = min(losses), max(losses)
    room = (high - low or high or 1.0) * 0.08
    return [low - room, high + 1.5 * room]


def _mark(index: int, row: StreamRow, style: Style) -> dict[str, Any]:
    return {
        **_trace(index, row),
        "mode": "markers",
        "x": [row.total_bytes],
        "y": [row.loss],
        "hovertext": [_describe(row)],
        "marker": {
            "color": style.colour,
            "symbol": style.mark if row.reached else f"{style.mark}-open",
            "size": 13,
        },
    }


def _line(index: int, row: StreamRow, style: Style, span: tuple[float, float]) -> dict[str, Any]:
    first, last = span
    step = (last - first) / (_ALONG - 1)
    return {
        **_trace(index, row),
        "mode": "lines+text",
        "x": [10 ** (first + step * i) for i in range(_ALONG)],
        "y": [row.loss] * _ALONG,
        "hovertext": [_describe(row)] * _ALONG,
        "line": {"color": style.colour, "dash": "dash", "width": 1.5},
        "text": [plain(row.label), *[""] * (_ALONG - 1)],
        "textposition": "top right",
        "textfont": {"color": style.colour, "size": 13},
    }


def _trace(index: int, row: StreamRow) -> dict[str, Any]:
    meta = {"run": index}
    return {"type": "scatter", "name": plain(row.label), "meta": meta, "hoverinfo": "text"}


def _remarks(drawn: Sequence[tuple[int, StreamRow, Style]]) -> str:
    text = ""
    if not all(row.total_bytes for _, row, _ in drawn):
        text += " Dashed: runs that sent nothing, which has no place on a logarithmic axis."
    if not all(row.reached for _, row, _ in drawn):
        text += " Hollow: ended early, so it lost and sent less than in a whole run."
    return text


def _describe(row: StreamRow) -> str:
    spent = row.total_bytes or 0
    lines = [
        f"<b>{plain(row.label)}</b>",
        f"cumulative loss {row.loss:,.3f}",
        f"{spent:,} bytes ({human_bytes(spent)})",
        f"step {row.step or 0:,}, {row.mistakes or 0:,} wrong answers",
    ]
    return "<br>".join(lines)
