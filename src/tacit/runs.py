"""The run folder: ``config.json``, ``metrics.jsonl``, ``summary.json``, checkpoints, report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tacit.config import RunConfig
from tacit.errors import UserError
from tacit.evaluation import Evaluation


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


class RunFolder:
    """Writes a run as it goes; readable at any moment, also when the run ends badly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """A new folder. Raises UserError when it holds a run already."""
        if (path / "config.json").exists():
            raise UserError(f"{path} already holds a run; choose another --out, or --resume it")
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "config.json", config.to_json())
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def append(self, evaluation: Evaluation) -> None:
        """One more line of ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(evaluation.as_dict()) + "\n")

    def truncate(self, step: int) -> None:
        """Drop the metrics after ``step``: the run resumes from there."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step(line) <= step]
            write_atomically(path, "".join(f"{line}\n" for line in lines))

    def finish(self, summary: Mapping[str, Any]) -> None:
        write_atomically(self.path / "summary.json", json.dumps(dict(summary), indent=2) + "\n")


@dataclass
class RunRecord:
    """A run as read back: its configuration, its evaluations in order, and its summary (empty if
    the run has not ended)."""

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]

    @property
    def label(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.config["options"].items())
        return f"{self.config['recipe']}:{options}" if options else str(self.config["recipe"])

    def at_target(self, target: float) -> dict[str, Any] | None:
        """The first evaluation at or above ``target`` accuracy."""
        return next((row for row in self.rows if row["accuracy"] >= target), None)


def read_run(path: Path) -> RunRecord:
    """Read a run folder. Raises UserError when there is none, or its files are damaged. A last
    line that was being written when the run was cut off is left out."""
    config = json.loads(RunConfig.from_file(path / "config.json").to_json())
    metrics, rows = path / "metrics.jsonl", []
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise UserError(f"{metrics}, line {number}, is damaged; remove the line") from None
    summary_path = path / "summary.json"
    try:
        summary = json.loads(summary_path.read_text()) if summary_path.exists() else {}
    except json.JSONDecodeError:
        raise UserError(f"{summary_path} is damaged; remove it") from None
    return RunRecord(path, config, rows, summary)


def _step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):
        return float("inf")
