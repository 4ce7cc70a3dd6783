from __future__ import annotations

from typing import Any

import pytest

from report.conftest import make_run
from tacit.report import table
from tacit.report.figure import Figure
from tacit.report.page import draw
from tacit.report.palette import styles
from tacit.runs import RunRecord


def figures(runs: list[RunRecord], target: float | None) -> dict[str, Figure]:
    return {figure.id: figure for figure in draw(runs, table(runs, target), target)}


def lines(figure: Figure) -> list[dict[str, Any]]:
    return [shape for shape in figure.layout["shapes"] if shape["line"]["dash"] == "dash"]


def test_plotly_knows_every_property(comparison: list[RunRecord]) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    drawn = figures(comparison, 0.9)
    assert len(drawn) == 5
    for figure in drawn.values():
        graph_objects.Figure(figure.data, figure.layout)  # raises for what is no property


def test_accuracy_against_bytes(comparison: list[RunRecord]) -> None:
    figure = figures(comparison, 0.9)["accuracy-bytes"]
    curve, mark = figure.data[2], figure.data[3]
    assert curve["name"] == "fda:theta=1.0"
    assert (curve["x"], curve["y"]) == ([25, 50, 75, 100], [0.2, 0.6, 0.85, 0.91])
    assert (mark["x"], mark["y"]) == ([100], [0.91])
    assert figure.data[5]["x"] == []  # local_sgd did not get there
    assert "100 bytes (100 B)" in mark["hovertext"][0]
    assert figure.layout["xaxis"]["type"] == "log"
    assert [line["y0"] for line in lines(figure)] == [0.9]


def test_a_run_has_one_colour_in_all_figures(comparison: list[RunRecord]) -> None:
    drawn = figures(comparison, 0.9)
    colours: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    for figure in drawn.values():
        for trace in figure.data:
            if "meta" in trace:
                for part in ("line", "marker"):
                    colours[trace["meta"]["run"]] |= {trace.get(part, {}).get("color")} - {None}
    assert [len(found) for found in colours.values()] == [1, 1, 1]
    assert len(set.union(*colours.values())) == 3
    names = drawn["kinds"].layout["annotations"]
    assert all(next(iter(colours[run])) in names[run]["text"] for run in range(3))


def test_styles_of_many_runs_are_all_different() -> None:
    drawn = styles(["synchronous", *["fda"] * 20, "synchronous"])
    assert len(set(drawn)) == 22
    assert drawn[0].colour == drawn[-1].colour
    # where there are only marks, without dashes
    assert len({(style.colour, style.mark) for style in drawn}) == 22


def test_grey_is_for_runs_that_others_are_held_against() -> None:
    serial, first, alone, second = styles(["serial", "periodic", "no_sync", "periodic"])
    assert serial.colour == alone.colour
    assert len({serial.colour, first.colour, second.colour}) == 3
    assert serial.mark != alone.mark


def test_bytes_by_kind_are_those_to_the_target(comparison: list[RunRecord]) -> None:
    figure = figures(comparison, 0.9)["kinds"]
    bars = {trace["name"]: trace["x"] for trace in figure.data}
    assert bars == {"model": [0, 80, 160], "gradient": [3000, 0, 0], "monitoring": [0, 20, 0]}
    texts = [note["text"] for note in figure.layout["annotations"]]
    assert ["missed" in text for text in texts] == [False, False, True]


def test_the_variance_estimate_with_its_threshold(comparison: list[RunRecord]) -> None:
    drawn = figures(comparison, 0.9)
    assert [name for name in drawn if name.startswith("variance")] == ["variance-1"]
    figure = drawn["variance-1"]
    estimate, fired = figure.data
    assert len(estimate["x"]) == 40
    assert fired["x"] == [10, 20, 30, 40]
    assert fired["y"] == pytest.approx([1.0, 1.02, 1.04, 1.06])
    assert [line["y0"] for line in lines(figure)] == [1.0]
    assert "40 estimates and 4 synchronisations" in figure.caption


def test_estimates_that_are_missing_or_not_finite_are_left_out() -> None:
    checks = [[(1, None, True), (2, float("nan"), False), (3, -0.5, False), (4, 2.0, True)]]
    figure = figures([make_run("fda:theta=1", [0.5], model=1, checks=checks)], None)["variance-0"]
    assert figure.data[0]["x"] == [3, 4]
    low, high = figure.layout["yaxis"]["range"]
    assert low <= -0.5
    assert high >= 2.0
    only_synchronisations = [[(1, None, True)]]
    local = make_run("local_sgd:period=1", [0.5], model=1, checks=only_synchronisations)
    assert "variance-0" not in figures([local], None)


def test_what_a_logarithmic_axis_cannot_show_is_said() -> None:
    silent = make_run("local_sgd:period=50", [0.5, 0.6])
    late = make_run("local_sgd:period=10", [0.5, 0.6], model=10)
    late.rows[0]["bytes"]["model"] = 0
    both = figures([silent, late], 0.5)["accuracy-bytes"]
    assert both.data[0]["x"] == []
    assert "Not drawn" in both.caption
    assert "local_sgd:period=50" in both.caption
    one = figures([late], 0.5)["accuracy-bytes"]
    assert one.data[0]["x"] == [20]
    assert "Evaluations before the first byte" in one.caption
    assert "accuracy-bytes" not in figures([silent], 0.5)


def test_without_predicted_times_there_is_no_figure_of_them() -> None:
    drawn = figures([make_run("fedavg", [0.5], model=1, seconds=None)], 0.5)
    assert list(drawn) == ["accuracy-bytes", "accuracy-steps", "kinds"]


def test_the_axis_shows_the_curves_also_far_below_the_target() -> None:
    drawn = figures([make_run("fedavg", [0.1, 0.2], model=1)], 0.95)
    low, high = drawn["accuracy-steps"].layout["yaxis"]["range"]
    assert low < 0.1
    assert high > 0.95
    left, right = drawn["accuracy-bytes"].layout["xaxis"]["range"]
    assert left < 0 < 0.3 < right


def test_plotly_shows_html_in_labels_as_text() -> None:
    run = make_run("fedavg", [0.5], model=1)
    run.config["recipe"] = "<b>&amp;"
    figure = figures([run], 0.5)["accuracy-steps"]
    assert figure.data[0]["name"] == "&lt;b&gt;&amp;amp;"
    assert figure.data[0]["hovertext"][0].startswith("<b>&lt;b&gt;&amp;amp;</b><br>")
