"""Who talked with the coordinator, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tacit.report.curves import STEPS
from tacit.report.figure import Figure, blank
from tacit.report.palette import PARTIAL, VIOLATION, Style
from tacit.report.streams.drifts import mark_drifts
from tacit.report.streams.rounds import conversations
from tacit.report.thinning import Conversation, thin_conversations
from tacit.runs import RunRecord

#: With more conversations than this, marks are smaller.
_ROOMY = 150


def time_line(index: int, run: RunRecord, label: str, style: Style) -> Figure | None:
    """A stem for each conversation of one run, as high as it had members, and a mark at the number
    of those who called. None without conversations, and where nobody called because of a
    violation: averages at fixed steps are no news."""
    settled = conversations(run)
    if not settled or not _by_violation(run):
        return None
    shown = thin_conversations(settled)
    full = [one for one in shown if one[3]]
    partial = [one for one in shown if not one[3]]
    scale = 1.0 if len(shown) <= _ROOMY else 0.6
    calls = [called for _, called, _, _ in shown]
    members = [[members for _, _, members, _ in part] for part in (full, partial)]
    heads = [
        _heads("full synchronisation", full, members[0], style.colour, "triangle-down", 10 * scale),
        _heads("partial balancing", partial, members[1], PARTIAL, "circle", 8 * scale),
    ]
    data = [
        _stems(full, heads[0], 2 * scale),
        _stems(partial, heads[1], 2 * scale),
        *heads,
        _heads("violations", shown, calls, VIOLATION, "line-ew-open", 6 * scale),
    ]
    data[-1]["marker"]["line"] = {"width": 2.5 * scale}
    workers = run.config["workers"]
    layout = blank({"title": {"text": STEPS.title}}, 260)
    layout["xaxis"]["range"] = [0, run.rows[-1]["step"] * 1.01]
    layout["yaxis"].update(title={"text": "workers"}, range=[0, workers * 1.1], tickformat="d")
    layout.update(showlegend=True)
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.1, "yanchor": "bottom"}
    layout["margin"]["t"] = 64
    drifts = mark_drifts(layout, [step for row in run.rows for step in row.get("drifts", ())])
    return Figure(
        id=f"conversations-{index}",
        heading=label,
        caption=_caption(settled, len(shown)) + drifts,
        data=data,
        layout=layout,
        run=index,
        section="conversations",
    )


def _by_violation(run: RunRecord) -> bool:
    return any(estimate for row in run.rows for _, estimate, _ in row.get("checks", ()))


def _caption(settled: Sequence[Conversation], shown: int) -> str:
    whole = sum(one[3] for one in settled)
    calls, last = sum(one[1] for one in settled), len(settled)
    text = (
        f"{whole:,} full synchronisation{'' if whole == 1 else 's'}, {last - whole:,} partial; "
        f"{calls:,} violation{'' if calls == 1 else 's'}."
    )
    if shown < last:
        text += f" {shown:,} of these {last:,} conversations are drawn: the largest and smallest."
    return text


def _heads(
    name: str,
    settled: Sequence[Conversation],
    heights: list[int],
    colour: str,
    mark: str,
    size: float,
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": name,
        "mode": "markers",
        "x": [step for step, _, _, _ in settled],
        "y": heights,
        "hovertext": [_describe(one) for one in settled],
        "hoverinfo": "text",
        "marker": {"color": colour, "symbol": mark, "size": size},
    }


def _stems(settled: Sequence[Conversation], heads: dict[str, Any], width: float) -> dict[str, Any]:
    """All stems as one broken line, which goes where its heads go."""
    heads["legendgroup"] = heads["name"]
    xs: list[int | None] = []
    ys: list[int | None] = []
    for step, _, members, _ in settled:
        xs += [step, step, None]
        ys += [0, members, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "y": ys,
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": heads["name"],
        "line": {"color": heads["marker"]["color"], "width": width},
    }


def _describe(one: Conversation) -> str:
    step, callers, members, whole = one
    kind = "full synchronisation" if whole else "partial balancing"
    calls = f"{callers:,} violation{'' if callers == 1 else 's'}"
    return f"step {step:,}<br>{kind} of {members:,}<br>{calls}"
