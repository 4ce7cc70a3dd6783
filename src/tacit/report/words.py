"""What the report says in sentences: what was compared, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tacit.errors import UserError
from tacit.fleet import Link
from tacit.report.data import Row, choose_target, setting
from tacit.report.streams.rounds import on_stream
from tacit.report.streams.words import about_costs, best_and_base, stream_finding
from tacit.report.tables import of_streams
from tacit.report.units import human_bytes, human_seconds, listed, short, times
from tacit.runs import RunRecord

#: More runs than this are counted, not named.
_NAMED = 3

#: What the reader must know about bytes up to a target.
ABOUT_BYTES = (
    "Bytes up to the target are those at the first evaluation that reaches it, so they are as fine "
    "as the evaluations are frequent."
)

_UNITS = {"Gbit": 1e9, "Mbit": 1e6, "kbit": 1e3, "bit": 1.0}


def title(runs: Sequence[RunRecord]) -> str:
    """``mlp on digits, 10 workers``."""
    model, task = (listed(values(runs, key)) for key in ("model", "task"))
    return f"{model} on {task}, {workers(runs)}"


def compared(runs: Sequence[RunRecord]) -> str:
    """One sentence: what was run, where the runs differ, and for which link it was timed."""
    count = f"{len(runs)} runs" if len(runs) > 1 else "One run"
    seeds = values(runs, "seed")
    # a stream is not split: every worker has its own samples
    details = [] if on_stream(runs) else [f"data split {listed(values(runs, 'partition'))}"]
    if lies := liars(runs):
        details.append(lies)
    details.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds)}")
    for key, name in (("batch_size", "batch size"), ("optimizer", "optimizer")):
        if values(runs, key) != [None]:
            named = ["the task's own" if v is None else v for v in values(runs, key)]
            details.append(f"{name} {listed(named)}")
    links = listed([describe_link(link) for link in values(runs, "link")])
    return (
        f"{count} of {listed(values(runs, 'model'))} on {listed(values(runs, 'task'))} with "
        f"{workers(runs)} ({', '.join(details)}), timed for {links}."
    )


def about_target(runs: Sequence[RunRecord], target: float | None) -> str:
    """Which target the table is about, and who chose it; on streams there is none."""
    if on_stream(runs):
        return about_costs(runs)
    if target is not None:
        return f"Costs up to the first evaluation with accuracy {short(target)} or more."
    target = choose_target(runs)
    if target is None:
        return "There is no accuracy that every run reached, so costs are those of the whole run."
    who = "that every run reached" if len(runs) > 1 else "that the run reached"
    return (
        f"No target was given. Costs are those up to accuracy {short(target)}, the highest "
        f"{who} (rounded down to half a percent)."
    )


def about_figures(runs: Sequence[RunRecord], target: float | None) -> str:
    """How to read the figures; nothing where there are none."""
    if not any(run.rows for run in runs):
        return ""
    marks = "Large marks: the first evaluation at the target. " if target is not None else ""
    if any(row.get("drifts") for run in runs for row in run.rows):
        marks += "Dotted lines: drifts, the steps at which a new concept begins. "
    return f"{marks}Drag to zoom in, double-click to see whole curves."


def finding(rows: Sequence[Row], target: float | None) -> str:
    """The headline, from the rows of ``table(runs, target)``; ``target`` None: there was none."""
    seen = [row for row in rows if row.step is not None]
    if not seen:
        return "No run has been evaluated yet, so there is nothing to compare."
    if streams := of_streams(rows):
        return stream_finding(streams)
    top = max(seen, key=lambda row: row.best_accuracy or 0.0)
    highest = short(top.best_accuracy or 0.0)
    if target is None:
        return f"The highest accuracy is {highest}, by {top.label}."
    goal = short(target)
    reached = [row for row in seen if row.reached]
    if not reached and len(rows) == 1:
        return f"{top.label} did not reach {goal}; its best accuracy is {highest}."
    if not reached:
        return f"No run reached {goal}. The nearest is {top.label}, with {highest}."
    missed = [row.label for row in seen if not row.reached]
    who = listed(missed) if len(missed) <= _NAMED else f"{len(missed)} of the runs"
    end = f" {who} did not reach it." if missed else ""
    return _cheapest(reached, goal) + end


def _cheapest(reached: Sequence[Row], goal: str) -> str:
    top = winner(reached)
    if top is not None and top.ratio is not None:
        if top.ratio >= 1.05:
            fewer = f"{times(top.ratio)} times fewer bytes than {top.reference}"
            return f"{top.label} reached {goal} with {fewer}."
        return f"No run reached {goal} with clearly fewer bytes than synchronous."
    top, *others = sorted(reached, key=lambda row: row.total_bytes or 0)
    spent = human_bytes(top.total_bytes or 0)
    if not others:
        steps, syncs = top.step or 0, top.synchronisations or 0
        rounds = f"{syncs:,} synchronisation{'' if syncs == 1 else 's'}"
        return f"{top.label} reached {goal} after {steps:,} steps, {rounds} and {spent}."
    following = f"{others[0].label}, with {human_bytes(others[0].total_bytes or 0)}"
    return f"{top.label} reached {goal} with the fewest bytes, {spent}; next comes {following}."


def winner(rows: Sequence[Row]) -> Row | None:
    """The run with the fewest bytes beside its reference's, of those that can be compared."""
    if streams := of_streams(rows):
        return best_and_base(streams)[0]
    rivals = [row for row in rows if row.ratio is not None and row.recipe != "synchronous"]
    return max(rivals, key=lambda row: row.ratio or 0.0, default=None)


def asked(rows: Sequence[Row], target: float | None) -> str:
    """What the table answers, as a heading for it; nothing where no run reached an accuracy."""
    if of_streams(rows):
        last = max((row.step for row in rows if row.step is not None), default=0)
        return f"what each lost and sent in {last:,} steps:"
    return f"what each needed to reach {target:g}:" if target is not None else ""


def time_finding(rows: Sequence[Row], link: str) -> str:
    """What the headline means in time, if there is a winner; ``link``: that of all runs."""
    top = winner(rows)
    base = next((row for row in rows if top is not None and row.label == top.reference), None)
    if top is None or base is None:
        return ""
    if top.predicted_seconds is None or base.predicted_seconds is None:
        return ""
    own, full = top.predicted_seconds, base.predicted_seconds
    ratio = max(own, full) / min(own, full) if min(own, full) > 0 else 1.0
    change = f", {times(ratio)} times {'shorter' if own < full else 'longer'}"
    return (
        f"The predicted time on {describe_link(link)} is {human_seconds(own)}, against "
        f"{human_seconds(full)}{change if ratio >= 1.05 else ''}."
    )


def values(runs: Sequence[RunRecord], key: str) -> list[Any]:
    """The different values of a setting: numbers by size, others as they come."""
    found = list(dict.fromkeys(setting(run, key) for run in runs))
    return sorted(found) if all(isinstance(value, int) for value in found) else found


def workers(runs: Sequence[RunRecord]) -> str:
    """``10 workers``."""
    counts = values(runs, "workers")
    return f"{listed(counts)} {'worker' if counts == [1] else 'workers'}"


def liars(runs: Sequence[RunRecord]) -> str:
    """``2 of them lie by sign_flip, to triggers by inflate``; empty where all are honest."""
    counts = values(runs, "liars")
    if not any(counts):
        return ""
    what = {"by": values(runs, "attack"), "to triggers by": values(runs, "attack_trigger")}
    ways = [f"{how} {listed(given)}" for how, given in what.items() if given != [None]]
    return f"{listed(counts)} of them lie {', '.join(ways) or 'by saying what others say'}"


def describe_link(text: str) -> str:
    """``"100mbit,20ms"`` as ``a 100 Mbit/s link with 20 ms latency``."""
    try:
        link = Link.parse(text)
    except UserError:
        return text
    unit = next((u for u, size in _UNITS.items() if link.bandwidth >= size), "bit")
    kind = " (star)" if link.topology == "star" else ""
    delay = f" with {human_seconds(link.latency)} latency" if link.latency else ""
    return f"a {link.bandwidth / _UNITS[unit]:g} {unit}/s link{delay}{kind}"
