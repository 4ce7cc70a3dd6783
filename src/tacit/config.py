"""The configuration of a run: one dataclass, equal to the command line and to ``config.json``."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from tacit.errors import UserError, unknown
from tacit.fleet import Link
from tacit.optimizers import OptimizerFactory
from tacit.recipes import RECIPES, Recipe
from tacit.tasks.batches import Order
from tacit.training import Execution

Value = bool | int | float | str


@dataclass
class RunConfig:
    """What is run. ``steps`` goes before ``epochs``; a run also stops at ``target`` accuracy if
    ``stop_at_target``. ``optimizer``: overrides the task's, like ``adam:lr=0.001,eps=1e-7``."""

    recipe: str
    options: dict[str, Value] = field(default_factory=dict)
    task: str = "digits"
    model: str | None = None
    data: str | None = None
    workers: int = 4
    partition: str = "iid"
    seed: int = 0
    steps: int | None = None
    epochs: float = 10.0
    batch_size: int | None = None
    order: Order = "shuffle"
    optimizer: str | None = None
    execution: Execution = "auto"
    device: str = "cpu"
    processes: int = 1
    deterministic: bool = False
    target: float | None = None
    stop_at_target: bool = False
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    link: str = "100mbit,20ms"

    def __post_init__(self) -> None:
        for name in ("workers", "processes", "steps", "batch_size", "evaluate_every",
                     "checkpoint_every"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.processes > self.workers:
            raise UserError(
                f"{self.processes} processes cannot share {self.workers} workers; "
                "use --processes at most --workers"
            )
        if not self.epochs > 0:
            raise UserError(f"epochs must be above 0, got {self.epochs:g}")
        if self.target is not None and not 0 < self.target <= 1:
            raise UserError(f"target is an accuracy between 0 and 1, got {self.target:g}")
        Link.parse(self.link)
        self.build_recipe()
        self.build_optimizer()

    @property
    def label(self) -> str:
        """The recipe with its options, as on the command line."""
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.recipe}:{options}" if options else self.recipe

    def build_recipe(self) -> Recipe:
        """A fresh recipe. Raises UserError for an unknown name or option, or a bad value."""
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)
        return cast(Recipe, _call(f"recipe {self.recipe}", RECIPES[self.recipe], self.options))

    def build_optimizer(self) -> OptimizerFactory | None:
        """The local optimizer named by ``optimizer``, or None for the task's own."""
        if self.optimizer is None:
            return None
        name, options = parse_call(self.optimizer)
        known: dict[str, Callable[..., Any]] = {
            n.lower(): c
            for n, c in vars(torch.optim).items()
            if isinstance(c, type) and issubclass(c, torch.optim.Optimizer) and n != "Optimizer"
        }
        if name.lower() not in known:
            raise unknown("optimizer", name.lower(), known)
        factory = partial(known[name.lower()], **options)
        try:
            factory([torch.zeros(1)])
        except (TypeError, ValueError) as error:
            raise UserError(f"optimizer {self.optimizer}: {_one_line(error)}") from None
        return cast(OptimizerFactory, factory)

    # -- as a file

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> RunConfig:
        """Read ``config.json``. Raises UserError when it is missing, damaged or from elsewhere."""
        try:
            values = json.loads(path.read_text())
            return cls(**values)
        except FileNotFoundError:
            raise UserError(f"there is no {path}; give the folder of a run") from None
        except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a run's configuration: {_one_line(error)}") from None


def parse_call(text: str) -> tuple[str, dict[str, Value]]:
    """``"fda:theta=1,estimator=sketch"`` to its name and options."""
    name, _, rest = text.partition(":")
    options: dict[str, Value] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{item!r} in {text!r} is not of the form option=value")
        options[key.strip().replace("-", "_")] = parse_value(value.strip())
    return name.strip(), options


def parse_value(text: str) -> Value:
    """A number or a truth value where the text is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _call(what: str, function: Callable[..., Any], options: dict[str, Value]) -> Any:
    parameters = inspect.signature(function).parameters
    for name in options:
        if name not in parameters:
            raise unknown(f"option of {what}:", name, parameters)
    try:
        return function(**options)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except TypeError as error:
        raise UserError(f"{what}: a value is of the wrong type ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
