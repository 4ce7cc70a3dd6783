"""What runs on streams cost: the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tacit.report.data import PROBLEM, Row, best, check, finished, labels, reference, setting
from tacit.report.streams.rounds import conversations, read_rounds, sampled, samples_per_step
from tacit.report.units import NONE, human_bytes, human_seconds, percent, versus
from tacit.runs import RunRecord

#: What bytes are compared with: averaging at fixed steps.
REFERENCES = ("periodic", "continuous")


@dataclass(frozen=True)
class StreamRow(Row):
    """A run on a stream up to its last evaluation. ``reached``: it got as far as the longest run of
    the same problem; of one that did not, all costs are lower bounds.

    ``reference``, ``ratio``: see :class:`Row`, of the first periodic or continuous run.
    ``loss``: all workers' batch losses before each step, summed. ``mistakes``: their wrong answers;
    ``error_rate``: these over all samples, None if their number is not known. ``full`` and
    ``partial``: averages of all models and of some, ``partial`` None if no coordinator chose.
    ``sampled``: only a part of the workers trained at a time, so that losses cannot be compared.
    """

    loss: float | None = None
    mistakes: int | None = None
    error_rate: float | None = None
    full: int | None = None
    partial: int | None = None
    last_accuracy: float | None = None
    sampled: bool = False

    @property
    def remark(self) -> str:
        return "ended early"

    def cells(self) -> tuple[str, ...]:
        """The row as text, one for each of :func:`stream_headings`. ``>`` marks what was spent by
        a run that ended early."""
        more = "" if self.reached else "> "
        total, time = self.total_bytes, self.predicted_seconds
        return (
            self.label,
            NONE if total is None else f"{more}{human_bytes(total)}",
            versus(self.ratio),
            percent(self.monitoring_share),
            NONE if self.loss is None else f"{more}{self.loss:,.1f}",
            self._errors(more),
            NONE if self.full is None else f"{more}{self._averages()}",
            NONE if time is None else f"{more}{human_seconds(time)}",
            NONE if self.last_accuracy is None else f"{self.last_accuracy:.4f}",
        )

    def _errors(self, more: str) -> str:
        if self.error_rate is not None:
            return f"{self.error_rate:.2%}"
        return NONE if self.mistakes is None else f"{more}{self.mistakes:,} in all"

    def _averages(self) -> str:
        return f"{self.full:,}" if self.partial is None else f"{self.full:,} / {self.partial:,}"


def stream_headings(rows: Sequence[StreamRow]) -> tuple[str, ...]:
    """The columns of the table, as :meth:`StreamRow.cells` fills them. On a terminal they are wide
    together, so they are broken; a page shows a line break as a space."""
    references = {row.reference.partition(":")[0] for row in rows if row.reference is not None}
    return (
        "recipe",
        "bytes",
        f"vs\n{references.pop() if len(references) == 1 else REFERENCES[0]}",
        "monitoring",
        "cumulative\nloss",
        "error\nrate",
        "full /\npartial",
        "time on\nthe link",
        "last\naccuracy",
    )


def stream_rows(runs: Sequence[RunRecord], target: float | None = None) -> list[StreamRow]:
    """One row for each run, in their order; ``target`` is only checked. Raises UserError as
    ``table`` does."""
    check(runs, target)
    names = labels(runs)
    complete = [_complete(runs, index) for index in range(len(runs))]
    rows = []
    for index, run in enumerate(runs):
        last = run.rows[-1] if run.rows else {}
        other = reference(runs, index, REFERENCES)
        own, full = _total(run), _total(runs[other]) if other is not None else 0
        comparable = other is not None and complete[index] and complete[other]
        settled, record = conversations(run), read_rounds(run)
        mistakes, samples = int(record.mistakes.sum()), samples_per_step(run)
        whole = sum(whole for *_, whole in settled)
        rows.append(
            StreamRow(
                label=names[index],
                recipe=run.config["recipe"],
                reference=names[other] if other is not None else None,
                reached=complete[index],
                finished=finished(run),
                step=last.get("step"),
                synchronisations=last.get("synchronisations"),
                bytes=dict(last["bytes"]) if last else None,
                ring_bytes=last.get("ring_bytes"),
                ratio=full / own if comparable and own and full else None,
                predicted_seconds=last.get("predicted_seconds"),
                best_accuracy=best(run),
                loss=float(record.losses.sum()) if last else None,
                mistakes=mistakes if last else None,
                error_rate=mistakes / (samples * len(record.steps)) if last and samples else None,
                full=whole if settled else last.get("synchronisations"),
                partial=len(settled) - whole if settled else None,
                last_accuracy=last.get("accuracy"),
                sampled=sampled(run),
            )
        )
    return rows


def _complete(runs: Sequence[RunRecord], index: int) -> bool:
    """Whether no run of the same problem got further."""
    ends = [
        run.rows[-1]["step"]
        for run in runs
        if run.rows and all(setting(run, key) == setting(runs[index], key) for key in PROBLEM)
    ]
    own = runs[index].rows
    return bool(own) and own[-1]["step"] == max(ends)


def _total(run: RunRecord) -> int:
    return sum(run.rows[-1]["bytes"].values()) if run.rows else 0
