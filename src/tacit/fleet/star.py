"""A conversation with a coordinator, who decides as it goes whose rows it needs.

The coordinator lives beside worker 0, in its process, and is no worker: what worker 0 sends it is
charged as well. A conversation::

    every worker  -> coordinator    report: does it call? its weight              16 bytes
    callers       -> coordinator    their rows
    coordinator   -> some workers   request                                       16 bytes
    these         -> coordinator    their rows                                    (again and again)
    coordinator   -> every worker   close: who called, who was a member, all?     16 + 2 ceil(K/8)
    coordinator   -> members        the combination (to everybody if ``whole``)

An event-driven system has no use for the reports of those who do not call, and for the closing
words: these are *monitoring*; the callers' reports and the requests are *control*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit.errors import PeerError
from tacit.fleet.ledger import Kind, Ledger

Mask = npt.NDArray[np.bool_]

#: Bytes of a report, of a request, and of the fixed part of a closing word.
CONTROL = 16


@dataclass(frozen=True)
class Settled:
    """How a conversation ended, in every process.

    ``callers``, ``members``: ``(K,)`` bool. ``whole``: the result is everybody's, members or not.
    ``waves``: how many times the coordinator asked for rows. ``combination``: ``(n,)``, None in a
    process that hosts nobody who gets it.
    """

    callers: Mask
    members: Mask
    whole: bool
    waves: int
    combination: Tensor | None

    def receivers(self) -> Mask:
        """Who gets the combination, ``(K,)`` bool."""
        return np.ones_like(self.members) if self.whole else self.members


class Star(ABC):
    """The coordinator's side of one conversation.

    ``callers`` and ``present``: ``(K,)`` bool, who called and who can be asked. ``weights``:
    ``(K,)`` float64, as reported. ``waves``: how many times it has asked for rows.
    """

    def __init__(self, reports: Tensor, width: int) -> None:
        said = reports[:, 0].numpy()
        self.callers: Mask = said > 0
        self.present: Mask = said != 0
        self.weights = reports[:, 1]
        self.waves = 0
        self._here = self.callers.copy()
        for worker in np.flatnonzero(self.present & (np.abs(said) != width)):
            raise PeerError(
                f"worker {worker} has a row of {abs(said[worker]):.0f} numbers and the others of "
                f"{width}; start all workers with the same model"
            )

    def rows(self, workers: Sequence[int]) -> Tensor:
        """The rows of these workers, ``(n, width)`` in this order. Callers have sent theirs by
        themselves; the others are asked."""
        self.waves += not self._here[workers].all()
        self._here[workers] = True
        return self._rows(workers)

    @abstractmethod
    def _rows(self, workers: Sequence[int]) -> Tensor: ...


#: What the coordinator does: members, their combination ``(n,)``, whether it is for everybody.
Lead = Callable[[Star], tuple[Iterable[int], Tensor, bool]]


class LocalStar(Star):
    """All workers are here."""

    def __init__(self, reports: Tensor, rows: Tensor) -> None:
        super().__init__(reports, rows.shape[1])
        self._all = rows

    def _rows(self, workers: Sequence[int]) -> Tensor:
        return self._all[torch.as_tensor(workers, device=self._all.device)]


def settle(star: Star, lead: Lead) -> Settled:
    """Let ``lead`` decide."""
    members, combination, whole = lead(star)
    mask = np.zeros_like(star.callers)
    mask[list(members)] = True
    return Settled(star.callers, mask, whole, star.waves, combination)


def reports(rows: Tensor, calls: Tensor, weights: Tensor, present: bool = True) -> Tensor:
    """What the hosted workers report, ``(L, 2)`` float64: the width of the row, negative unless
    the worker calls and 0 if it cannot be asked; and its weight."""
    width = rows.shape[1] * present
    said = torch.where(calls.cpu(), width, -width).to(torch.float64)
    return torch.stack([said, weights.to("cpu", torch.float64)], dim=1)


def charge(ledger: Ledger, settled: Settled, row_bytes: int) -> None:
    """Enter a conversation into the ledger. The waves are taken to be as even as can be. Each entry
    has a latency of its own on the virtual clock, though reports and callers' rows leave together:
    the time is an upper bound."""
    everyone = np.ones_like(settled.members)
    _enter(ledger.upload, "control", CONTROL, settled.callers)
    _enter(ledger.upload, "monitoring", CONTROL, ~settled.callers)
    _enter(ledger.upload, "model", row_bytes, settled.members & settled.callers)
    asked = np.flatnonzero(settled.members & ~settled.callers)
    for wave in np.array_split(asked, max(1, settled.waves)):
        mask = np.zeros_like(settled.members)
        mask[wave] = True
        _enter(ledger.download, "control", CONTROL, mask)
        _enter(ledger.upload, "model", row_bytes, mask)
    _enter(ledger.download, "monitoring", CONTROL + 2 * -(-len(everyone) // 8), everyone)
    _enter(ledger.download, "model", row_bytes, settled.receivers())


def _enter(how: Callable[[Kind, int, Mask], None], kind: Kind, payload: int, who: Mask) -> None:
    if who.any():
        how(kind, payload, who)
