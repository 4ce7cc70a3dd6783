from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.conftest import make_run
from tacit.errors import UserError
from tacit.report import choose_target, table
from tacit.report.data import HEADINGS, fewest_bytes, labels
from tacit.runs import RunRecord


def test_costs_are_those_of_the_first_evaluation_at_the_target(
    comparison: list[RunRecord],
) -> None:
    synchronous, fda, local = table(comparison, 0.9)
    assert (synchronous.step, synchronous.total_bytes, synchronous.ratio) == (30, 3000, 1.0)
    assert (fda.step, fda.synchronisations, fda.total_bytes) == (40, 4, 100)
    assert fda.ratio == 30.0
    assert fda.monitoring_share == 0.2
    assert fda.predicted_seconds == 4.0
    assert fda.ring_bytes == 90
    assert fda.reference == "synchronous"
    assert not local.reached


def test_a_run_that_missed_the_target_shows_what_it_spent(comparison: list[RunRecord]) -> None:
    row = table(comparison, 0.9)[2]
    assert row.ratio is None
    assert (row.step, row.best_accuracy) == (40, 0.84)
    cells = dict(zip(HEADINGS, row.cells(), strict=True))
    assert cells["bytes"] == "> 160 B"
    assert cells["steps"] == "> 40"
    assert cells["vs synchronous"] == "—"


def test_no_ratio_where_synchronous_missed_the_target(comparison: list[RunRecord]) -> None:
    comparison[0].rows = comparison[0].rows[:2]
    assert [row.ratio for row in table(comparison, 0.9)] == [None, None, None]


def test_no_ratio_without_a_synchronous_run(comparison: list[RunRecord]) -> None:
    rows = table(comparison[1:], 0.8)
    assert [(row.ratio, row.reference) for row in rows] == [(None, None)] * 2


@pytest.mark.parametrize(
    "setting", [{"workers": 5}, {"partition": "sorted:0.6"}, {"task": "mnist"}, {"batch_size": 8}]
)
def test_no_ratio_between_different_problems(setting: dict[str, Any]) -> None:
    runs = [
        make_run("synchronous", [0.9], gradient=100),
        make_run("fda:theta=1", [0.9], model=10, **setting),
    ]
    rows = table(runs, 0.9)
    assert rows[1].ratio is None
    assert fewest_bytes(runs, rows) is None


def test_the_default_model_is_the_same_problem_as_its_name() -> None:
    runs = [
        make_run("synchronous", [0.9], gradient=100, model=0),
        make_run("fda:theta=1", [0.9], model=10),
    ]
    runs[1].config["model"] = "mlp"
    assert table(runs, 0.9)[1].ratio == 10.0


def test_each_seed_has_its_own_reference() -> None:
    runs = [
        make_run("synchronous", [0.9], gradient=100, seed=0),
        make_run("synchronous", [0.9], gradient=300, seed=1),
        make_run("fda:theta=1", [0.9], model=10, seed=1),
        make_run("fda:theta=1", [0.9], model=10, seed=2),
    ]
    # seed 2 has no synchronous run of its own and takes the first
    assert [row.ratio for row in table(runs, 0.9)] == [1.0, 1.0, 30.0, 10.0]


@pytest.mark.parametrize(
    ("best", "target"), [(0.9549, 0.95), (0.955, 0.955), (0.29, 0.29), (1.0, 1.0), (0.004, None)]
)
def test_the_chosen_target_is_rounded_down_to_half_a_percent(
    best: float, target: float | None
) -> None:
    runs = [make_run("synchronous", [0.001, best]), make_run("fedavg", [1.0, 0.2])]
    assert choose_target(runs) == target


@given(st.lists(st.lists(st.floats(0.005, 1), min_size=1, max_size=5), min_size=1, max_size=4))
def test_every_run_reaches_the_chosen_target(curves: list[list[float]]) -> None:
    runs = [make_run("fedavg", curve, folder=str(i)) for i, curve in enumerate(curves)]
    target = choose_target(runs)
    assert target is not None
    assert all(row.reached for row in table(runs))
    assert min(max(curve) for curve in curves) - target < 0.005


def test_runs_without_evaluations() -> None:
    runs = [make_run("fedavg", [], ended=False), make_run("fedadam", [0.5], model=10)]
    empty, other = table(runs)
    assert empty.step is empty.total_bytes is empty.best_accuracy is None
    assert not empty.reached
    assert not empty.finished
    assert empty.cells()[1:] == ("—",) * (len(HEADINGS) - 1)
    assert other.reached


def test_whether_a_run_finished() -> None:
    failed = make_run("fedavg", [0.5])
    failed.summary = {"finished": False, "error": "loss is nan"}
    runs = [make_run("fedavg", [0.5]), make_run("fedavg", [0.5], ended=False), failed]
    assert [row.finished for row in table(runs, 0.5)] == [True, False, False]


def test_labels_name_what_differs_and_are_all_different() -> None:
    runs = [
        make_run("fda:theta=1", [0.5], seed=0, folder="a"),
        make_run("fda:theta=1", [0.5], seed=1, folder="b"),
        make_run("fda:theta=1", [0.5], seed=1, folder="c"),
        make_run("fda:theta=1", [0.5], seed=1, folder="c"),
    ]
    assert labels(runs) == [
        "fda:theta=1 (seed 0)",
        "fda:theta=1 (seed 1) [b]",
        "fda:theta=1 (seed 1) [c] [3]",
        "fda:theta=1 (seed 1) [c] [4]",
    ]


def test_fewest_bytes_counts_only_runs_at_the_target(comparison: list[RunRecord]) -> None:
    assert fewest_bytes(comparison, table(comparison, 0.9)) == 100
    assert fewest_bytes(comparison[:1], table(comparison[:1], 0.9)) is None


def test_unusable_input_is_refused_in_one_line(comparison: list[RunRecord]) -> None:
    with pytest.raises(UserError, match="no runs"):
        table([])
    with pytest.raises(UserError, match="between 0 and 1, got 95"):
        table(comparison, 95)
    comparison[1].path = Path("elsewhere")
    del comparison[1].rows[2]["bytes"]
    with pytest.raises(UserError, match=r"elsewhere/metrics.jsonl, evaluation 3, lacks 'bytes'"):
        table(comparison, 0.9)
