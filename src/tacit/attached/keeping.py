"""What an attached run keeps in a checkpoint, and how it goes on from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit import checkpoint
from tacit.attached.flat import FlatModel
from tacit.errors import UserError
from tacit.fleet import AttendedFleet
from tacit.optimizers import complete_state, stepped_twin
from tacit.recipes import Recipe


class Stateful(Protocol):
    """Anything with a state to save, such as a learning-rate scheduler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Keeper:
    """Gathers the state of an attached run, and gives it back.

    A run with the same workers goes on exactly. With others, all of them start from the *consensus
    model*, the mean of the saved models, as after a synchronisation; a worker that exists in the
    checkpoint keeps its optimizer, buffers and ``stateful`` things; a new one gets the optimizer's
    hyperparameters, the ``stateful`` things and the buffers of worker 0, and no moments; where
    gradients are exchanged all workers' moments are equal, and it gets them too. What has not been
    sent is shared out: every worker gets the mean of the memories.
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
        self.fleet, self.flat, self.optimizer = fleet, flat, optimizer
        self.recipe, self.averaging, self.gradients = recipe, recipe.averaging, recipe.gradients
        self.stateful = {**(stateful or {}), **({"scaler": scaler} if scaler is not None else {})}
        self.folder = Path(folder) if folder is not None else None
        #: The name of the checkpoint to go on from, if there is one.
        self.latest = checkpoint.latest(self.folder) if self.folder is not None else None
        self.worker = fleet.hosted.start

    @property
    def promise(self) -> dict[str, Any]:
        """What all workers must have in common, for the handshake."""
        return {"saves": self.folder is not None, "checkpoint": self.latest}

    def agree(self, introductions: Sequence[Mapping[str, Any]]) -> None:
        """After the handshake: what the workers have said of themselves."""
        del introductions  # here all must say the same

    # -- a folder

    def save(self, steps: int, synchronisations: int) -> None:
        """All processes together."""
        folder = self.folder_to_save_in()
        state = self.state_dict(steps, synchronisations)
        mine = {self.worker: state["worker"][str(self.worker)]} if self._writes else {}
        checkpoint.write_folder(folder, steps, self.fleet, state["shared"], mine)

    def save_remains(
        self, steps: int, synchronisations: int, attempt: str, survivors: list[int]
    ) -> Path | None:
        """After a failure: those who are left write what they have, without talking."""
        if self.folder is None or not self._writes:
            return None
        if self.averaging is not None:
            self.averaging.begin_again(self.averaging.reference, steps)  # what travelled is lost
        state = self.state_dict(steps, synchronisations)
        own = state["worker"][str(self.worker)]
        return checkpoint.write_remains(
            self.folder, steps, attempt, self.worker, own, state["shared"], survivors
        )

    def load(self) -> tuple[int, int]:
        """Go on from the folder's latest checkpoint; its steps and synchronisations."""
        shared, workers = checkpoint.open_folder(self.folder_to_save_in())
        if sorted(workers) == list(range(self.fleet.size)) and shared["workers"] == len(workers):
            own = checkpoint.load(workers[self.worker])
            return self.load_state_dict({"shared": shared, "worker": {str(self.worker): own}})
        self._take_over(shared, workers)
        return shared["steps"], shared["synchronisations"]

    @property
    def _writes(self) -> bool:
        """Of an island, one process does."""
        return self.fleet.place == 0

    def folder_to_save_in(self) -> Path:
        if self.folder is None:
            raise UserError("there is no folder to save in; say attach(..., checkpoint=FOLDER)")
        return self.folder

    # -- trees

    def state_dict(self, steps: int, synchronisations: int) -> dict[str, Any]:
        """``shared``, the same in every process, and ``worker``, with a key for this one: savers
        that merge the processes' trees must not take one worker's state for another's."""
        averaging, gradients = self.averaging, self.gradients
        own = {
            "model": self.flat.state_dict(),
            "optimizer": complete_state(self.optimizer),
            "averaging": averaging.worker_state(0) if averaging is not None else {},
            "gradients": gradients.worker_state(0) if gradients is not None else {},
            "stateful": {name: part.state_dict() for name, part in self.stateful.items()},
            "owes": self.fleet.owes,
        }
        shared = {
            "steps": steps,
            "synchronisations": synchronisations,
            "workers": self.fleet.size,
            "recipe": self.recipe.name,
            "averaging": averaging.state_dict() if averaging is not None else None,
            "gradients": gradients.state_dict() if gradients is not None else None,
            "ledger": self.fleet.ledger.state_dict(),
        }
        return {"shared": shared, "worker": {str(self.worker): own}}

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """Take back what :meth:`state_dict` gave, in a run with as many workers."""
        shared, own = state["shared"], state["worker"].get(str(self.worker))
        if own is None or shared["workers"] != self.fleet.size:
            raise UserError(
                f"this state is of {shared['workers']} workers, here are {self.fleet.size}; only a "
                "checkpoint folder can be taken over by another number of workers"
            )
        self.recipe.check_saved(shared)
        self.flat.load_state_dict(own["model"])
        self._load_own(own)
        self.fleet.owes = bool(own["owes"])
        self.fleet.ledger.load_state_dict(shared["ledger"])
        if self.averaging is not None:
            self.averaging.load_state_dict(shared["averaging"])
            self.averaging.load_worker_state(0, own["averaging"])
        if self.gradients is not None:
            self.gradients.load_state_dict(shared.get("gradients") or {})
            self.gradients.load_worker_state(0, own.get("gradients") or {})
        return int(shared["steps"]), int(shared["synchronisations"])

    def _load_own(self, own: Mapping[str, Any]) -> None:
        saved = own["optimizer"]
        state = {int(i): entry for i, entry in saved["state"].items()}
        self.optimizer.load_state_dict({**saved, "state": state})
        self._check_stateful(own)
        for name, part in self.stateful.items():
            part.load_state_dict(own["stateful"][name])

    def _check_stateful(self, own: Mapping[str, Any]) -> None:
        for name in self.stateful:
            if name not in own["stateful"]:
                raise UserError(f"the checkpoint has no {name!r}; it was saved without")

    def _take_over(self, shared: dict[str, Any], workers: dict[int, Path]) -> None:
        self.recipe.check_saved(shared)
        model = torch.zeros_like(self.flat.parameters[0])
        own: dict[str, Any] = {}
        parts = []
        for worker, path in sorted(workers.items()):
            state = checkpoint.load(path)
            parts.append({name: state.get(name) or {} for name in ("averaging", "gradients")})
            model += state["model"]["parameters"].to(model.device) / len(workers)
            if worker == self.worker or not own:
                own = state
        if self.worker not in workers and self.gradients is None:
            own["optimizer"]["state"] = {}
        self._load_own(own)
        self.flat.load_state_dict({**own["model"], "parameters": model})
        if self.averaging is not None:
            states = [part["averaging"] for part in parts]
            self.averaging.take_over(shared["averaging"], states)
            self.averaging.begin_again(model.clone(), int(shared["steps"]))
        if self.gradients is not None:
            states = [part["gradients"] for part in parts]
            self.gradients.take_over(shared.get("gradients") or {}, states)

    # -- the optimizer, as an exchange sees it

    def rows(self) -> list[Tensor]:
        return [
            torch.cat([t.flatten() for t in tensors])[None] for tensors in self._moments().values()
        ]

    def set_rows(self, rows: list[Tensor]) -> None:
        for tensors, row in zip(self._moments().values(), rows, strict=True):
            pieces = torch.split(row[0], [t.numel() for t in tensors])
            for tensor, piece in zip(tensors, pieces, strict=True):
                tensor.copy_(piece.view_as(tensor))

    def _moments(self) -> dict[str, list[Tensor]]:
        """The optimizer's tensors that are as large as the model, by name; zeros, of which nothing
        is kept, where a parameter has none yet."""
        trained, state = self.flat.trained, self.optimizer.state
        names = self._moment_names
        return {n: [state[p].get(n, torch.zeros_like(p)) for p in trained] for n in names}

    @cached_property
    def _moment_names(self) -> list[str]:
        """In the order they travel. Once: an optimizer without moments is not copied every time."""
        state = (self.optimizer if self.optimizer.state else stepped_twin(self.optimizer)).state
        entries = ((p, name, value) for p, s in state.items() for name, value in s.items())
        large = {n for p, n, v in entries if torch.is_tensor(v) and v.shape == p.shape}
        return sorted(large - {"step"})  # as large as a parameter that is a scalar
