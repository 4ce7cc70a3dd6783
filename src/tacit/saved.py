"""What a checkpoint holds of a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tacit.attacks import Liars
from tacit.fleet import Fleet
from tacit.journal import Journal
from tacit.optimizers import LocalOptimizer
from tacit.recipes import Recipe
from tacit.replicas import Replicas
from tacit.training import LocalTraining


class SavedSimulation:
    """The state of a run: what all workers share, and what belongs to each."""

    recipe: Recipe
    fleet: Fleet
    replicas: Replicas
    optimizer: LocalOptimizer
    training: LocalTraining
    journal: Journal
    liars: Liars | None
    steps: int
    synchronisations: int
    _seconds: float
    _compute_seconds: float

    def shared_state(self) -> dict[str, Any]:
        """What all workers share, for a checkpoint."""
        averaging, gradients = self.recipe.averaging, self.recipe.gradients
        return {
            "recipe": self.recipe.name,
            "steps": self.steps,
            "synchronisations": self.synchronisations,
            "seconds": self._seconds,
            "compute_seconds": self._compute_seconds,
            "journal": self.journal.state_dict(),
            "ledger": self.fleet.ledger.state_dict(),
            "averaging": averaging.state_dict() if averaging is not None else None,
            "gradients": gradients.state_dict() if gradients is not None else None,
            "liars": self.liars.state_dict() if self.liars is not None else None,
        }

    def worker_state(self, worker: int) -> dict[str, Any]:
        """What belongs to one hosted worker, for a checkpoint."""
        row = worker - self.fleet.hosted.start
        averaging, gradients = self.recipe.averaging, self.recipe.gradients
        return {
            "replica": self.replicas.worker_state(row),
            "optimizer": self.optimizer.worker_state(row),
            "draws": self.training.draws[row],
            "averaging": averaging.worker_state(row) if averaging is not None else None,
            "gradients": gradients.worker_state(row) if gradients is not None else None,
        }

    def load_state(self, shared: Mapping[str, Any], workers: Mapping[int, Any]) -> None:
        """Go on from a checkpoint; ``workers`` holds at least the hosted workers' states. Raises
        UserError for one of another recipe."""
        self.recipe.check_saved(shared)
        self.steps = shared["steps"]
        self.synchronisations = shared["synchronisations"]
        self._seconds = shared["seconds"]
        self._compute_seconds = shared["compute_seconds"]
        self.journal.load_state_dict(shared["journal"])
        self.fleet.ledger.load_state_dict(shared["ledger"])
        if self.recipe.averaging is not None:
            self.recipe.averaging.load_state_dict(shared["averaging"])
        if self.recipe.gradients is not None:
            self.recipe.gradients.load_state_dict(shared.get("gradients") or {})
        if self.liars is not None:
            self.liars.load_state_dict(shared.get("liars") or {})
        for row, worker in enumerate(self.fleet.hosted):
            state = workers[worker]
            self.replicas.load_worker_state(row, state["replica"])
            self.optimizer.load_worker_state(row, state["optimizer"])
            self.training.draws[row] = state["draws"]
            if self.recipe.averaging is not None:
                self.recipe.averaging.load_worker_state(row, state["averaging"])
            if self.recipe.gradients is not None:
                self.recipe.gradients.load_worker_state(row, state.get("gradients") or {})
