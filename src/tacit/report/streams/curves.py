"""Loss and bytes step by step, so that the recovery after a drift can be seen, and its price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tacit.report.curves import STEPS
from tacit.report.figure import Figure, blank, plain
from tacit.report.palette import Style
from tacit.report.streams.drifts import mark_drifts
from tacit.report.streams.rounds import Rounds, blocks, common_drifts, window
from tacit.report.thinning import spread
from tacit.report.units import human_bytes

#: About so many points has a curve that is not smoothed.
_POINTS = 200

#: A run that sent so many times more than another presses it to the ground.
_APART = 20

#: One run in a figure: its index, what it wrote down, its name and its looks.
Drawn = tuple[int, Rounds, str, Style]


def loss_over_steps(drawn: Sequence[Drawn], workers: Sequence[int]) -> Figure:
    """The mean batch loss, smoothed. ``workers``: how many trained, of each run."""
    size = window(max(len(record.steps) for _, record, _, _ in drawn))
    data = []
    for (index, record, label, style), count in zip(drawn, workers, strict=True):
        means = blocks(record, record.losses / count, size)
        data.append(
            {
                **_trace(index, label, style),
                "x": [(block.first + block.last) / 2 for block in means],
                "y": [float(f"{block.mean:.6g}") for block in means],
                "hovertext": [
                    f"<b>{plain(label)}</b><br>{_steps(block.first, block.last)}"
                    f"<br>mean loss {block.mean:.4f}"
                    for block in means
                ],
            }
        )
    layout = _layout("mean loss of a batch", drawn)
    drifts = mark_drifts(layout, common_drifts([record for _, record, _, _ in drawn]))
    smoothed = f" Every point is the mean of about {size:,} steps." if size > 1 else ""
    return Figure(
        id="loss-steps",
        heading="Loss against steps",
        caption=f"On the fresh samples of each step, before it.{smoothed}{drifts}",
        data=data,
        layout=layout,
        half=True,
    )


def excess_over_steps(drawn: Sequence[Drawn], best: int) -> Figure:
    """The cumulative loss less that of the run with index ``best``. All runs saw the same samples,
    so what is common to them, most of the loss, drops out."""
    base, name = next((record, label) for index, record, label, _ in drawn if index == best)
    data = []
    for index, record, label, style in drawn:
        n = min(len(record.steps), len(base.steps))
        own = np.cumsum(record.losses[:n])
        more = own - np.cumsum(base.losses[:n])
        points = spread(range(n), _POINTS)
        data.append(
            {
                **_trace(index, label, style),
                "x": [0, *(int(record.steps[i]) for i in points)],
                "y": [0.0, *(float(f"{more[i]:.6g}") for i in points)],
                "hovertext": [
                    f"<b>{plain(label)}</b>",
                    *(
                        f"<b>{plain(label)}</b><br>step {record.steps[i]:,}<br>cumulative loss "
                        f"{own[i]:,.2f}<br>{more[i]:+,.2f} beside {plain(name)}"
                        for i in points
                    ),
                ],
            }
        )
    layout = _layout("cumulative loss beyond the lowest", drawn)
    drifts = mark_drifts(layout, common_drifts([record for _, record, _, _ in drawn]))
    return Figure(
        id="excess-steps",
        heading="Cumulative loss beyond the lowest",
        caption=f"Less that of {name}, on the same samples: a rise is ground lost.{drifts}",
        data=data,
        layout=layout,
        half=True,
    )


def bytes_over_steps(drawn: Sequence[Drawn]) -> Figure | None:
    """Bytes so far, of the runs that sent any; None if there is none."""
    sending = [one for one in drawn if one[1].spent[-1] > 0]
    if not sending:
        return None
    data = []
    for index, record, label, style in sending:
        points = spread(_changes(record), 2 * _POINTS)
        data.append(
            {
                **_trace(index, label, style),
                "x": [step for step, _ in points],
                "y": [spent for _, spent in points],
                "hovertext": [
                    f"<b>{plain(label)}</b><br>step {step:,}<br>{spent:,} bytes "
                    f"({human_bytes(spent)})"
                    for step, spent in points
                ],
            }
        )
        data[-1]["line"]["shape"] = "hv"
    layout = _layout("bytes of all workers so far", sending)
    layout["yaxis"].update(tickformat="~s", rangemode="tozero")
    drifts = mark_drifts(layout, common_drifts([record for _, record, _, _ in sending]))
    ends = [int(record.spent[-1]) for _, record, _, _ in sending]
    hint = " Hide the largest above to see the small." if max(ends) > _APART * min(ends) else ""
    silent = [label for _, record, label, _ in drawn if record.spent[-1] == 0]
    left_out = f" Not drawn, since nothing was sent: {', '.join(silent)}." if silent else ""
    return Figure(
        id="bytes-steps",
        heading="Bytes against steps",
        caption=f"What all workers together have sent and received.{hint}{drifts}{left_out}",
        data=data,
        layout=layout,
        half=True,
    )


def _changes(record: Rounds) -> list[tuple[int, int]]:
    """(step, bytes so far) where bytes were added, with the beginning and the end."""
    grew = np.flatnonzero(np.diff(record.spent, prepend=0))
    kept = [(int(record.steps[i]), int(record.spent[i])) for i in grew]
    return [(0, 0), *kept, (int(record.steps[-1]), int(record.spent[-1]))]


def _steps(first: int, last: int) -> str:
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def _trace(index: int, label: str, style: Style) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": plain(label),
        "meta": {"run": index},
        "mode": "lines",
        "hoverinfo": "text",
        "line": {"color": style.colour, "dash": style.dash, "width": 1.8},
    }


def _layout(title: str, drawn: Sequence[Drawn]) -> dict[str, Any]:
    last = max(int(record.steps[-1]) for _, record, _, _ in drawn)
    layout = blank({"title": {"text": STEPS.title}, "range": [0, 1.01 * last]}, 380)
    layout["margin"]["t"] = 24
    layout["yaxis"].update(title={"text": title})
    return layout
