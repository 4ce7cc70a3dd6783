"""What the terminal shows while runs go on."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tacit.config import RunConfig
from tacit.evaluation import Evaluation
from tacit.report.units import human_bytes

#: Seconds between two plain lines where the output is no terminal.
_PLAIN_EVERY = 5.0


def observer(console: Console) -> BarObserver | LineObserver:
    """A live bar on a terminal, plain lines elsewhere."""
    return BarObserver(console) if console.is_terminal else LineObserver()


class BarObserver:
    """One line that moves: steps, accuracy, bytes, synchronisations, time left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, config: RunConfig, steps: int) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("accuracy {task.fields[accuracy]}"),
            TextColumn("{task.fields[bytes]}"),
            TextColumn("{task.fields[syncs]} syncs"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task: TaskID = self._progress.add_task(
            config.label, total=steps, accuracy="-", bytes="0 B", syncs=0
        )
        self._progress.start()

    def stepped(self, step: int, synchronisations: int, total_bytes: int) -> None:
        self._progress.update(
            self._task, completed=step, bytes=human_bytes(total_bytes), syncs=synchronisations
        )

    def evaluated(self, evaluation: Evaluation) -> None:
        self._progress.update(
            self._task, completed=evaluation.step, accuracy=f"{evaluation.accuracy:.4f}"
        )

    def end(self) -> None:
        self._progress.stop()


class LineObserver:
    """A line for an evaluation, but not more often than every few seconds, and for the last one."""

    def begin(self, config: RunConfig, steps: int) -> None:
        self._label, self._steps = config.label, steps
        self._began = self._last = time.monotonic()
        self._first_step: int | None = None

    def stepped(self, step: int, synchronisations: int, total_bytes: int) -> None:
        if self._first_step is None:
            self._first_step = step - 1

    def evaluated(self, evaluation: Evaluation) -> None:
        if self._first_step is None:
            self._first_step = evaluation.step - 1
        now = time.monotonic()
        if evaluation.step < self._steps and now - self._last < _PLAIN_EVERY:
            return
        self._last = now
        done = evaluation.step - self._first_step
        left = (self._steps - evaluation.step) * (now - self._began) / done
        sys.stdout.write(
            f"{self._label}  step {evaluation.step}/{self._steps}  "
            f"accuracy {evaluation.accuracy:.4f}  {human_bytes(evaluation.total_bytes)}  "
            f"{evaluation.synchronisations} syncs  {left:.0f} s left\n"
        )
        sys.stdout.flush()

    def end(self) -> None:
        return None
