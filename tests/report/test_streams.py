"""Runs on streams: what they wrote down, the table, and the words."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.conftest import make_run, make_stream
from tacit.errors import UserError
from tacit.recipes import RECIPES
from tacit.report import asked, choose_target, finding, headings, table
from tacit.report.data import HEADINGS
from tacit.report.streams.rounds import (
    blocks,
    common_drifts,
    on_stream,
    read_rounds,
    sampled,
    samples_per_step,
    window,
)
from tacit.report.streams.rows import StreamRow
from tacit.report.streams.words import stream_details, stream_notes
from tacit.report.tables import of_streams
from tacit.report.units import TIMES
from tacit.report.words import about_target, compared
from tacit.runs import RunRecord


def rows_of(runs: list[RunRecord]) -> list[StreamRow]:
    rows = of_streams(table(runs))
    assert len(rows) == len(runs)
    return rows


# -- rounds


def test_rounds_are_read_in_order(streams: list[RunRecord]) -> None:
    record = read_rounds(streams[0])
    assert record.steps.tolist() == list(range(1, 41))
    assert record.losses.sum() == 80.0
    assert record.spent[[8, 9, 39]].tolist() == [0, 1000, 4000]
    assert record.drifts == [21]


def test_steps_of_rounds_count_back_from_their_evaluation(streams: list[RunRecord]) -> None:
    """A run whose first evaluations are from an older version has no rounds there."""
    del streams[0].rows[0]["rounds"]
    assert read_rounds(streams[0]).steps.tolist() == list(range(11, 41))


def test_damaged_rounds_are_refused_in_one_line(streams: list[RunRecord]) -> None:
    streams[1].path = Path("elsewhere")
    for damage in ([1.0, 2], ["a", 1, 2], None):
        streams[1].rows[2]["rounds"][3] = damage
        with pytest.raises(UserError, match=r"elsewhere/metrics.jsonl: rounds must be lists"):
            table(streams)


@given(
    st.integers(1, 300),
    st.lists(st.integers(2, 300), max_size=6, unique=True),
    st.integers(1, 50),
)
def test_blocks_hold_every_step_once_and_stop_at_drifts(
    count: int, drifts: list[int], size: int
) -> None:
    drifts = sorted(step for step in drifts if step <= count)
    record = read_rounds(make_stream("serial", [1.0] * 10))
    steps, values = np.arange(1, count + 1), np.arange(count) ** 2.0
    record = record._replace(steps=steps, drifts=drifts)
    found = blocks(record, values, size)
    covered = [step for block in found for step in range(block.first, block.last + 1)]
    assert covered == steps.tolist()
    assert set(drifts) <= {block.first for block in found}
    for block in found:
        assert block.mean == pytest.approx(values[block.first - 1 : block.last].mean())
        assert block.last - block.first + 1 <= 2 * size


def test_windows_are_round_numbers() -> None:
    sizes = [window(steps) for steps in (1, 100, 101, 800, 1000, 1001, 3000, 20_000, 10**6)]
    assert sizes == [1, 1, 2, 10, 10, 20, 50, 200, 10_000]


def test_common_drifts() -> None:
    def drifting(steps: int, *drifts: int) -> RunRecord:
        return make_stream("serial", [1.0] * steps, drifts=drifts)

    def common(*runs: RunRecord) -> list[int] | None:
        return common_drifts([read_rounds(run) for run in runs])

    assert common(drifting(30, 5, 21), drifting(30, 5, 21)) == [5, 21]
    assert common(drifting(30, 5, 21), drifting(20, 5)) == [5, 21]  # it ended before
    assert common(drifting(30, 5, 21), drifting(30, 5)) is None
    assert common(drifting(30), drifting(30)) == []


@pytest.mark.parametrize(
    ("call", "settings", "samples"),
    [
        ("no_sync", {}, 40),
        ("no_sync", {"workers": 3, "task": "separator"}, 30),
        ("no_sync", {"batch_size": 2}, 8),
        ("no_sync", {"task": "graphical:rates=1/2,at=50"}, 60),
        ("fedavg:period=10,fraction=0.5", {}, 40),
        ("fedavg:fraction=0.3", {}, 20),
        ("fedavg:fraction=0.3", {"task": "graphical:rates=1/2"}, None),
        ("no_sync", {"task": "my own: stream"}, None),
        ("no_sync", {"task": "digits"}, None),
    ],
)
def test_samples_per_step(call: str, settings: dict[str, object], samples: int | None) -> None:
    assert samples_per_step(make_stream(call, [1.0] * 10, **settings)) == samples


# -- the table


def test_the_row_of_a_stream(streams: list[RunRecord]) -> None:
    periodic, dynamic, serial, _ = rows_of(streams)
    assert (periodic.loss, periodic.total_bytes, periodic.ratio) == (80.0, 4000, 1.0)
    assert (periodic.full, periodic.partial) == (4, None)
    assert dynamic.loss == pytest.approx(80.4)
    assert (dynamic.ratio, dynamic.reference) == (10.0, "periodic:period=10")
    assert (dynamic.full, dynamic.partial) == (1, 2)
    assert dynamic.error_rate == 40 / (40 * 40)  # 4 workers with batches of 10
    assert (serial.total_bytes, serial.ratio) == (0, None)
    names = [name.replace("\n", " ") for name in headings([dynamic])]
    cells = dict(zip(names, dynamic.cells(), strict=True))
    assert cells == {
        "recipe": "dynamic_averaging:delta=1",
        "bytes": "400 B",
        "vs periodic": f"10{TIMES} fewer",
        "monitoring": "0%",
        "cumulative loss": "80.4",
        "error rate": "2.50%",
        "full / partial": "1 / 2",
        "time on the link": "40 s",
        "last accuracy": "0.8000",
    }


def test_the_first_periodic_or_continuous_run_is_the_reference() -> None:
    runs = [
        make_stream("no_sync", [1.0] * 10),
        make_stream("continuous", [1.0] * 10, sent=50, every=1),
        make_stream("periodic:period=5", [1.0] * 10, sent=50, every=5),
    ]
    assert [row.ratio for row in rows_of(runs)] == [None, 1.0, 5.0]
    assert headings(table(runs))[2] == "vs\ncontinuous"
    runs[1].config["seed"] = 7  # no longer that of the others
    assert [row.ratio for row in rows_of(runs)] == [None, 1.0, 1.0]
    runs[2].config["task"] = "separator"
    assert rows_of(runs)[2].reference == "periodic:period=5 (task separator, seed 0)"


def test_wrong_answers_where_the_samples_are_not_known() -> None:
    row = rows_of([make_stream("no_sync", [1.0] * 20, task="mine")])[0]
    assert row.error_rate is None
    assert "20 in all" in row.cells()


def test_a_run_that_ended_early_has_lower_bounds(streams: list[RunRecord]) -> None:
    streams[1].rows = streams[1].rows[:2]
    row = rows_of(streams)[1]
    assert (row.reached, row.remark, row.ratio) == (False, "ended early", None)
    assert row.cells()[1] == "> 200 B"
    assert row.cells()[4] == "> 40.2"


def test_runs_without_evaluations(streams: list[RunRecord]) -> None:
    streams[1].rows, streams[1].summary = [], {}
    row = rows_of(streams)[1]
    assert (row.loss, row.finished) == (None, False)
    assert row.cells()[1:] == ("—",) * 8


def test_only_streams_have_the_columns_of_streams(streams: list[RunRecord]) -> None:
    other = make_run("synchronous", [0.5, 0.9], gradient=100)
    assert on_stream(streams)
    assert not on_stream([other])
    assert not on_stream([])
    mixed = [*streams, other]
    assert not on_stream(mixed)
    rows = table(mixed)
    assert headings(rows) == HEADINGS
    assert all(len(row.cells()) == len(HEADINGS) for row in rows)


def test_there_is_no_target_on_a_stream(streams: list[RunRecord]) -> None:
    assert choose_target(streams) is None
    assert asked(table(streams), None) == "what each lost and sent in 40 steps:"
    with pytest.raises(UserError, match="between 0 and 1"):
        table(streams, 95)
    digits = [make_run("synchronous", [0.5, 0.9], gradient=100)]
    assert asked(table(digits, 0.9), 0.9) == "what each needed to reach 0.9:"


# -- words


def test_the_headline(streams: list[RunRecord]) -> None:
    assert finding(table(streams), None) == (
        "dynamic_averaging:delta=1 sent 10 times fewer bytes than periodic:period=10, with a "
        "cumulative loss 0.5% higher."
    )
    assert stream_details(rows_of(streams)) == (
        "It sent the least of those whose cumulative loss is at most 1% higher. For scale: 60.0 of "
        "serial (one learner with all samples) and 120.0 of no_sync (everybody alone)."
    )


def test_the_headline_does_not_praise_what_loses_more() -> None:
    runs = [
        make_stream("periodic:period=10", [2.0] * 40, sent=1000),
        make_stream("dynamic_averaging:delta=9", [2.5] * 40, sent=10),
        make_stream("dynamic_averaging:delta=5", [2.1] * 40, sent=100),
        make_stream("fedavg:fraction=0.25", [0.1] * 40, sent=10),
    ]
    assert finding(table(runs), None) == (
        "No run with clearly fewer bytes than periodic:period=10 stayed within 1% of its "
        "cumulative loss. The nearest is dynamic_averaging:delta=5: 5.0% higher, with 10 times "
        "fewer bytes."
    )


def test_the_headline_without_a_reference(streams: list[RunRecord]) -> None:
    assert finding(table(streams[1:]), None) == (
        "dynamic_averaging:delta=1 has the lowest cumulative loss of all runs that communicate, "
        "80.4, for 400 B."
    )
    assert finding(table(streams[1:2]), None) == (
        "dynamic_averaging:delta=1 ended with a cumulative loss of 80.4, for 400 B."
    )
    assert finding(table(streams[2:]), None).startswith("serial has the lowest")


def test_what_was_run(streams: list[RunRecord]) -> None:
    assert compared(streams).startswith(
        "4 runs of kamp-mlp on graphical with 4 workers (seed 0), timed for"
    )
    assert about_target(streams, None).startswith(
        "Costs of the whole run: 40 steps of 40 samples, with a drift at step 21. Cumulative"
    )


@pytest.mark.parametrize(
    "name", [n for n, f in RECIPES.items() if "fraction" in inspect.signature(f).parameters]
)
def test_only_recipes_whose_workers_rest_are_said_to_train_some(name: str) -> None:
    averaging = RECIPES[name](fraction=0.5).averaging
    rests = averaging is not None and averaging.topology.partial
    run = make_stream(f"{name}:fraction=0.5", [1.0] * 20, sent=10)
    assert sampled(run) == rests
    assert rests == name.startswith("fed")
    assert samples_per_step(run) == (20 if rests else 40)
    notes = stream_notes(rows_of([run]))
    assert any("trains some workers at a time" in note for note in notes) == rests


def test_with_a_period_all_workers_of_fedavg_train() -> None:
    averaging = RECIPES["fedavg"](fraction=0.5, period=10).averaging
    assert averaging is not None
    assert not averaging.topology.partial
    assert not sampled(make_stream("fedavg:fraction=0.5,period=10", [1.0] * 20, sent=10))
