"""A worker among peers of whom any f may be slow, silent, gone or lying: nobody waits for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tacit.attached.attached import Attached
from tacit.attached.keeping import Keeper
from tacit.attached.keeping_own import PeerKeeper
from tacit.attached.steps import Steps
from tacit.errors import PeerLost, UserError
from tacit.fleet import PeerFleet
from tacit.fleet.attended import Purpose


class AttachedPeer(Attached):
    """A worker that goes on once it holds the messages of n - f, itself included, whoever else is
    slow, silent or gone.

    There is no common model, so nobody need meet: ``consensus()`` shows this worker's own, and
    ``save()`` writes its own state, without a word to anybody. ``finish()`` leaves the own model in
    place; the others hold it at every step that they still take. Attaching is for all together.

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
        assert isinstance(steps.fleet, PeerFleet)
        assert isinstance(keeper, PeerKeeper)
        steps.count = steps.finished = keeper.steps
        self._peers = steps.fleet
        self._undo.append(lambda: self._peers.hang_up(0))
        try:
            for exchange in steps.exchanges:
                exchange.introduce()
        except BaseException:
            self.detach()
            raise

    def _serve(self, purpose: Purpose) -> tuple[Tensor, Tensor]:
        self._check_attached()
        with self._failing():
            if purpose == "save":
                self._keeper.save(self.steps, self.synchronisations)
            elif purpose == "finish":
                self._steps.last_word()
                self._peers.hang_up()
        flat = self._steps.flat
        flat.read()
        flat.read_buffers()
        return flat.parameters[0].clone(), flat.buffers[0].clone()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refused: the others would not go back with this worker."""
        raise UserError(
            "among peers a worker cannot go back by itself; start the job again, with "
            "attach(..., checkpoint=FOLDER)"
        )

    def _obituary(self, error: PeerLost) -> str:
        """A step whose exchange failed does not count: it is taken again, from a model that has
        learned from it already."""
        finished, worker = self._steps.finished, self._keeper.worker
        left = self._keeper.save_remains(finished, self.synchronisations, self._token, [worker])
        saved = f"; what this worker has is saved in {left}" if left is not None else ""
        return f"{error}, after {finished} steps{saved}; start the job again to go on"
