"""A worker among peers of whom any f may be slow, silent, gone or lying: nobody waits for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tacit import checkpoint
from tacit.attached.attached import Attached
from tacit.attached.flat import FlatModel
from tacit.attached.keeping import Keeper, Stateful
from tacit.attached.steps import Steps
from tacit.errors import PeerLost
from tacit.fleet import AttendedFleet, LocalFleet, PeerFleet
from tacit.fleet.attended import Purpose
from tacit.recipes import Recipe
from tacit.topologies import Peers


class PeerKeeper(Keeper):
    """Each worker keeps its own state, in a folder in the common one, and asks nobody."""

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
        shared = checkpoint.open_folder(own)[0] if own is not None and self.latest else {}
        #: The steps of the checkpoint to go on from.
        self.steps = int(shared.get("steps", 0))

    @property
    def promise(self) -> dict[str, Any]:
        return {"saves": self.folder is not None, "own steps": self.steps}

    def save(self, steps: int, synchronisations: int) -> None:
        state = self.state_dict(steps, synchronisations)
        own = {self.worker: state["worker"][str(self.worker)]}
        checkpoint.write_folder(
            self.folder_to_save_in(), steps, LocalFleet(1), state["shared"], own
        )

    def load(self) -> tuple[int, int]:
        shared, workers = checkpoint.read_folder(self.folder_to_save_in(), [self.worker])
        own = workers[self.worker]
        if shared["workers"] == self.fleet.size:
            return self.load_state_dict({"shared": shared, "worker": {str(self.worker): own}})
        self.recipe.check_saved(shared)
        self.flat.load_state_dict(own["model"])
        self._load_own(own)
        return int(shared["steps"]), int(shared["synchronisations"])


class AttachedPeer(Attached):
    """A worker that goes on once it holds the messages of n - f, itself included, whoever else is
    slow, silent or gone.

    There is no common model, so nobody need meet: ``consensus()`` shows this worker's own, and
    ``save()`` writes its own state, without a word to anybody. ``finish()`` leaves the own model in
    place; the others hold it at every step that they still take. Attaching, and the first exchange,
    where connections are made, are for all together.

    After a restart each worker goes on from its own checkpoint, and one that has none from the
    first model, all at the same step: one that more than f of them have reached.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Steps,
        keeper: Keeper,
        introductions: Sequence[Mapping[str, Any]],
    ) -> None:
        super().__init__(model, steps, keeper, introductions)
        exchange = steps.averaging or steps.exchange
        assert exchange is not None
        assert isinstance(exchange.topology, Peers)
        assert isinstance(steps.fleet, PeerFleet)
        reached = sorted((int(peer["own steps"]) for peer in introductions), reverse=True)
        steps.count = reached[exchange.topology.f]
        self._peers = steps.fleet
        self._undo.append(lambda: self._peers.hang_up(0))

    def _serve(self, purpose: Purpose) -> tuple[Tensor, Tensor]:
        self._check_attached()
        with self._failing():
            if purpose == "save":
                self._keeper.save(self.steps, self.synchronisations)
            elif purpose == "finish":
                self._steps.leave()
                self._peers.hang_up()
        flat = self._steps.flat
        flat.read()
        flat.read_buffers()
        return flat.parameters[0].clone(), flat.buffers[0].clone()

    def _obituary(self, error: PeerLost) -> str:
        saved = ""
        if self._keeper.folder is not None:
            self._keeper.save(self.steps, self.synchronisations)
            saved = f"; what this worker has is saved in {self._keeper.folder}"
        return f"{error}{saved}; start the job again to go on"
