"""What runs on streams wrote down, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tacit.calls import parse_call
from tacit.errors import UserError
from tacit.runs import RunRecord
from tacit.tasks.registry import TASKS
from tacit.tasks.streams.options import batch_sizes, parse_rates

#: A curve has about so many points.
_POINTS = 100


#: The recipes whose workers rest in rounds that they are not drawn for.
RESTING = ("fedavg", "fedavgm", "fedadam", "fedadagrad")


class Rounds(NamedTuple):
    """n steps of all workers together, each (n,).

    ``losses``: the workers' batch losses before the step, summed. ``mistakes``: wrong answers.
    ``spent``: bytes so far. ``drifts``: the steps that began with a new concept.
    """

    steps: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    mistakes: npt.NDArray[np.int64]
    spent: npt.NDArray[np.int64]
    drifts: list[int]


class Block(NamedTuple):
    """Steps ``first`` to ``last``, and the mean of a number over them."""

    first: int
    last: int
    mean: float


def on_stream(runs: Sequence[RunRecord]) -> bool:
    """Whether all runs that have been evaluated learned from a stream, and there is one."""
    seen = [run for run in runs if run.rows]
    return bool(seen) and all(streamed(run) for run in seen)


def streamed(run: RunRecord) -> bool:
    """Whether a run wrote down its rounds; those on data sets, and older ones, do not."""
    return any(row.get("rounds") for row in run.rows)


def read_rounds(run: RunRecord) -> Rounds:
    """All rounds of a run up to its last evaluation. Raises UserError where they are damaged."""
    steps: list[int] = []
    rounds: list[list[float]] = []
    drifts: list[int] = []
    for row in run.rows:
        own = row.get("rounds", ())
        steps.extend(range(row["step"] - len(own) + 1, row["step"] + 1))
        rounds.extend(own)
        drifts.extend(row.get("drifts", ()))
    try:
        losses, mistakes, spent = np.array(rounds, np.float64).reshape(len(rounds), 3).T
    except (ValueError, TypeError):
        raise UserError(
            f"{run.path / 'metrics.jsonl'}: rounds must be lists of three numbers (loss, wrong "
            "answers, bytes); leave this run out"
        ) from None
    # bytes are whole numbers below 2^53, so doubles hold them as they are
    return Rounds(
        np.array(steps, np.int64), losses, mistakes.astype(np.int64), spent.astype(np.int64), drifts
    )


def conversations(run: RunRecord) -> list[tuple[int, int, int, bool]]:
    """(step, callers, members, whole) of every average that a coordinator arranged."""
    return [
        (step, callers, members, bool(whole))
        for row in run.rows
        for step, callers, members, whole in row.get("conversations", ())
    ]


def samples_per_step(run: RunRecord) -> int | None:
    """Samples of all workers together in one step; None where the configuration does not tell."""
    task, size = run.config["task"], run.config["batch_size"]
    source = TASKS.get(task.partition(":")[0])
    if source is None or source.stream is None or source.training is None:
        return None
    rates = parse_rates(parse_call(task)[1].get("rates", "1"))
    sizes = batch_sizes(run.config["workers"], size or source.training.batch_size, rates)
    if not sampled(run):
        return sum(sizes)
    return sizes[0] * trained(run) if len(set(sizes)) == 1 else None


def trained(run: RunRecord) -> int:
    """How many workers train in a step."""
    workers: int = run.config["workers"]
    if not sampled(run):
        return workers
    # as in tacit.topologies.sampling.draw_workers
    return max(1, math.ceil(float(run.config["options"]["fraction"]) * workers - 1e-9))


def sampled(run: RunRecord) -> bool:
    """Whether only a part of the workers trains at a time; the others' samples are never seen.
    Elsewhere (``ef21``) a fraction says who sends, and with a period whose models are averaged."""
    options = run.config["options"]
    rests = run.config["recipe"] in RESTING
    return rests and options.get("fraction", 1) != 1 and options.get("period") is None


def common_drifts(records: Sequence[Rounds]) -> list[int] | None:
    """The drifts of all runs, None where they differ; a shorter run has only the first of them."""
    everything = sorted({step for record in records for step in record.drifts})
    for record in records:
        last = record.steps[-1]
        if sorted(record.drifts) != [step for step in everything if step <= last]:
            return None
    return everything


def window(steps: int) -> int:
    """So many steps make one point of a curve over ``steps`` steps: 1, 2, 5, 10, 20, 50, ..."""
    size = 1
    while size * _POINTS < steps:
        # 1 -> 2 -> 5 -> 10
        size = size * 5 // 2 if str(size)[0] == "2" else size * 2
    return size


def blocks(record: Rounds, values: npt.NDArray[np.float64], size: int) -> list[Block]:
    """Means of ``values`` (n,) over about ``size`` steps each. None goes across a drift, where
    before and after are different things."""
    cuts = np.searchsorted(record.steps, record.drifts)
    means = []
    for stretch in np.split(np.arange(len(values)), cuts):
        if not len(stretch):
            continue
        for part in np.array_split(stretch, max(1, round(len(stretch) / size))):
            first, last = record.steps[part[0]], record.steps[part[-1]]
            means.append(Block(int(first), int(last), float(values[part].mean())))
    return means
