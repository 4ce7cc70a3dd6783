"""What receivers keep of each sender's messages, where they combine more than the last ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tacit.compressors import Arrived
from tacit.errors import UserError, check_number
from tacit.fleet import Fleet
from tacit.memory.base import Memory, pieces
from tacit.memory.ef21 import EF21
from tacit.setting import Setting


class Heard:
    """Turns what has come from the workers into the rows ``(n, d)`` that an aggregator combines.
    This one keeps nothing: they are what has come.

    It lives where the combination is made: in every process, or beside the coordinator alone.
    """

    #: Whether rows hold what came before; then no message can be added up without them.
    remembers = False
    #: Whether :meth:`told` holds all that was not told before, so that nothing is to be added.
    afresh = False

    def check(self, memory: Memory) -> None:
        """Raise UserError for a memory whose messages this cannot read."""

    def start(self, fleet: Fleet, memory: Memory, setting: Setting, here: bool) -> None:
        """Begin a run. ``here``: whether this process combines."""
        del fleet, setting, here
        self.memory = memory

    def rows(self, arrived: Mapping[int, Arrived | None]) -> tuple[list[int], Tensor]:
        """Whose rows are to be combined, and these, ``(n, d)``, not to be written to. ``arrived``:
        of workers that take part; None: what cannot be read, which is a row of NaN, and changes
        nothing that is kept of its sender."""
        model = self.memory.models.parameters[0]
        dense = [_unreadable(model) if a is None else a.dense() for a in arrived.values()]
        return list(arrived), torch.stack([row.to(model.device) for row in dense])

    def told(self, combined: Tensor) -> Tensor:
        """What all are told of a combination ``(d,)``."""
        return combined

    def lies(self, arrived: Mapping[int, Arrived], say: Callable[[Tensor], Tensor]) -> Tensor:
        """Where rows hold what came before: what is to arrive of hosted liars, ``(L, d)``, in whose
        rows it is, for what they want to be combined. ``arrived``: what arrives of the hosted
        honest, by row. ``say``: see ``Fleet.said``, of rows as they are combined. All processes
        come here."""
        raise NotImplementedError

    def begin_again(self) -> None:
        """Forget what was heard."""

    def take_over(self) -> None:
        """Go on from another number of workers; the memory has done so."""
        self.begin_again()

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Of where the combination is made."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError for the state of something else."""
        if state:
            raise KeyError("rows")


class _Kept(Heard, ABC):
    """A row for each worker, ``(K, d)``."""

    remembers = True

    def start(self, fleet: Fleet, memory: Memory, setting: Setting, here: bool) -> None:
        super().start(fleet, memory, setting, here)
        self._fleet, model = fleet, memory.models.parameters[0]
        self._rows = model.new_zeros(fleet.size if here else 0, len(model))
        #: Who has been heard, ``(K,)``.
        self._begun = torch.zeros(len(self._rows), dtype=torch.bool)

    def rows(self, arrived: Mapping[int, Arrived | None]) -> tuple[list[int], Tensor]:
        bad = []
        for worker, message in arrived.items():
            if message is None:
                bad.append(worker)
            else:
                self._take(self._rows[worker], message)
                self._begun[worker] = True
        who = self._combined(arrived)
        return who, self._of(who, bad)

    def lies(self, arrived: Mapping[int, Arrived], say: Callable[[Tensor], Tensor]) -> Tensor:
        # the coordinator may be the only one who has them; what liars know is not charged
        fleet, kept = self._fleet, self._rows
        if not fleet.leader:
            kept = kept.new_zeros(fleet.size, self.memory.models.parameters.shape[1])
        kept = fleet.total(kept)[fleet.hosted.start : fleet.hosted.stop]
        after = kept.clone()
        for row, message in arrived.items():
            self._take(after[row], message)
        # the liars' own messages are compressed too, so they come nearer to what they want, no more
        return self._towards(say(after), kept)

    def begin_again(self) -> None:
        self._rows.zero_()
        self._begun.zero_()

    @abstractmethod
    def _take(self, row: Tensor, message: Arrived) -> None:
        """Change a worker's row, ``(d,)``, by its message."""

    @abstractmethod
    def _towards(self, wanted: Tensor, kept: Tensor) -> Tensor:
        """The messages that bring rows from ``kept`` to ``wanted``, all ``(L, d)``."""

    def _combined(self, arrived: Mapping[int, Arrived | None]) -> list[int]:
        """Whose rows are combined."""
        return list(arrived)

    def _of(self, who: list[int], bad: list[int]) -> Tensor:
        """The rows of these workers; NaN of bad ones."""
        if not bad and len(who) == len(self._rows):
            return self._rows
        rows = self._rows[who]
        rows[[who.index(worker) for worker in bad]] = torch.nan
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows, "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["rows"].shape != self._rows.shape:  # which would be broadcast
            raise KeyError("rows")
        self._rows.copy_(state["rows"])
        self._begun.copy_(state["begun"])


class Increments(_Kept):
    """Byz-EF21 (Rammal et al., AISTATS 2024, arXiv 2310.09804): workers send ``C(grad_i - g_i)``,
    as in EF21, receivers keep the ``g_i`` of every worker, and step with ``Agg(g_1, ..., g_K)``.

    Those who do not take part are combined with the ``g_i`` they have; who has never been heard is
    left out. Told is by how much the combination differs from the memory's.
    """

    afresh = True

    def check(self, memory: Memory) -> None:
        if type(memory) is not EF21:
            raise UserError(
                f"increments are what EF21 sends, not {type(memory).__name__}; give memory=EF21()"
            )

    def _take(self, row: Tensor, message: Arrived) -> None:
        message.add_to(row)

    def _towards(self, wanted: Tensor, kept: Tensor) -> Tensor:
        return wanted - kept

    def _combined(self, arrived: Mapping[int, Arrived | None]) -> list[int]:
        return sorted({*self._begun.nonzero().flatten().tolist(), *arrived})

    def told(self, combined: Tensor) -> Tensor:
        assert isinstance(self.memory, EF21)
        change = torch.empty_like(combined)
        vectors = (combined, self.memory.total, change)
        for now, before, part in zip(*map(pieces, vectors), strict=True):
            part.copy_(now - before)  # the memory adds it up in double precision
        return change

    def take_over(self) -> None:
        """All are believed to be where the memory is, which no liar chose alone."""
        assert isinstance(self.memory, EF21)
        self._rows[:] = self.memory.total
        self._begun[:] = True


class Averages(_Kept):
    """RoSDHB (AISTATS 2026, arXiv 2508.17129): receivers keep Polyak's momentum of what each worker
    sends, ``m_i = beta m_i + (1 - beta) message_i`` from m_i = 0, and combine these.

    Those who do not take part keep their m_i, and are not combined. Another number of workers
    begins at 0: a mean of the m_i would hold what liars put there.
    """

    def __init__(self, beta: float = 0.9) -> None:
        self.beta = check_number("the momentum", beta, "[0, 1)")

    def check(self, memory: Memory) -> None:
        if memory.counts_absent:
            raise UserError(
                f"{type(memory).__name__} sends changes, of which an average says nothing; "
                "give another memory"
            )

    def _take(self, row: Tensor, message: Arrived) -> None:
        message.add_to(row.mul_(self.beta), 1 - self.beta)

    def _towards(self, wanted: Tensor, kept: Tensor) -> Tensor:
        return (wanted - self.beta * kept) / (1 - self.beta)


def _unreadable(model: Tensor) -> Tensor:
    return torch.full_like(model, torch.nan)
