from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from helpers.tasks import mlp_task
from report.conftest import make_run, make_stream
from tacit import Link, LocalFleet, Simulation
from tacit.config import RunConfig
from tacit.errors import MissingExtra, UserError
from tacit.report import table, write_report
from tacit.report.page import render
from tacit.runs import RunFolder, RunRecord, read_run


def page(runs: list[RunRecord], target: float | None = None) -> str:
    return render(runs, target, "/* plotly */")


def test_the_page_holds_every_number_of_the_table(comparison: list[RunRecord]) -> None:
    text = page(comparison, 0.9)
    for row in table(comparison, 0.9):
        for cell in row.cells()[1:]:
            assert f"<td>{cell.replace('>', '&gt;')}</td>" in text
    assert text.count("target missed</span>") == 1
    assert "with 30 times fewer bytes than synchronous" in text
    assert "tacit run fda:theta=1.0 --task digits" in text


def test_nothing_of_a_run_becomes_markup() -> None:
    attack = '</script><script>alert("1")</script><img src="http://example.org/x.png">'
    runs = [make_run("fedavg", [0.5], model=1, folder=attack) for _ in range(2)]
    runs[0].config.update(recipe=attack, data=attack, task=attack, optimizer=attack)
    runs[0].summary = {"finished": False, "error": attack}
    harmless = [make_run("fedavg", [0.5], model=1, folder=str(i)) for i in range(2)]
    text, other = page(runs, 0.5), page(harmless, 0.5)
    assert "alert(" in text
    for tag in ("<script", "</script", "<img"):
        assert text.count(tag) == other.count(tag)
    embedded = text.split('id="figures">')[1].split("</script>")[0]
    assert "<" not in embedded
    assert len(json.loads(embedded)) == 4


def test_nothing_of_a_stream_becomes_markup() -> None:
    attack = '</script><script>alert("1")</script><img src="http://example.org/x.png">'
    talks = [(10, 1, 2, False)]
    runs = [make_stream("no_sync", [1.0] * 20, sent=n, conversations=talks) for n in (0, 1)]
    other = page(runs)
    for run in runs:
        run.config.update(recipe=attack, task=attack)
    text = page(runs)
    assert "alert(" in text
    for tag in ("<script", "</script", "<img"):
        assert text.count(tag) == other.count(tag)


def test_the_page_refers_to_nothing_outside(comparison: list[RunRecord]) -> None:
    text = page(comparison, 0.9)
    assert re.findall(r"(?:src|href|action|data)\s*=\s*[\"']?([^\"'\s>]*)", text) == ["data:,"]
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_the_ways_of_messages_are_explained(comparison: list[RunRecord]) -> None:
    text = page(comparison, 0.9).split("How bytes are counted")[1].split("</details>")[0]
    text = " ".join(re.sub(r"<[^>]*>", "", text).split())
    assert "gathered (compressed, mostly) is sent once and received by each of the n" in text
    assert "through a coordinator is sent once by each worker" in text
    assert "An average of more than 8.19 kB runs on a ring" in text
    assert "all (wire)" in text


def test_one_run_and_no_evaluations() -> None:
    text = page([make_run("fda:theta=1.0", [], ended=False)])
    assert "No run has been evaluated yet" in text
    assert "There are no figures" in text
    assert "not finished</span>" in text
    single = page([make_run("fda:theta=1.0", [0.3, 0.5], model=1, ended=False)])
    assert "its last evaluation is at step 20" in single
    assert 'class="legend"' not in single


def test_the_reason_of_a_failure_is_told() -> None:
    run = make_run("fedavg", [0.5], model=1)
    run.summary = {"finished": False, "error": "worker 3: the loss is nan"}
    assert "fedavg did not finish (worker 3: the loss is nan)" in page([run])


def test_the_same_runs_give_the_same_page(comparison: list[RunRecord]) -> None:
    assert page(comparison, 0.9) == page(comparison, 0.9)


def test_a_real_run_from_its_folder_to_its_row(tmp_path: Path) -> None:
    for name, recipe in (("a", "synchronous"), ("b", "fda")):
        options = {"theta": 0.05} if recipe == "fda" else {}
        config = RunConfig(recipe, dict(options), workers=3, steps=30)
        folder = RunFolder.create(tmp_path / name, config)
        link = Link.parse(config.link)
        simulation = Simulation(mlp_task(), config.build_recipe(), LocalFleet(3), link=link)
        for evaluation in simulation.run(30, evaluate_every=10):
            folder.append(evaluation)
        folder.finish({"finished": True})
    ledger = simulation.fleet.ledger
    runs = [read_run(tmp_path / name) for name in "ab"]
    last = max(row["accuracy"] for row in runs[1].rows)
    runs[1].rows[-1]["accuracy"] = runs[0].rows[-1]["accuracy"] = last + 0.001
    synchronous, fda = table(runs, last + 0.001)
    assert fda.total_bytes == ledger.bytes()
    assert fda.ring_bytes == ledger.ring_bytes()
    assert fda.synchronisations == simulation.synchronisations > 0
    assert synchronous.total_bytes == 30 * 3 * 2 * 53 * 4
    assert fda.ratio == synchronous.total_bytes / ledger.bytes()
    assert "variance-1" in page(runs)


# -- the file


def test_the_file_is_written_whole_or_not_at_all(
    comparison: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("plotly")
    path = tmp_path / "new" / "report.html"
    assert write_report(comparison, path, 0.9) == path
    before = path.read_bytes()
    assert len(before) > 1_000_000
    assert before.rstrip().endswith(b"</html>")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"cannot be written to .*: No space left on device"):
        write_report(comparison, path, 0.5)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_bad_input_leaves_no_file(comparison: list[RunRecord], tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    with pytest.raises(UserError, match="no runs"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(comparison, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_plotly_the_extra_is_named(
    comparison: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("plotly", "plotly.offline"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'tacit\[report\]'"):
        write_report(comparison, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    assert len(table(comparison, 0.9)) == 3  # the table needs no plotly
