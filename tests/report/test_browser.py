"""The report in a real browser: it draws, without errors, and asks the network for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from report.conftest import make_run, make_stream
from tacit.report import write_report

pytest.importorskip("plotly")

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium here; install Debian's package chromium"
)

LABEL = "<b>bold</b> & <img src=x onerror=console.error('markup')>"

# What a reader would click, and what is then to be seen.
CLICKS = """<script>
function drawn(id) { return document.querySelectorAll("#" + id + " .trace").length; }
function click(selector) { document.querySelector(selector).click(); }
function hidden() { return document.querySelector("[data-run-panel='1']").hidden; }
var seen = { before: drawn("accuracy-steps"), panel: hidden() };
click(".legend [data-run='1']");
seen.after = drawn("accuracy-steps");
seen.panelAfter = hidden();
click(".legend [data-run='1']");
seen.again = drawn("accuracy-steps");
click(".scale [data-norm='percent']");
seen.share = document.getElementById("kinds").layout.xaxis.range;
seen.title = document.querySelector("#kinds .xtitle").textContent;
click(".scale [data-norm='']");
seen.bytes = document.getElementById("kinds").layout.xaxis.range;
document.body.setAttribute("data-seen", JSON.stringify(seen));
</script></body>"""


@dataclass
class Visit:
    """What a browser had of a page: its document, its console, the addresses it asked for."""

    document: str
    console: list[str]
    requests: list[str]

    def traces(self, figure: str) -> int:
        """The number of traces in one figure."""
        part = self.document.split(f'<div id="{figure}"')[1].split("</figure>")[0]
        return len(re.findall(r'<g class="trace (?:scatter|bars)', part))


def visit(page: Path, folder: Path) -> Visit:
    log = folder / "network.json"
    result = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000",
            "--enable-logging=stderr", "--v=0", f"--log-net-log={log}", "--dump-dom",
            page.resolve().as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return Visit(result.stdout, console, _requests(json.loads(log.read_text())))


def _requests(log: dict[str, Any]) -> list[str]:
    """Addresses that the page asked for; the browser's own have no page as their origin."""
    begin = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [e["params"] for e in log["events"] if e["type"] == begin and "params" in e]
    return [p["url"] for p in asked if p.get("initiator", "not an origin") != "not an origin"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checks = [[(10 * n + s, 0.11 * s, s == 10) for s in range(1, 11)] for n in range(4)]
    runs = [
        make_run("synchronous", [0.3, 0.7, 0.9, 0.92], gradient=1000),
        make_run("fda:theta=1.0", [0.2, 0.6, 0.85, 0.91], model=20, monitoring=5, checks=checks),
        make_run("fedavg", [0.2, 0.5], model=40, ended=False),
        make_run("fedadam", [], ended=False),
    ]
    runs[2].config["recipe"] = LABEL
    return write_report(runs, tmp_path_factory.mktemp("report") / "report.html", 0.9)


@pytest.fixture(scope="module")
def visited(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    clicked = report.with_name("clicked.html")
    text = report.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    clicked.write_text(text.replace("</body>", CLICKS), encoding="utf-8")
    return visit(clicked, tmp_path_factory.mktemp("browser"))


def test_the_figures_are_drawn(visited: Visit) -> None:
    ids = re.findall(r'<div id="([\w-]+)" class="plot', visited.document)
    assert ids == ["accuracy-bytes", "accuracy-steps", "accuracy-time", "kinds", "variance-1"]
    assert visited.document.count('class="main-svg"') >= len(ids)
    # three curves (fedadam has none), and two marks where the target was reached
    assert [visited.traces(figure) for figure in ids] == [5, 5, 5, 3, 2]


def test_the_console_is_silent(visited: Visit) -> None:
    assert visited.console == []


def test_the_page_asks_the_network_for_nothing(visited: Visit) -> None:
    outside = [url for url in visited.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []


def test_labels_are_shown_as_they_are(visited: Visit) -> None:
    assert "onerror" in visited.document
    assert not re.search(r"<img[^>]*onerror", visited.document)
    assert "<b>bold" not in visited.document.split("<script")[0]


def test_runs_can_be_hidden_and_bars_shown_as_shares(visited: Visit) -> None:
    found = re.search(r'data-seen="([^"]*)"', visited.document)
    assert found is not None
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert (seen["before"], seen["after"], seen["again"]) == (5, 3, 5)
    assert (seen["panel"], seen["panelAfter"]) == (False, True)
    assert seen["share"][1] == pytest.approx(100, rel=0.1)
    assert seen["bytes"][1] == pytest.approx(3000, rel=0.1)
    assert "share" in seen["title"]


def test_a_report_on_streams(tmp_path: Path) -> None:
    talks = [(10, 1, 2, False), (20, 4, 4, True)]
    runs = [
        make_stream("periodic:period=10", [2.0] * 40, sent=1000, drifts=[21]),
        make_stream("dynamic_averaging:delta=1", [2.1] * 40, sent=9, conversations=talks),
        make_stream("no_sync", [3.0] * 40, drifts=[21]),
    ]
    runs[1].rows[2]["drifts"] = [21]
    runs[2].config["recipe"] = LABEL
    seen = visit(write_report(runs, tmp_path / "report.html"), tmp_path)
    ids = re.findall(r'<div id="([\w-]+)" class="plot', seen.document)
    drawn = {figure: seen.traces(figure) for figure in ids}
    assert drawn == {
        "loss-bytes": 3, "loss-steps": 3, "excess-steps": 3, "bytes-steps": 2,
        # the target's marks are empty; two kinds of stems, their heads, and the violations
        "accuracy-steps": 3, "kinds": 1, "conversations-1": 5,
    }  # fmt: skip
    assert seen.console == []
    assert not re.search(r"<img[^>]*onerror", seen.document)


def test_the_browser_would_have_told(tmp_path: Path) -> None:
    """The two tests above can fail: a page with an error and an outside image is noticed."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://example.org/x.png'><script>undefined_thing()</script>")
    seen = visit(bad, tmp_path)
    assert any("undefined_thing" in line for line in seen.console)
    assert seen.requests == ["http://example.org/x.png"]
