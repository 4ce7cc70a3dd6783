"""Where the concept changed, in figures over steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: More lines than this would be a hatching.
_DRAWN = 100


def mark_drifts(layout: dict[str, Any], drifts: Sequence[int] | None) -> str:
    """Draw a thin vertical line at each step that began with a new concept; returns what the
    caption says if there can be none. ``drifts`` None: the runs had different ones."""
    if drifts is None:
        return " The runs drifted at different steps, which are not drawn."
    if len(drifts) > _DRAWN:
        return f" There were {len(drifts):,} drifts, too many to draw."
    for step in drifts:
        along = {"x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1}
        line = {"dash": "dot", "width": 1.2}
        layout["shapes"].append({"type": "line", "layer": "below", **along, "line": line})
    if drifts:
        at = {"x": drifts[0], "yref": "paper", "y": 1, "yanchor": "bottom"}
        layout["annotations"].append({**at, "showarrow": False, "text": "drift"})
    return ""
