"""The checkpoints of a worker among peers: its own state, whoever else is there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from tacit import checkpoint
from tacit.attached.flat import FlatModel
from tacit.attached.keeping import Keeper, Stateful
from tacit.errors import PeerError, UserError
from tacit.fleet import AttendedFleet, LocalFleet
from tacit.recipes import Recipe
from tacit.topologies import Peers


class PeerKeeper(Keeper):
    """Each worker keeps its own state, in a folder in the common one, and asks nobody.

    What it goes on from is read before the handshake, so that trouble with it is everybody's.
    """

    def __init__(
        self,
        fleet: AttendedFleet,
        flat: FlatModel,
        optimizer: Optimizer,
        recipe: Recipe,
        scaler: Any,
        stateful: Mapping[str, Stateful] | None,
        folder: str | Path | None,
    ) -> None:
        own = None if folder is None else Path(folder) / f"peer-{fleet.hosted.start:05d}"
        super().__init__(fleet, flat, optimizer, recipe, scaler, stateful, own)
        #: The step at which all go on.
        self.steps = 0
        self._found: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._trouble = ""
        if own is not None and self.latest is not None:
            try:
                self._found = self._read(own)
                self.steps = int(self._found[0]["steps"])
            except UserError as error:
                self._trouble = str(error)

    def _read(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        shared, workers = checkpoint.read_folder(folder, [self.worker])
        own = workers[self.worker]
        self.recipe.check_saved(shared)
        if len(own["model"]["parameters"]) != self.flat.d:
            raise UserError(f"the checkpoint in {folder} is of another model")
        self._check_stateful(own)
        return shared, own

    @property
    def promise(self) -> dict[str, Any]:
        saves = self.folder is not None
        return {"saves": saves, "own steps": self.steps, "own trouble": self._trouble}

    def agree(self, introductions: Sequence[Mapping[str, Any]]) -> None:
        """Raises PeerError, in every process, where one cannot read its checkpoint. All go on at a
        step that more than f have reached, so that at least one honest worker has."""
        for worker, peer in enumerate(introductions):
            if peer["own trouble"]:
                raise PeerError(f"worker {worker} cannot go on: {peer['own trouble']}")
        exchange = self.averaging or self.gradients
        assert exchange is not None
        assert isinstance(exchange.topology, Peers)
        reached = [int(peer["own steps"]) for peer in introductions]
        self.steps = sorted(reached, reverse=True)[min(exchange.topology.f, len(reached) - 1)]
        if len(set(reached)) > 1:
            warnings.warn(
                f"all workers go on at step {self.steps}, from checkpoints of different steps: "
                f"{', '.join(map(str, reached))} (0: from the first model)",
                stacklevel=3,
            )

    def save(self, steps: int, synchronisations: int) -> None:
        state = self.state_dict(steps, synchronisations)
        own = {self.worker: state["worker"][str(self.worker)]}
        checkpoint.write_folder(
            self.folder_to_save_in(), steps, LocalFleet(1), state["shared"], own
        )

    def load(self) -> tuple[int, int]:
        assert self._found is not None
        (shared, own), self._found = self._found, None
        if shared["workers"] == self.fleet.size:
            return self.load_state_dict({"shared": shared, "worker": {str(self.worker): own}})
        self.flat.load_state_dict(own["model"])
        self._load_own(own)
        return int(shared["steps"]), int(shared["synchronisations"])
