"""The configuration of a run: one dataclass, equal to the command line and to ``config.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from tacit.attacks import Liars
from tacit.calls import Value, call, parse_call, parse_value
from tacit.errors import UserError, unknown
from tacit.fleet import Link
from tacit.optimizers import OptimizerFactory
from tacit.recipes import RECIPES, Recipe
from tacit.tasks.batches import Order
from tacit.training import Execution

__all__ = ["RunConfig", "Value", "parse_call", "parse_value"]


@dataclass
class RunConfig:
    """What is run. ``steps`` goes before ``epochs``, by default 10, or a stream once; a run also
    stops at ``target`` accuracy if ``stop_at_target``. ``optimizer``: overrides the task's, like
    ``adam:lr=0.001,eps=1e-7``. ``noise``: see ``Simulation``. ``liars``: how many of the workers
    lie, ``attack`` and ``attack_trigger``: how (see ``Liars``)."""

    recipe: str
    options: dict[str, Value] = field(default_factory=dict)
    task: str = "digits"
    model: str | None = None
    data: str | None = None
    workers: int = 4
    partition: str = "iid"
    seed: int = 0
    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    order: Order = "shuffle"
    optimizer: str | None = None
    noise: float = 0.0
    liars: int = 0
    attack: str | None = None
    attack_trigger: str | None = None
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
        if not 0 <= self.noise < math.inf:
            raise UserError(f"the noise of the first models must be 0 or more, got {self.noise:g}")
        if self.epochs is not None and not self.epochs > 0:
            raise UserError(f"epochs must be above 0, got {self.epochs:g}")
        if self.target is not None and not 0 < self.target <= 1:
            raise UserError(f"target is an accuracy between 0 and 1, got {self.target:g}")
        if self.liars == 0 and (self.attack or self.attack_trigger):
            raise UserError("an attack needs workers that lie; give --liars too")
        Link.parse(self.link)
        self.build_recipe()
        self.build_optimizer()
        self.build_liars()

    @property
    def label(self) -> str:
        """The recipe with its options, as on the command line."""
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.recipe}:{options}" if options else self.recipe

    def build_recipe(self) -> Recipe:
        """A fresh recipe. Raises UserError for an unknown name or option, or a bad value."""
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)
        return call(f"recipe {self.recipe}", RECIPES[self.recipe], self.options)

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

    def build_liars(self) -> Liars | None:
        """The workers that lie, if any do."""
        if self.liars == 0:
            return None
        return Liars(self.liars, self.attack, self.attack_trigger)

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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
