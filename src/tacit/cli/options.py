"""The options that ``run`` and ``compare`` share: one for each field of ``RunConfig``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = [
    click.option("--task", default="digits", show_default=True,
                 help="What to learn, like mnist or graphical:at=500; see `list`."),
    click.option("--model", help="The model, where the task has several."),
    click.option("--data", metavar="DIR", help="Folder of parquet files (or set TACIT_DATA)."),
    click.option("--workers", "-k", type=int, help="K, the number of workers.  [default: 4]"),
    click.option("--partition", default="iid", show_default=True, metavar="SPLIT",
                 help="iid, sorted:0.6, label:0, shards:2, dirichlet:0.5, dirichlet-classes:1."),
    click.option("--seed", default=0, show_default=True, help="Same seed, same run."),
    click.option("--steps", type=int, help="Local steps of each worker; goes before --epochs."),
    click.option("--epochs", type=float,
                 help="Passes over the data, all workers together.  [default: 10; a stream: 1]"),
    click.option("--target", type=float, metavar="ACC", help="Accuracy to reach, like 0.95."),
    click.option("--stop-at-target", is_flag=True, help="End a run that has reached the target."),
    click.option("--batch-size", type=int, help="Samples of a worker's step."),
    click.option("--order", type=click.Choice(["shuffle", "resample"]), default="shuffle",
                 show_default=True, help="Reshuffled passes, or each batch drawn afresh."),
    click.option("--optimizer", metavar="SPEC", help="Local optimizer, like adam:lr=0.001."),
    click.option("--noise", type=float, default=0.0, show_default=True,
                 help="Standard deviation around the common first model."),
    click.option("--liars", type=int, default=0, show_default=True,
                 help="How many of the workers lie, to see what that does."),
    click.option("--attack", metavar="SPEC",
                 help="What liars send of models and gradients, like alie:z=1.5; see `list`."),
    click.option("--attack-trigger", metavar="SPEC",
                 help="What liars say when a trigger asks for their state, like inflate."),
    click.option("--execution", type=click.Choice(["auto", "loop", "batched"]), default="auto",
                 show_default=True, help="One pass a worker, or one for all hosted workers."),
    click.option("--device", default="cpu", show_default=True, help="cpu or cuda."),
    click.option("--processes", type=int, default=1, show_default=True,
                 help="Spread the workers over processes of this machine."),
    click.option("--deterministic", is_flag=True,
                 help="Same bits however workers are spread over processes."),
    click.option("--evaluate-every", type=int, metavar="STEPS", help="Default: every epoch."),
    click.option("--checkpoint-every", type=int, metavar="STEPS", help="Write checkpoints."),
    click.option("--link", default="100mbit,20ms", show_default=True, metavar="RATE,LATENCY",
                 help="Link of the predicted times; latency is one way."),
]  # fmt: skip


def run_options(function: F) -> F:
    """Add the shared options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
