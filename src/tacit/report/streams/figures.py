"""Which figures runs on streams have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tacit.report import curves
from tacit.report.data import PROBLEM, setting
from tacit.report.figure import Figure
from tacit.report.palette import Style
from tacit.report.streams.curves import Drawn, bytes_over_steps, excess_over_steps, loss_over_steps
from tacit.report.streams.drifts import mark_drifts
from tacit.report.streams.rounds import common_drifts, read_rounds, streamed, trained
from tacit.report.streams.rows import StreamRow
from tacit.report.streams.trade import loss_against_bytes
from tacit.runs import RunRecord


def stream_figures(
    runs: Sequence[RunRecord],
    rows: Sequence[StreamRow],
    styles: Sequence[Style],
    target: float | None,
) -> list[Figure]:
    """The figures about all runs together; ``rows``: of their table; ``target``: if one was asked
    for."""
    drawn: list[Drawn] = [
        (index, read_rounds(run), row.label, style)
        for index, (run, row, style) in enumerate(zip(runs, rows, styles, strict=True))
        if streamed(run)
    ]
    found = [
        loss_against_bytes(rows, styles),
        loss_over_steps(drawn, [trained(runs[index]) for index, *_ in drawn]),
        _excess(runs, rows, drawn),
        bytes_over_steps(drawn),
        _accuracy(runs, [row.label for row in rows], styles, drawn, target),
    ]
    return [figure for figure in found if figure is not None]


def _excess(
    runs: Sequence[RunRecord], rows: Sequence[StreamRow], drawn: Sequence[Drawn]
) -> Figure | None:
    """None for a single run, and where runs had different samples."""
    drawn = [one for one in drawn if not rows[one[0]].sampled]
    samples = {
        tuple(setting(runs[index], key) for key in (*PROBLEM, "seed")) for index, *_ in drawn
    }
    if len(drawn) < 2 or len(samples) > 1:
        return None
    complete = [index for index, *_ in drawn if rows[index].reached]
    return excess_over_steps(drawn, min(complete, key=lambda index: rows[index].loss or 0.0))


def _accuracy(
    runs: Sequence[RunRecord],
    labels: Sequence[str],
    styles: Sequence[Style],
    drawn: Sequence[Drawn],
    target: float | None,
) -> Figure:
    """Over steps alone: bytes of long ago say little about the accuracy of the moment."""
    figure = curves.accuracy(curves.STEPS, runs, labels, styles, target)
    drifts = mark_drifts(figure.layout, common_drifts([record for _, record, _, _ in drawn]))
    caption = f"The mean of all models, on held-out samples of the concept of that step.{drifts}"
    return dataclasses.replace(figure, caption=caption)
