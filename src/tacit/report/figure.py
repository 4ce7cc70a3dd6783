"""What all figures share: plain plotly.js specifications, and where they stand on the page.

Plain dictionaries need no plotly in Python, and hold no colours of the page: the page gives text
and grid the colours of the reader's scheme.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """``data`` and ``layout`` as plotly.js takes them; ``half``: two of these fit side by side;
    ``run``: the index of the run, if it is about one; ``section``: where such a figure belongs."""

    id: str
    heading: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    half: bool = False
    run: int | None = None
    section: Literal["estimates", "conversations"] | None = None


def plain(text: str) -> str:
    """Text that plotly.js shows as it is: it reads tags, and entities."""
    return html.escape(text, quote=False)


def blank(xaxis: dict[str, Any], height: int) -> dict[str, Any]:
    """A layout without anything in it, ``height`` in pixels."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 18, "b": 48},
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": {"zeroline": False, "automargin": True, **xaxis},
        "yaxis": {"zeroline": False, "automargin": True},
        "shapes": [],
        "annotations": [],
    }


def level(layout: dict[str, Any], y: float, text: str) -> None:
    """A dashed line across, with its name."""
    across = {"xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y}
    layout["shapes"].append({"type": "line", **across, "line": {"dash": "dash", "width": 1.5}})
    layout["annotations"].append(
        {
            "xref": "paper",
            "x": 0,
            "xanchor": "left",
            "y": y,
            "yanchor": "bottom",
            "yshift": 5,
            "showarrow": False,
            "text": text,
        }
    )
