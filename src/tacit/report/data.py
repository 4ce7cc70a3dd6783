"""What the runs cost on their way to the target: the rows of the table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tacit.errors import UserError
from tacit.report.streams.rounds import on_stream
from tacit.report.units import NONE, human_bytes, human_seconds, percent, versus
from tacit.runs import RunRecord
from tacit.tasks.registry import TASKS

#: The columns of the table, as :meth:`Row.cells` fills them.
HEADINGS = (
    "recipe",
    "steps",
    "syncs",
    "bytes",
    "vs synchronous",
    "monitoring",
    "time on the link",
    "best accuracy",
)

#: Runs that differ in one of these did not solve the same problem, so no ratio is taken.
PROBLEM = ("task", "model", "workers", "partition", "batch_size")

#: A run is named by its recipe, and by those of these in which the runs differ.
_NAMED = (*PROBLEM, "seed", "order", "optimizer", "link")

#: Targets that are chosen here are multiples of this.
_STEP = 200

_NEEDED = ("step", "accuracy", "bytes", "ring_bytes", "synchronisations")


@dataclass(frozen=True)
class Row:
    """A run up to its first evaluation at or above the target; if it ``reached`` none, up to its
    last one, so that all costs are lower bounds; all None if it has no evaluation.

    ``bytes``: by kind, sent and received by all workers. ``reference``: the label of the
    synchronous run it is compared with. ``ratio``: that run's bytes over this one's (above 1:
    fewer bytes), None unless both reached the target. ``predicted_seconds``: on the run's link.
    ``finished``: whether the run came to its end.
    """

    label: str
    recipe: str
    reference: str | None
    reached: bool
    finished: bool
    step: int | None
    synchronisations: int | None
    bytes: dict[str, int] | None
    ring_bytes: int | None
    ratio: float | None
    predicted_seconds: float | None
    best_accuracy: float | None

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all kinds."""
        return sum(self.bytes.values()) if self.bytes is not None else None

    @property
    def monitoring_share(self) -> float | None:
        """Monitoring bytes as a fraction of all bytes."""
        total = self.total_bytes
        return self.bytes["monitoring"] / total if self.bytes is not None and total else None

    @property
    def remark(self) -> str:
        """What is said of a row that has not ``reached``."""
        return "target missed"

    def cells(self) -> tuple[str, ...]:
        """The row as text, one for each of ``HEADINGS``. ``>`` marks what was spent without
        reaching the target."""
        more = "" if self.reached else "> "
        step, syncs, total, time = (
            self.step, self.synchronisations, self.total_bytes, self.predicted_seconds
        )  # fmt: skip
        return (
            self.label,
            NONE if step is None else f"{more}{step:,}",
            NONE if syncs is None else f"{more}{syncs:,}",
            NONE if total is None else f"{more}{human_bytes(total)}",
            versus(self.ratio),
            percent(self.monitoring_share),
            NONE if time is None else f"{more}{human_seconds(time)}",
            NONE if self.best_accuracy is None else f"{self.best_accuracy:.4f}",
        )


def rows_to_target(runs: Sequence[RunRecord], target: float | None = None) -> list[Row]:
    """One row for each run, in their order. Without ``target``, :func:`choose_target` gives it.

    Raises UserError when there are no runs, the target is no accuracy, or a metrics file was not
    written by this library.
    """
    check(runs, target)
    target = choose_target(runs) if target is None else target
    names = labels(runs)
    costs = [_to_target(run, target) for run in runs]
    rows = []
    for index, (run, row) in enumerate(zip(runs, costs, strict=True)):
        reached = row is not None and (target is None or row["accuracy"] >= target)
        other = reference(runs, index)
        base = costs[other] if other is not None else None
        ratio = None
        if reached and row and base and (target is None or base["accuracy"] >= target):
            own, full = _total(row), _total(base)
            ratio = full / own if own and full else None
        rows.append(
            Row(
                label=names[index],
                recipe=run.config["recipe"],
                reference=names[other] if other is not None else None,
                reached=reached,
                finished=finished(run),
                step=row["step"] if row else None,
                synchronisations=row["synchronisations"] if row else None,
                bytes=dict(row["bytes"]) if row else None,
                ring_bytes=row["ring_bytes"] if row else None,
                ratio=ratio,
                predicted_seconds=row.get("predicted_seconds") if row else None,
                best_accuracy=best(run),
            )
        )
    return rows


def choose_target(runs: Sequence[RunRecord]) -> float | None:
    """The largest multiple of 0.005 that every run with evaluations reaches; None if that is 0,
    if there are no evaluations, or on a stream, where accuracies come and go."""
    if on_stream(runs):
        return None
    reached = [accuracy for run in runs if (accuracy := best(run)) is not None]
    lowest = min(reached, default=0.0)
    # rounding errors: 0.29 * 200 is a little below 58, and 58 / 200 is 0.29 again
    steps = math.floor(lowest * _STEP) + 1
    while steps / _STEP > lowest:
        steps -= 1
    return steps / _STEP if steps > 0 else None


def best(run: RunRecord) -> float | None:
    """The highest accuracy of a run, None without evaluations."""
    return max((row["accuracy"] for row in run.rows), default=None)


def finished(run: RunRecord) -> bool:
    """Whether a run came to its end."""
    return bool(run.summary) and bool(run.summary.get("finished", True))


def reference(
    runs: Sequence[RunRecord], index: int, recipes: Sequence[str] = ("synchronous",)
) -> int | None:
    """The run that ``index`` is compared with: the first with one of the ``recipes`` on the same
    problem, with the same seed if there is one."""
    candidates = [
        i
        for i, run in enumerate(runs)
        if run.config["recipe"] in recipes
        and all(setting(run, key) == setting(runs[index], key) for key in PROBLEM)
    ]
    seed = runs[index].config["seed"]
    return min(candidates, key=lambda i: runs[i].config["seed"] != seed, default=None)


def fewest_bytes(runs: Sequence[RunRecord], rows: Sequence[Row]) -> int | None:
    """The fewest bytes to the target, None for a single run or different problems."""
    problems = {tuple(setting(run, key) for key in PROBLEM) for run in runs}
    if len(runs) == 1 or len(problems) > 1:
        return None
    return min((row.total_bytes for row in rows if row.reached and row.total_bytes), default=None)


def setting(run: RunRecord, key: str) -> Any:
    """A field of the configuration; the model by its name also where it is the task's default."""
    value = run.config.get(key)  # a run of an earlier version may not have it
    if key == "model" and value is None:
        source = TASKS.get(run.config["task"].partition(":")[0])
        return source.models[0] if source else "default model"
    return value


def labels(runs: Sequence[RunRecord]) -> list[str]:
    """A name for each run, all different: the recipe, and what else the runs differ in."""
    varying = [key for key in _NAMED if len({setting(run, key) for run in runs}) > 1]
    names = []
    for run in runs:
        extra = ", ".join(f"{key} {setting(run, key)}".replace("_", " ") for key in varying)
        names.append(f"{run.label} ({extra})" if extra else run.label)
    names = [_unlike(names, i, runs[i].path.name) for i in range(len(runs))]
    return [_unlike(names, i, str(i + 1)) for i in range(len(runs))]


def _unlike(names: Sequence[str], index: int, mark: str) -> str:
    name = names[index]
    return f"{name} [{mark}]" if Counter(names)[name] > 1 else name


def check(runs: Sequence[RunRecord], target: float | None) -> None:
    """Raise UserError for what cannot be compared."""
    if not runs:
        raise UserError("there are no runs to compare; give at least one run folder")
    if target is not None and not 0 < target <= 1:
        raise UserError(f"target is an accuracy between 0 and 1, got {target:g}")
    for run in runs:
        for number, row in enumerate(run.rows, start=1):
            missing = [key for key in _NEEDED if key not in row]
            if missing:
                raise UserError(
                    f"{run.path / 'metrics.jsonl'}, evaluation {number}, lacks {missing[0]!r}; "
                    "leave this run out"
                )


def _to_target(run: RunRecord, target: float | None) -> dict[str, Any] | None:
    last = run.rows[-1] if run.rows else None
    return last if target is None else run.at_target(target) or last


def _total(row: dict[str, Any]) -> int:
    return sum(row["bytes"].values())
