"""The commands."""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tacit.aggregators import AGGREGATORS
from tacit.attacks import ATTACKS
from tacit.cli.options import run_options
from tacit.cli.progress import observer
from tacit.compressors.registry import COMPRESSORS
from tacit.config import RunConfig, parse_call
from tacit.errors import TrainingDiverged, UserError
from tacit.launch import launch
from tacit.recipes import RECIPES
from tacit.report import asked, choose_target, headings, table, write_report
from tacit.runner import execute, launched_by_torchrun
from tacit.runs import RunFolder, RunRecord, read_run

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=120)


#: A reference in a docstring, like ``:func:`ef21```; with a tilde, the last name is the text.
_ROLE = re.compile(r":[a-z]+:`(?:~[\w.]*\.)?~?([^`]*)`")

#: Parameters of a stream that are the data it is made of.
_DATA = ("train", "test")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tacit")
def tacit() -> None:
    """Distributed deep learning that speaks only when it must."""


@tacit.command()
@click.argument("recipe", required=False)
@click.option("--out", metavar="DIR", help="Run folder.  [default: runs/TIME-RECIPE]")
@click.option("--config", metavar="FILE", help="Run what a config.json says.")
@click.option("--resume", metavar="DIR", help="Go on from the last checkpoint of a run.")
@run_options
def run(recipe: str | None, out: str | None, config: str | None, resume: str | None,
        **options: Any) -> None:  # fmt: skip
    """Train with one RECIPE, like `fda:theta=1` or `local_sgd:period=16`."""
    if sum(x is not None for x in (recipe, config, resume)) != 1:
        raise UserError("give a RECIPE, or --config FILE, or --resume DIR: one of the three")
    if resume is not None:
        path = Path(resume)
        configuration = RunConfig.from_file(path / "config.json")
        record = _execute(configuration, path, resume=True)
    else:
        if config is not None:
            configuration = RunConfig.from_file(Path(config))
        else:
            configuration = _configuration(str(recipe), options)
        path = Path(out) if out else Path("runs") / f"{_now()}-{_slug(configuration.label)}"
        record = _execute(configuration, path)
    if record is not None:
        _conclude([record], record.path / "report.html", configuration.target)


@tacit.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--out", metavar="DIR", help="Folder of the runs.  [default: runs/TIME-compare]")
@run_options
def compare(recipes: tuple[str, ...], out: str | None, **options: Any) -> None:
    """Train with several RECIPES on the same task, and report what each needed. Where one diverges
    the others go on, and the exit status is 1."""
    configurations = [_configuration(recipe, options) for recipe in recipes]
    folder = Path(out) if out else Path("runs") / f"{_now()}-compare"
    names = [_slug(c.label) for c in configurations]
    if len(set(names)) < len(names):
        raise UserError("the same recipe is given twice; change an option of one")
    records, diverged = [], None
    for configuration, name in zip(configurations, names, strict=True):
        try:
            record = _execute(configuration, folder / name)
        except TrainingDiverged as error:  # the others are not worth less for it
            diverged = diverged or TrainingDiverged(f"{configuration.label}: {error}")
            record = read_run(folder / name) if os.environ.get("RANK", "0") == "0" else None
        if record is not None:
            records.append(record)
    if records:
        _conclude(records, folder / "report.html", configurations[0].target)
    if diverged is not None:
        raise diverged


@tacit.command(name="list")
def list_() -> None:
    """The recipes, tasks, compressors, aggregators and attacks there are."""
    from tacit.tasks.registry import TASKS

    recipes = _described("recipe", RECIPES)
    tasks = Table("task", "models", "options", "", title="tasks", title_justify="left", box=None)
    for name, source in TASKS.items():
        options = "augment=true|false" if source.augment is not None else ""
        if source.stream is not None:
            options = _options(source.stream)
        tasks.add_row(f"[bold]{name}", ", ".join(source.models), options, source.description)
    parts: dict[str, Mapping[str, Any]] = {
        "compressor": COMPRESSORS,
        "aggregator": AGGREGATORS,
        "attack": ATTACKS,
    }
    for shown in (recipes, tasks, *(_described(what, parts[what]) for what in parts)):
        console.print(shown)
        console.print()


@tacit.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--target", type=float, help="Accuracy to compare at.")
@click.option("--out", metavar="FILE", default="report.html", show_default=True)
def report(runs: tuple[str, ...], target: float | None, out: str) -> None:
    """Write one report about finished or unfinished RUNS (their folders)."""
    _conclude([read_run(Path(run)) for run in runs], Path(out), target)


# -- pieces


def _configuration(recipe: str, options: dict[str, Any]) -> RunConfig:
    name, recipe_options = parse_call(recipe)
    if options["workers"] is None:
        options["workers"] = int(os.environ.get("WORLD_SIZE", "4"))
    if launched_by_torchrun():
        options["processes"] = int(os.environ["WORLD_SIZE"])
    return RunConfig(recipe=name, options=recipe_options, **options)


def _execute(configuration: RunConfig, path: Path, resume: bool = False) -> RunRecord | None:
    """Run here, or in processes of our own; the record in the process that prints, else None."""
    if configuration.processes > 1 and not launched_by_torchrun():
        return _launch(configuration, path, resume)
    record = execute(
        configuration,
        lambda: RunFolder(path) if resume else RunFolder.create(path, configuration),
        observer(console),
        resume,
    )
    return record if os.environ.get("RANK", "0") == "0" else None


def _launch(configuration: RunConfig, path: Path, resume: bool) -> RunRecord:
    if not resume:
        # Build once in this process: bad input is an error here, before anything is started.
        RunFolder.create(path, configuration)
    status = launch(["join", str(path), *(["--resume"] if resume else [])], configuration.processes)
    if status:
        raise SystemExit(status)
    return read_run(path)


@tacit.command(hidden=True)
@click.argument("folder")
@click.option("--resume", is_flag=True)
def join(folder: str, resume: bool) -> None:
    """One of the processes of a run that another process has started."""
    configuration = RunConfig.from_file(Path(folder) / "config.json")
    execute(configuration, lambda: RunFolder(Path(folder)), observer(console), resume)


#: Characters of a recipe in the table: that are never broken, and room for longer ones.
_LONG, _FOLDED = 40, 30


def _conclude(records: list[RunRecord], path: Path, target: float | None) -> None:
    """Print the table, write the report, say where it is."""
    if target is None:
        targets = {record.config["target"] for record in records}
        target = targets.pop() if len(targets) == 1 else None
    target = choose_target(records) if target is None else target
    rows = table(records, target)
    shown = Table(*headings(rows), box=None, header_style="bold", pad_edge=False)
    longest = max(len(row.cells()[0]) for row in rows)
    shown.columns[0].overflow = "fold"
    # rather break the headings than a recipe, unless it is a long one
    shown.columns[0].min_width = longest if longest <= _LONG else _FOLDED
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in rows:
        shown.add_row(*row.cells())
    console.print()
    if question := asked(rows, target):
        console.print(question)
    console.print(shown)
    write_report(records, path, target)
    console.print(f"\nreport: [bold]{path}", soft_wrap=True)


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")


def _described(what: str, functions: Mapping[str, Any]) -> Table:
    """A table of the things of a registry: name, options, what it is."""
    shown = Table(what, "options", "", title=f"{what}s", title_justify="left", box=None)
    for name, function in functions.items():
        shown.add_row(f"[bold]{name}", _options(function), escape(_first_paragraph(function)))
    return shown


def _options(function: Any) -> str:
    """The parameters that a user may give, with their defaults; not the data of a stream."""
    given = [p for p in inspect.signature(function).parameters.values() if p.name not in _DATA]
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in given)


def _first_paragraph(function: Any) -> str:
    """Of its docstring, as plain text in one line."""
    text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    return _ROLE.sub(r"\1", text).replace("``", "")
