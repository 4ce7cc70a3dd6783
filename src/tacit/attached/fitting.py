"""What attach refuses."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from tacit.attached.attached import ATTACHED
from tacit.errors import UserError
from tacit.recipes import Recipe
from tacit.topologies import Peers


def check(
    optimizer: Optimizer,
    recipe: Recipe,
    islands: bool,
    initial: str,
    samples: int,
    deterministic: bool,
) -> None:
    """Raise UserError for what does not go together."""
    if optimizer in ATTACHED:
        raise UserError("this optimizer is attached already; call finish() or detach() first")
    if getattr(recipe.averaging or recipe.gradients, "fleet", None) is not None:
        raise UserError(f"this {recipe.name} recipe belongs to another run; make a new one")
    if recipe.averaging is not None and recipe.averaging.topology.partial:
        raise UserError(
            "a recipe that samples workers leaves the others idle, which an attached loop cannot; "
            "use fraction=1"
        )
    if among_peers(recipe):
        _check_peers(recipe, islands, deterministic)
    if islands and deterministic:
        raise UserError("deterministic sums gather whole models, which islands send in parts")
    if islands and recipe.averaging is None:
        raise UserError(
            f"{recipe.name} exchanges gradients; with islands use a recipe that averages models"
        )
    if recipe.gradients is not None and not recipe.gradients.charged:
        raise UserError(
            f"{recipe.name} stands for one learner that has everybody's data, to compare with in "
            "a simulation; use synchronous"
        )
    own_exchange = recipe.gradients is not None or islands
    if own_exchange and isinstance(optimizer, torch.optim.LBFGS):
        raise UserError("LBFGS evaluates gradients by itself; use a recipe that averages models")
    if recipe.gradients is not None:
        recipe.gradients.check(optimizer)
    if samples < 1:
        raise UserError(f"a worker has at least 1 sample, not {samples}")
    if initial not in ("broadcast", "check"):
        raise UserError(f"initial is broadcast or check, not {initial!r}")


def among_peers(recipe: Recipe) -> bool:
    """Whether each worker goes on without waiting for all. Raises UserError where that holds for
    models or gradients alone."""
    parts = [part for part in (recipe.averaging, recipe.gradients) if part is not None]
    alone = [isinstance(part.topology, Peers) for part in parts]
    if any(alone) and not all(alone):
        raise UserError(
            f"{recipe.name} exchanges models among peers and gradients with all, or the reverse; "
            "in an attached loop take one topology for both"
        )
    return any(alone)


def _check_peers(recipe: Recipe, islands: bool, deterministic: bool) -> None:
    for part in (recipe.averaging, recipe.gradients):
        if part is None or not isinstance(part.topology, Peers):
            continue
        if part.topology.reception != "first":
            raise UserError(
                f"reception={part.topology.reception} is for simulations; in an attached loop a "
                "worker goes on with the first messages that arrive, reception=first"
            )
    if islands:
        raise UserError(f"{recipe.name} has no islands: its workers are single processes")
    if deterministic:
        raise UserError(
            f"{recipe.name} combines what arrives first, which is never twice the same; leave out "
            "deterministic"
        )
