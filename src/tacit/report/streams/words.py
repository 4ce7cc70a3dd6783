"""What the report says in sentences about runs on streams."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.report.streams.rounds import (
    Rounds,
    common_drifts,
    read_rounds,
    samples_per_step,
    streamed,
)
from tacit.report.streams.rows import StreamRow
from tacit.report.units import human_bytes, listed, times
from tacit.runs import RunRecord

#: A run loses about as much as another if its cumulative loss is at most so much higher.
_ALIKE = 0.01

#: More steps than this are counted, not named.
_NAMED = 3

#: What shows how much is to be gained at all.
_BOUNDS = {"serial": "one learner with all samples", "no_sync": "everybody alone"}


def about_costs(runs: Sequence[RunRecord]) -> str:
    """What the table is about."""
    records = [read_rounds(run) for run in runs if streamed(run)]
    last = max(int(record.steps[-1]) for record in records)
    samples = {samples_per_step(run) for run in runs if streamed(run)}
    size = samples.pop() if len(samples) == 1 else None
    of = f" of {size:,} samples" if size else ""
    return (
        f"Costs of the whole run: {last:,} steps{of}{_about_drifts(records)}. Cumulative loss: the "
        "batch losses of all workers before each step, summed; error rate: the share of wrong "
        "answers then."
    )


def _about_drifts(records: Sequence[Rounds]) -> str:
    drifts = common_drifts(records)
    if drifts is None:
        return ", with drifts at different steps"
    if not drifts:
        return ", without a common drift"
    count = "a drift" if len(drifts) == 1 else f"{len(drifts):,} drifts"
    if len(drifts) > _NAMED:
        return f", with {count}"
    return f", with {count} at step{'s' if len(drifts) > 1 else ''} {listed(drifts)}"


def stream_finding(rows: Sequence[StreamRow]) -> str:
    """The headline."""
    seen = [row for row in rows if row.loss is not None]
    seen = [row for row in seen if not row.sampled] or seen
    top, base = best_and_base(seen)
    if top is not None and base is not None:
        fewer = f"{times(top.ratio or 1.0)} times fewer bytes than {base.label}"
        return f"{top.label} sent {fewer}, with a cumulative loss {_change(top, base)}."
    rivals = [row for row in seen if _rivals(row, base)]
    if base is not None and rivals:
        near = min(rivals, key=lambda row: row.loss or 0.0)
        return (
            f"No run with clearly fewer bytes than {base.label} stayed within {_ALIKE:.0%} of its "
            f"cumulative loss. The nearest is {near.label}: {_change(near, base)}, with "
            f"{times(near.ratio or 1.0)} times fewer bytes."
        )
    reached = [row for row in seen if row.reached]
    top = min([r for r in reached if r.total_bytes] or reached or seen, key=lambda r: r.loss or 0)
    spent = human_bytes(top.total_bytes or 0)
    if len(seen) == 1:
        return f"{top.label} ended with a cumulative loss of {top.loss:,.1f}, for {spent}."
    who = "all runs that communicate" if top.total_bytes else "all runs"
    return f"{top.label} has the lowest cumulative loss of {who}, {top.loss:,.1f}, for {spent}."


def stream_details(rows: Sequence[StreamRow]) -> str:
    """How the headline was chosen, and between which bounds its numbers lie."""
    seen = [row for row in rows if row.loss is not None and row.reached]
    texts = []
    top, base = best_and_base(seen)
    if top is not None and base is not None:
        texts.append(
            f"It sent the least of those whose cumulative loss is at most {_ALIKE:.0%} higher."
        )
    bounds = [
        f"{row.loss:,.1f} of {row.label} ({meaning})"
        for recipe, meaning in _BOUNDS.items()
        for row in [r for r in seen if r.recipe == recipe][:1]
    ]
    if bounds and len(seen) > len(bounds):
        texts.append(f"For scale: {listed(bounds)}.")
    return " ".join(texts)


def best_and_base(rows: Sequence[StreamRow]) -> tuple[StreamRow | None, StreamRow | None]:
    """The run with the fewest bytes beside its reference of those that lose about as much or less,
    and that reference; without such a run, the reference of the first that has one."""
    named = {row.label: row for row in rows}
    pairs = [
        (row, named[row.reference])
        for row in rows
        if row.ratio is not None and row.reference in named
    ]
    good = [
        (row, base)
        for row, base in pairs
        if _rivals(row, base) and (row.loss or 0.0) <= (1 + _ALIKE) * (base.loss or 0.0)
    ]
    if good:
        return max(good, key=lambda pair: pair[0].ratio or 0.0)
    return None, pairs[0][1] if pairs else None


def _rivals(row: StreamRow, base: StreamRow | None) -> bool:
    """Whether a run sent clearly less than ``base``, its reference."""
    if base is None or row is base or row.reference != base.label:
        return False
    return (row.ratio or 0.0) >= 1.05


def stream_notes(rows: Sequence[StreamRow]) -> list[str]:
    """What a reader must know about the table."""
    texts = []
    if any(row.step is not None and not row.reached for row in rows):
        texts.append("A run that ended early would have spent and lost more than (>) is shown.")
    references = {row.reference for row in rows if row.ratio is not None}
    if references and len(rows) > 1:
        texts.append(f"“vs” compares bytes with {listed(sorted(filter(None, references)))}.")
    if any(row.partial is not None for row in rows):
        texts.append(
            "“full / partial”: averages of all models, and of some. Runs without a coordinator "
            "average all."
        )
    if any(row.step is not None and row.error_rate is None for row in rows):
        texts.append("Wrong answers are counted where the number of samples is not known.")
    texts += [
        f"{row.label} trains some workers at a time. It saw fewer samples, so its loss is no match."
        for row in rows
        if row.sampled and row.step is not None
    ]
    return texts


def _change(row: StreamRow, base: StreamRow) -> str:
    own, other = row.loss or 0.0, base.loss or 0.0
    change = own / other - 1 if other else 0.0
    if abs(change) < 0.0005:
        return "equally high"
    return f"{abs(change):.1%} {'higher' if change > 0 else 'lower'}"
