"""The way back: what a coordinator answers to the workers' messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tacit.compressors import Arrived, Compressor
from tacit.errors import PeerError, TrainingDiverged, UserError
from tacit.fleet import Fleet, Kind
from tacit.setting import Setting

#: In place of a message, whose first byte is another one.
REFUSAL = b"!"


def longest(n: int) -> int:
    """No message about ``n`` numbers is longer, in bytes; a peer that says so is not believed."""
    return 16 * n + 4096


class Download:
    """Compressed combinations, from the coordinator beside worker 0 to everybody.

    What of a combination is not sent is added to the next one, as EF21-BC does, and for models
    EF21-P (Gruntkowska et al. 2023): for increments these are one rule, that of EF14.
    """

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor

    def start(self, fleet: Fleet, setting: Setting) -> None:
        """Begin a run."""
        self.fleet, self._d = fleet, setting.d
        self.compressor.start(setting)
        self._unsent = torch.zeros(self._d if fleet.leader else 0)

    def spread(
        self,
        kind: Kind,
        combine: Callable[[], Tensor] | None,
        compressor: Compressor | None = None,
        afresh: bool = False,
    ) -> Arrived:
        """What arrives of a combination, in every process. ``combine`` makes it, ``(d,)``, where
        the coordinator is. If it raises UserError or PeerError, all processes get an error.
        ``compressor``: of this one answer. ``afresh``: the combination holds what was not sent, and
        is not used any more."""
        compressor = compressor or self.compressor
        name = ("coordinator", kind, "step", self.fleet.ledger.step)
        answer: bytes | None = None
        refusal: Exception | None = None
        if combine is not None:
            try:
                combined = combine().cpu()
                self._unsent = combined if afresh else self._unsent.add_(combined)
                answer = compressor.encode(self._unsent, *name)
            except (UserError, PeerError) as error:  # the others are waiting for an answer
                kind_of_error = b"d" if isinstance(error, TrainingDiverged) else b"p"
                answer, refusal = REFUSAL + kind_of_error + str(error).encode(), error
        answer = self.fleet.spread_bytes(answer, kind, longest(self._d))
        if answer.startswith(REFUSAL):
            raise refusal or _refusal(answer[len(REFUSAL) :])
        arrived = compressor.arrive(answer, self._d, "the coordinator", *name)
        if combine is not None:
            arrived.add_to(self._unsent, -1.0)
        return arrived

    def state_dict(self) -> dict[str, Any]:
        """What the coordinator alone has."""
        # pairs: a saver that asks a new run for the names there are would leave these out
        pairs = list(map(list, self.compressor.state_dict().items()))
        return {"unsent": self._unsent.clone(), "compressor": pairs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._unsent.copy_(state["unsent"])
        self.compressor.load_state_dict(dict(state["compressor"]))

    def take_over(self, state: dict[str, Any]) -> None:
        """Go on from the coordinator of another number of workers."""
        if self.fleet.leader:
            self._unsent.copy_(state["unsent"])


def _refusal(said: bytes) -> Exception:
    """The coordinator's error, in another process."""
    text = said[1:].decode(errors="replace")
    return TrainingDiverged(text) if said[:1] == b"d" else PeerError(text)
