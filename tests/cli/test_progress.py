"""What the terminal shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tacit.cli import progress
from tacit.cli.progress import BarObserver, LineObserver, observer
from tacit.config import RunConfig
from tacit.evaluation import Evaluation


def at(step: int) -> Evaluation:
    spent = {"model": 1_500_000, "gradient": 0, "monitoring": 0, "control": 0}
    return Evaluation(step, 1.0, 0.9123, 0.1, 0.1, 7, spent, 0, 1.0, 0.1)


def test_plain_lines_are_few_and_the_last_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = LineObserver()
    lines.begin(RunConfig("fda", {"theta": 1}), 50)
    for step in range(31, 51):  # a run that was resumed after step 30, a second a step
        clock[0] += 1.0
        lines.evaluated(at(step))
        lines.stepped(step, 7, 1_500_000)
    lines.end()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in shown] == ["35/50", "40/50", "45/50", "50/50"]
    start = "fda:theta=1  step 35/50  accuracy 0.9123  1.5 MB  7 syncs"
    assert shown[0] == f"{start}  15 s left"


def test_a_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    bar = observer(console)
    assert isinstance(bar, BarObserver)
    bar.begin(RunConfig("fda", {"theta": 1}), 50)
    bar.stepped(20, 7, 1_500_000)
    bar.evaluated(at(50))
    bar.end()
    text = screen.getvalue()
    for part in ("fda:theta=1", "50/50 steps", "accuracy 0.9123", "1.5 MB", "7 syncs"):
        assert part in text
    assert isinstance(observer(Console(file=io.StringIO())), LineObserver)
