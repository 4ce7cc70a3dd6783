"""The report: one HTML file that holds everything it shows and asks the network for nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

import tacit
from tacit.errors import MissingExtra, UserError
from tacit.fleet.ledger import SMALL_MESSAGE
from tacit.report import bars, curves, estimates, sections, words
from tacit.report.data import Row, choose_target, fewest_bytes
from tacit.report.figure import Figure
from tacit.report.palette import styles
from tacit.report.streams.conversations import time_line
from tacit.report.streams.figures import stream_figures
from tacit.report.streams.words import stream_details
from tacit.report.tables import of_streams, table
from tacit.report.units import human_bytes
from tacit.runs import RunRecord


def write_report(runs: Sequence[RunRecord], path: Path, target: float | None = None) -> Path:
    """Compare ``runs`` in one HTML file at ``path``, whole or not at all; gives ``path`` back.

    Without a ``target`` accuracy, it is the highest that every run reached. The file holds
    plotly.js and so has about 5 MB. Raises MissingExtra without plotly, UserError for runs that
    cannot be compared or a path that cannot be written.
    """
    text = render(runs, target, _plotly_js())
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise UserError(f"the report cannot be written to {path}: {reason}") from None
    return path


def render(runs: Sequence[RunRecord], target: float | None, plotly_js: str) -> str:
    """The text of the page."""
    rows = table(runs, target)
    goal = choose_target(runs) if target is None else target
    labels = [row.label for row in rows]
    drawn = styles([row.recipe for row in rows])
    streams = of_streams(rows)
    links = words.values(runs, "link")
    time = words.time_finding(rows, links[0]) if len(links) == 1 else ""
    least = None if streams else fewest_bytes(runs, rows)
    plots = draw(runs, rows, goal)
    values = {
        "title": words.title(runs),
        "compared": words.compared(runs),
        "finding": words.finding(rows, goal),
        "details": " ".join(filter(None, (stream_details(streams), time))),
        "heading": "The whole run" if streams else "To the target",
        "about_target": words.about_target(runs, target),
        "about_figures": words.about_figures(runs, goal),
        "about_bytes": "" if streams else words.ABOUT_BYTES,
        "small": human_bytes(SMALL_MESSAGE),
        "version": tacit.__version__,
    }
    markup = {
        "css": _resource("report.css"),
        "table": sections.main_table(rows, drawn, least),
        "notes": sections.notes(runs, rows, least),
        "legend": sections.legend(labels, drawn),
        "plots": sections.plots(plots),
        "counting": sections.counting(rows),
        "configurations": sections.configurations(runs, labels),
        "figures": _embedded(plots),
        "plotly": plotly_js,
        "script": _resource("script.html"),
    }
    escaped = {key: sections.escape(value) for key, value in values.items()}
    return Template(_resource("page.html")).substitute(escaped | markup)


def draw(runs: Sequence[RunRecord], rows: Sequence[Row], target: float | None) -> list[Figure]:
    """All figures that the runs have data for; ``rows``: of the table to ``target``."""
    labels = [row.label for row in rows]
    drawn = styles([row.recipe for row in rows])
    if streams := of_streams(rows):
        plots = stream_figures(runs, streams, drawn, target)
    else:
        plots = [
            curves.accuracy(axis, runs, labels, drawn, target)
            for axis in (curves.BYTES, curves.STEPS, curves.TIME)
            if any(curves.drawable(axis, row) for run in runs for row in run.rows)
        ]
    if any(row.total_bytes for row in rows):
        plots.append(bars.kinds(rows, drawn))
    for index, run in enumerate(runs):
        for about_run in (time_line, estimates.variance):
            plot = about_run(index, run, labels[index], drawn[index])
            if plot is not None:
                plots.append(plot)
    return plots


def _embedded(plots: Sequence[Figure]) -> str:
    """JSON that can stand in a script element: with every ``<`` written as an escape, nothing in
    it can end the element."""
    plain = [{"id": plot.id, "data": plot.data, "layout": plot.layout} for plot in plots]
    return json.dumps(plain, allow_nan=False).replace("<", "\\u003c")


def _resource(name: str) -> str:
    return resources.files("tacit.report").joinpath(name).read_text(encoding="utf-8")


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtra("plotly", "report") from None
    return str(get_plotlyjs())
