"""The parts of the page, as HTML. Every text from a run goes through :func:`escape`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tacit.fleet.ledger import CHARGED
from tacit.report.data import Row, setting
from tacit.report.figure import Figure
from tacit.report.palette import Style
from tacit.report.rerun import command
from tacit.report.streams.words import stream_notes
from tacit.report.tables import headings, of_streams
from tacit.report.units import NONE
from tacit.runs import RunRecord

_SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "cross": "✚",
    "star": "★",
}


def escape(text: str) -> str:
    """Text for HTML content and attributes."""
    return html.escape(text, quote=True)


def main_table(rows: Sequence[Row], styles: Sequence[Style], least: int | None) -> str:
    """The table, of :meth:`Row.cells`; a run with the ``least`` bytes stands out."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headings(rows))
    body = []
    for row, style in zip(rows, styles, strict=True):
        name, *cells = row.cells()
        remarks = [] if row.reached or row.step is None else [row.remark]
        if row.step is None:
            remarks.append("no evaluation")
        if not row.finished:
            remarks.append("not finished")
        tags = "".join(f'<span class="tag">{escape(remark)}</span>' for remark in remarks)
        first = f'<th scope="row">{swatch(style)}<span>{_breakable(name)}</span>{tags}</th>'
        best = row.reached and least is not None and row.total_bytes == least
        texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(
            f'<tr class="{"best" if best else ""}{"" if row.reached else " missed"}">'
            f"{first}{texts}</tr>"
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def notes(runs: Sequence[RunRecord], rows: Sequence[Row], least: int | None) -> str:
    """What a reader must know about the table and these runs."""
    streams = of_streams(rows)
    texts = stream_notes(streams) if streams else _notes_on_targets(rows, least)
    for run, row in zip(runs, rows, strict=True):
        if not run.rows:
            texts.append(f"{row.label} has no evaluation, so there is nothing to draw.")
        elif not row.finished:
            reason = run.summary.get("error")
            why = f" ({reason})" if reason else ""
            last = run.rows[-1]["step"]
            texts.append(
                f"{row.label} did not finish{why}; its last evaluation is at step {last:,}."
            )
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _notes_on_targets(rows: Sequence[Row], least: int | None) -> list[str]:
    texts = []
    if any(row.step is not None and not row.reached for row in rows):
        texts.append("A run that missed the target spent more than (>) the number shown.")
    if any(row.ratio is not None for row in rows) and len(rows) > 1:
        texts.append("“vs synchronous” compares bytes with a synchronous run of the same problem.")
    if least is not None:
        texts.append("Bold: the fewest bytes to the target.")
    if any(row.synchronisations == 0 and row.bytes and row.bytes["gradient"] for row in rows):
        texts.append("“syncs” counts averaged models; gradients are exchanged at every step.")
    return texts


def _breakable(label: str) -> str:
    """A label that may be broken between its words and options."""
    text = escape(label)
    for mark in "_:,":
        text = text.replace(mark, f"{mark}<wbr>")
    return text


def legend(labels: Sequence[str], styles: Sequence[Style]) -> str:
    """One button for each run, which hides and shows it in all figures."""
    if len(labels) == 1:
        return ""
    buttons = "".join(
        f'<button type="button" data-run="{index}" aria-pressed="true">'
        f"{swatch(style)}{escape(label)}</button>"
        for index, (label, style) in enumerate(zip(labels, styles, strict=True))
    )
    return f'<div class="legend" role="group" aria-label="Runs in the figures">{buttons}</div>'


def plots(figures: Sequence[Figure]) -> str:
    """The places of the figures, with their headings; those about single runs come last."""
    if not figures:
        return '<p class="empty">There are no figures: no run has an evaluation.</p>'
    shared = "".join(_plot(figure) for figure in figures if figure.run is None)
    for section, heading in _SECTIONS.items():
        single = "".join(_plot(figure) for figure in figures if figure.section == section)
        shared += f"{heading}{single}" if single else ""
    return shared


def _plot(figure: Figure) -> str:
    heading = escape(figure.heading)
    panel = "" if figure.run is None else f' data-run-panel="{figure.run}"'
    return (
        f'<figure class="{"half" if figure.half else "wide"}"{panel}>'
        f"<figcaption><h3>{heading}</h3><p>{escape(figure.caption)}</p>"
        f"{_SCALE if figure.id == 'kinds' else ''}</figcaption>"
        f'<div id="{figure.id}" class="plot" role="img" aria-label="{heading}" '
        f'style="min-height:{figure.layout["height"]}px"></div></figure>'
    )


_SECTIONS = {
    "conversations": """<h2 class="wide">What the coordinator arranged</h2>
<p class="wide lead">Workers call when their models break the condition. A stem is as high as the
number of models that were then averaged: those of the callers, and as few others as
would do.</p>""",
    "estimates": """<h2 class="wide">When the workers synchronised</h2>
<p class="wide lead">The estimated variance of the models. Triangles mark synchronisations,
which happen when the estimate passes the threshold.</p>""",
}

_SCALE = (
    '<div class="scale" role="group" aria-label="Scale">'
    '<button type="button" data-norm="" aria-pressed="true">bytes</button>'
    '<button type="button" data-norm="percent" aria-pressed="false">share</button></div>'
)


def counting(rows: Sequence[Row]) -> str:
    """Exact bytes by kind, in both conventions."""
    columns = ("recipe", *CHARGED, "all (star)", "all (wire)")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = []
    for row in rows:
        kinds = [row.bytes.get(kind) if row.bytes else None for kind in CHARGED]
        cells = "".join(
            f"<td>{NONE if count is None else format(count, ',')}</td>"
            for count in (*kinds, row.total_bytes, row.ring_bytes)
        )
        body.append(f'<tr><th scope="row">{escape(row.label)}</th>{cells}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def configurations(runs: Sequence[RunRecord], labels: Sequence[str]) -> str:
    """Every run's settings, and how to run it again."""
    parts = []
    for run, label in zip(runs, labels, strict=True):
        config = {"folder": run.path.name, **run.config}
        config.update(options=config["options"] or None, model=setting(run, "model"))
        if config["steps"] is not None:
            config["epochs"] = None  # steps go before epochs
        parts.append(
            f"<h3>{escape(label)}</h3><pre>{escape(command(run.config))}</pre>{_settings(config)}"
        )
    return "".join(parts)


def swatch(style: Style) -> str:
    """A run's mark in its colour."""
    return (
        f'<span class="swatch" style="color:{style.colour}" aria-hidden="true">'
        f"{_SYMBOLS[style.mark]}</span>"
    )


def _settings(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_setting(value))}</dd></div>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NONE if value is None else str(value)
