"""Bytes by kind."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.report.data import Row
from tacit.report.figure import Figure, blank, plain
from tacit.report.palette import KINDS, Style
from tacit.report.tables import of_streams
from tacit.report.units import human_bytes


def kinds(rows: Sequence[Row], styles: Sequence[Style]) -> Figure:
    """Bytes to the target (on streams, of the whole run) by kind, one stacked bar for each run that
    has an evaluation."""
    shown = [(row, style) for row, style in zip(rows, styles, strict=True) if row.bytes is not None]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind,
            "x": [(row.bytes or {}).get(kind, 0) for row, _ in shown],
            "y": list(range(len(shown))),
            "width": 0.34,
            "marker": {"color": colour},
            "hovertext": [_of_kind(row, kind) for row, _ in shown],
            "hoverinfo": "text",
        }
        for kind, colour in KINDS.items()
        if any(row.bytes and row.bytes.get(kind) for row, _ in shown)
    ]
    title = "bytes of all workers"
    layout = blank(
        {"title": {"text": title}, "tickformat": "~s", "rangemode": "tozero"},
        100 + 58 * len(shown),
    )
    layout.update(barmode="stack", showlegend=True)
    layout["legend"] = {
        "orientation": "h",
        "x": 0,
        "y": 1,
        "yanchor": "bottom",
        "traceorder": "normal",
    }
    layout["margin"].update(l=8, t=48)
    # a little room above the first bar, for its name
    layout["yaxis"].update(range=[len(shown) - 0.5, -0.75], visible=False, fixedrange=True)
    layout["annotations"] = [
        {
            "xref": "paper",
            "x": 0,
            "xanchor": "left",
            "y": index - 0.2,
            "yanchor": "bottom",
            "showarrow": False,
            "align": "left",
            "text": f'<span style="color:{style.colour}">■</span> '
            f"<b>{human_bytes(row.total_bytes or 0)}</b> {plain(row.label)}"
            f"{'' if row.reached else f' ({row.remark})'}",
        }
        for index, (row, style) in enumerate(shown)
    ]
    end = "in the whole run" if of_streams(rows) else "up to the target"
    return Figure("kinds", "Bytes by kind", f"What was sent {end}.", data, layout)


def _of_kind(row: Row, kind: str) -> str:
    count, everything = (row.bytes or {}).get(kind, 0), row.total_bytes or 0
    share = f" ({count / everything:.2%} of {everything:,})" if everything else ""
    return f"<b>{plain(row.label)}</b><br>{kind} {count:,} bytes{share}"
