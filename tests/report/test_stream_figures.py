from __future__ import annotations

from typing import Any

import pytest

from report.conftest import make_stream
from tacit.report import table
from tacit.report.figure import Figure
from tacit.report.page import draw, render
from tacit.runs import RunRecord


def figures(runs: list[RunRecord]) -> dict[str, Figure]:
    return {figure.id: figure for figure in draw(runs, table(runs), None)}


def drift_lines(figure: Figure) -> list[int]:
    return [shape["x0"] for shape in figure.layout["shapes"] if shape["line"]["dash"] == "dot"]


def test_plotly_knows_every_property(streams: list[RunRecord]) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    drawn = figures(streams)
    assert list(drawn) == [
        "loss-bytes", "loss-steps", "excess-steps", "bytes-steps", "accuracy-steps", "kinds",
        "conversations-1",
    ]  # fmt: skip
    for figure in drawn.values():
        graph_objects.Figure(figure.data, figure.layout)  # raises for what is no property


def test_drifts_are_in_all_figures_over_steps(streams: list[RunRecord]) -> None:
    drawn = figures(streams)
    marked = [name for name, figure in drawn.items() if drift_lines(figure) == [21]]
    assert marked == [
        "loss-steps", "excess-steps", "bytes-steps", "accuracy-steps", "conversations-1",
    ]  # fmt: skip
    assert [note["text"] for note in drawn["loss-steps"].layout["annotations"]] == ["drift"]
    assert "Dotted lines: drifts" in render(streams, None, "")


def test_drifts_that_differ_or_are_too_many_are_not_drawn(streams: list[RunRecord]) -> None:
    streams[0].rows[0]["drifts"] = [5]
    figure = figures(streams)["loss-steps"]
    assert drift_lines(figure) == []
    assert "drifted at different steps" in figure.caption
    restless = make_stream("no_sync", [1.0] * 200, drifts=range(2, 200))
    figure = figures([restless])["loss-steps"]
    assert drift_lines(figure) == []
    assert "198 drifts, too many to draw" in figure.caption


def test_loss_against_bytes(streams: list[RunRecord]) -> None:
    figure = figures(streams)["loss-bytes"]
    traces = {trace["name"]: trace for trace in figure.data}
    mark = traces["dynamic_averaging:delta=1"]
    assert (mark["x"], mark["y"]) == ([400], pytest.approx([80.4]))
    assert mark["mode"] == "markers"
    assert "400 bytes (400 B)" in mark["hovertext"][0]
    line = traces["no_sync"]
    assert line["line"]["dash"] == "dash"
    assert set(line["y"]) == {120.0}
    assert line["text"][0] == "no_sync"
    left, right = figure.layout["xaxis"]["range"]
    assert 10**left == pytest.approx(line["x"][0])
    assert 10**right == pytest.approx(line["x"][-1])
    assert line["x"][0] < 400 < 4000 < line["x"][-1]
    low, high = figure.layout["yaxis"]["range"]
    assert low < 60
    assert high > 120
    assert [trace["meta"]["run"] for trace in figure.data] == [2, 3, 0, 1]  # marks over lines
    assert "Dashed: runs that sent nothing" in figure.caption


def test_a_run_that_ended_early_is_hollow(streams: list[RunRecord]) -> None:
    streams[1].rows = streams[1].rows[:2]
    figure = figures(streams)["loss-bytes"]
    symbols = {t["name"]: t["marker"]["symbol"] for t in figure.data if "marker" in t}
    assert symbols == {
        "periodic:period=10": "circle",
        "dynamic_averaging:delta=1": "square-open",
    }
    assert "Hollow: ended early" in figure.caption


def test_no_figure_without_a_point(streams: list[RunRecord]) -> None:
    assert list(figures(streams[1:2])) == [
        "loss-steps", "bytes-steps", "accuracy-steps", "kinds", "conversations-0",
    ]  # fmt: skip
    # nobody sent anything
    assert list(figures(streams[2:])) == ["loss-steps", "excess-steps", "accuracy-steps"]
    # other samples
    streams[1].config["seed"] = 1
    assert "excess-steps" not in figures(streams)


def test_loss_is_a_mean_over_workers_and_windows() -> None:
    losses = [4.0] * 150 + [8.0] * 50
    figure = figures([make_stream("no_sync", losses, drifts=[151])])["loss-steps"]
    (curve,) = figure.data
    assert len(curve["x"]) == 100  # 2 steps each
    assert curve["y"] == [1.0] * 75 + [2.0] * 25  # 4 workers
    assert curve["x"][:2] == [1.5, 3.5]
    assert "mean of about 2 steps" in figure.caption


def test_cumulative_loss_beyond_the_lowest(streams: list[RunRecord]) -> None:
    streams[3].rows = streams[3].rows[:2]
    figure = figures(streams)["excess-steps"]
    ends = [(trace["x"][-1], trace["y"][-1]) for trace in figure.data]
    assert ends == [(40, 20.0), (40, pytest.approx(20.4)), (40, 0.0), (20, 30.0)]
    assert all((trace["x"][0], trace["y"][0]) == (0, 0) for trace in figure.data)
    assert "Less that of serial" in figure.caption


def test_bytes_over_steps_have_every_step_of_the_stairs(streams: list[RunRecord]) -> None:
    figure = figures(streams)["bytes-steps"]
    assert figure.data[0]["x"] == [0, 10, 20, 30, 40, 40]
    assert figure.data[0]["y"] == [0, 1000, 2000, 3000, 4000, 4000]
    assert len(figure.data) == 2
    assert "nothing was sent: serial, no_sync" in figure.caption
    assert "Hide" not in figure.caption
    streams[1] = make_stream("dynamic_averaging:delta=9", [2.0] * 40, sent=10)
    assert "Hide the largest" in figures(streams)["bytes-steps"].caption


def test_runs_that_saw_fewer_samples_are_not_compared(streams: list[RunRecord]) -> None:
    part = make_stream("fedavg:fraction=0.5", [1.0] * 40, sent=10, drifts=[21])
    drawn = figures([*streams, part])
    assert len(drawn["loss-bytes"].data) == len(drawn["excess-steps"].data) == 4
    assert drawn["loss-steps"].data[4]["y"][0] == 0.5  # 2 of 4 workers


# -- the time line of a coordinator


def named(figure: Figure) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in figure.data if "name" in trace}


def test_the_time_line(streams: list[RunRecord]) -> None:
    figure = figures(streams)["conversations-1"]
    traces = named(figure)
    full, partial = traces["full synchronisation"], traces["partial balancing"]
    assert (full["x"], full["y"]) == ([21], [4])
    assert (partial["x"], partial["y"]) == ([10, 31], [2, 3])
    assert (traces["violations"]["x"], traces["violations"]["y"]) == ([10, 21, 31], [1, 4, 2])
    stems = {trace["legendgroup"]: trace for trace in figure.data if trace["mode"] == "lines"}
    assert stems["partial balancing"]["x"] == [10, 10, None, 31, 31, None]
    assert stems["partial balancing"]["y"] == [0, 2, None, 0, 3, None]
    assert len({trace["marker"]["color"] for trace in traces.values()}) == 3
    assert figure.caption == "1 full synchronisation, 2 partial; 7 violations."
    assert (figure.run, figure.section) == (1, "conversations")


def test_a_time_line_of_ten_thousand_stays_light() -> None:
    talks = [(step, 1 + step % 3, 4, step % 50 == 0) for step in range(1, 10_001)]
    run = make_stream("dynamic_averaging:delta=1", [1.0] * 10_000, sent=5, conversations=talks)
    figure = figures([run])["conversations-0"]
    assert len(named(figure)["violations"]["x"]) <= 2000
    assert "200 full synchronisations, 9,800 partial" in figure.caption
    assert "of these 10,000 conversations are drawn" in figure.caption


def test_averages_at_fixed_steps_have_no_time_line(streams: list[RunRecord]) -> None:
    for row in streams[1].rows:
        row["checks"] = [[step, None, True] for step, _, _ in row["checks"]]
    assert "conversations-1" not in figures(streams)


def test_the_share_of_callers_is_no_variance(streams: list[RunRecord]) -> None:
    assert not any(name.startswith("variance") for name in figures(streams))
    text = render(streams, None, "")
    assert "What the coordinator arranged" in text
    assert "When the workers synchronised" not in text


def test_the_page_of_a_stream_has_its_own_table(streams: list[RunRecord]) -> None:
    text = render(streams, None, "")
    for row in table(streams):
        for cell in row.cells()[1:]:
            assert f"<td>{cell}</td>" in text
    assert "<h2>The whole run</h2>" in text
    assert "target" not in text.split("<style>")[1].split("</style>")[1].split("<details>")[0]
