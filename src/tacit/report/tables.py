"""The table of a comparison: costs up to a target, or on streams, of the whole run."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.report.data import HEADINGS, Row, rows_to_target
from tacit.report.streams.rounds import on_stream
from tacit.report.streams.rows import StreamRow, stream_headings, stream_rows
from tacit.runs import RunRecord


def table(runs: Sequence[RunRecord], target: float | None = None) -> Sequence[Row]:
    """One row for each run, in their order: :class:`StreamRow` if all runs learned from streams.

    ``target``: an accuracy; by default that of ``choose_target``. Raises UserError when there are
    no runs, the target is no accuracy, or a metrics file was not written by this library.
    """
    return stream_rows(runs, target) if on_stream(runs) else rows_to_target(runs, target)


def headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of a table, as the rows' ``cells`` fill them."""
    streams = of_streams(rows)
    return stream_headings(streams) if streams else HEADINGS


def of_streams(rows: Sequence[Row]) -> list[StreamRow]:
    """The rows, if all are of runs on streams, else none."""
    found = [row for row in rows if isinstance(row, StreamRow)]
    return found if len(found) == len(rows) else []
