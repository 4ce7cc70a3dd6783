"""The ledger: every message of a run, as an event.

An operation among ``n`` participants is one event. What it costs each of them is counted from the
buffers that were handed to the fleet, never from a formula about the method. The same run gives
the same ledger however its workers are laid out over processes: a worker hosted in the same
process still pays for what it would have sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["model", "gradient", "monitoring", "control", "evaluation"]
Operation = Literal["reduce", "gather", "broadcast", "upload", "download", "collect"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

#: ``evaluation`` is the experimenter looking at the run: recorded, but no cost of the method.
CHARGED: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "evaluation")

#: A reduction of at most this many bytes is sent straight to every peer; a larger one on a ring.
SMALL_MESSAGE = 8192

_COLUMNS = ("step", "kind", "operation", "payload", "participants", "overlap")


class Event(NamedTuple):
    """One operation.

    ``payload``: for a reduce, the bytes each participant contributes (and gets back); for a
    gather, the bytes all participants contribute together (and each gets back); for a broadcast,
    the bytes one participant gives to the others; for an upload or a download, the bytes between
    the coordinator and each participant; for a collection, the bytes that all give the coordinator
    together.
    ``overlap``: the operation ran beside the computation of so many steps; 0: everybody waited.
    """

    step: int
    kind: Kind
    operation: Operation
    payload: int
    participants: int
    overlap: int


class Ledger:
    """Bytes by kind and by worker, and the events behind them.

    Sent and received bytes follow the star convention: in a reduce, a worker sends its
    contribution once and receives the result once. :meth:`ring_bytes` gives the other usual one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.step = 0
        self._columns = {name: array("q") for name in _COLUMNS}
        self._sent = {kind: np.zeros(workers, np.int64) for kind in KINDS}
        self._received = {kind: np.zeros(workers, np.int64) for kind in KINDS}

    # -- recording

    def reduce(
        self,
        kind: Kind,
        payload: int,
        participants: npt.NDArray[np.bool_] | None = None,
        overlap: int = 0,
    ) -> None:
        """Each participant contributes ``payload`` bytes and gets the combined ``payload`` back."""
        who = slice(None) if participants is None else participants
        self._sent[kind][who] += payload
        self._received[kind][who] += payload
        count = self.workers if participants is None else int(participants.sum())
        self._append(kind, "reduce", payload, count, overlap)

    def gather(self, kind: Kind, sizes: Sequence[int]) -> None:
        """Worker ``k`` sends ``sizes[k]`` bytes; everybody receives what the others sent."""
        lengths = np.asarray(sizes, np.int64)
        total = int(lengths.sum())
        self._sent[kind] += lengths
        self._received[kind] += total - lengths
        self._append(kind, "gather", total, self.workers)

    def broadcast(self, kind: Kind, payload: int, source: int) -> None:
        """Worker ``source`` gives ``payload`` bytes to everybody else."""
        self._sent[kind][source] += payload * (self.workers > 1)
        self._received[kind] += payload
        self._received[kind][source] -= payload
        self._append(kind, "broadcast", payload, self.workers)

    def upload(self, kind: Kind, payload: int, participants: npt.NDArray[np.bool_]) -> None:
        """Each participant sends ``payload`` bytes to the coordinator."""
        self._sent[kind][participants] += payload
        self._append(kind, "upload", payload, int(participants.sum()))

    def download(self, kind: Kind, payload: int, participants: npt.NDArray[np.bool_]) -> None:
        """Each participant gets ``payload`` bytes from the coordinator."""
        self._received[kind][participants] += payload
        self._append(kind, "download", payload, int(participants.sum()))

    def collect(self, kind: Kind, sizes: Sequence[int]) -> None:
        """Worker ``k`` sends ``sizes[k]`` bytes to the coordinator."""
        lengths = np.asarray(sizes, np.int64)
        self._sent[kind] += lengths
        self._append(kind, "collect", int(lengths.sum()), int((lengths > 0).sum()))

    def _append(
        self, kind: Kind, operation: Operation, payload: int, participants: int, overlap: int = 0
    ) -> None:
        row = (
            self.step,
            KINDS.index(kind),
            OPERATIONS.index(operation),
            payload,
            participants,
            overlap,
        )
        for name, value in zip(_COLUMNS, row, strict=True):
            self._columns[name].append(value)

    # -- views

    def __len__(self) -> int:
        return len(self._columns["step"])

    def __getitem__(self, index: int) -> Event:
        step, kind, operation, payload, participants, overlap = (
            self._columns[name][index] for name in _COLUMNS
        )
        return Event(step, KINDS[kind], OPERATIONS[operation], payload, participants, overlap)

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """One field of all events, in order; kinds and operations as their index."""
        return np.array(self._columns[name], np.int64)

    def sent(self, kind: Kind | None = None) -> npt.NDArray[np.int64]:
        """Bytes each worker has sent, shape ``(K,)``; of one kind, or of all charged kinds."""
        return self._view(self._sent, kind)

    def received(self, kind: Kind | None = None) -> npt.NDArray[np.int64]:
        """Bytes each worker has received, shape ``(K,)``; of one kind, or of all charged kinds."""
        return self._view(self._received, kind)

    def _view(
        self, table: Mapping[Kind, npt.NDArray[np.int64]], kind: Kind | None
    ) -> npt.NDArray[np.int64]:
        if kind is not None:
            return table[kind].copy()
        total: npt.NDArray[np.int64] = np.sum([table[k] for k in CHARGED], axis=0, dtype=np.int64)
        return total

    def bytes(self, kind: Kind | None = None) -> int:
        """Bytes sent and received by all workers together: what a metered star would bill."""
        return int(self.sent(kind).sum() + self.received(kind).sum())

    def by_kind(self) -> dict[str, int]:
        """:meth:`bytes` for every charged kind."""
        return {kind: self.bytes(kind) for kind in CHARGED}

    def by_round(self) -> npt.NDArray[np.int64]:
        """Charged bytes of each round, star convention; a round ends with a model exchange."""
        charged = self.column("kind") != KINDS.index("evaluation")
        kinds, operations, steps, payload, participants = (
            self.column(name)[charged]
            for name in ("kind", "operation", "step", "payload", "participants")
        )
        copies = np.where(operations == OPERATIONS.index("reduce"), 2 * participants, participants)
        broadcast = operations == OPERATIONS.index("broadcast")
        copies = np.where(broadcast, 2 * (participants - 1), copies)
        copies = np.where(operations == OPERATIONS.index("collect"), 1, copies)
        ends = np.unique(steps[kinds == KINDS.index("model")])
        rounds = np.searchsorted(ends, steps, side="left")
        return np.bincount(rounds, weights=copies * payload).astype(np.int64)

    def count(self, kind: Kind) -> int:
        """Number of operations of this kind."""
        return int((self.column("kind") == KINDS.index(kind)).sum())

    def ring_bytes(self, kind: Kind | None = None) -> int:
        """Bytes put on the wire altogether, where the collectives have no coordinator.

        A reduction of at most ``SMALL_MESSAGE`` bytes goes straight to every peer. A larger one of
        ``b`` bytes runs on a ring: each of ``n`` workers sends ``2 (n-1)/n b``. In a gather
        every message goes straight to each of the others; so does a broadcast. What a worker
        exchanges with a coordinator crosses the wire once.
        """
        kinds, payload = self.column("kind"), self.column("payload")
        n = self.column("participants")
        chosen = np.isin(kinds, [KINDS.index(k) for k in (CHARGED if kind is None else (kind,))])
        reduce = self.column("operation") == OPERATIONS.index("reduce")
        total = np.where(reduce, 2 * (n - 1) * payload, (n - 1) * payload)
        small = reduce & (payload <= SMALL_MESSAGE)
        total = np.where(small, n * (n - 1) * payload, total)
        total = np.where(with_coordinator(self.column("operation")), n * payload, total)
        total = np.where(self.column("operation") == OPERATIONS.index("collect"), payload, total)
        return int(total[chosen].sum())

    # -- state

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "columns": {name: self.column(name) for name in _COLUMNS},
            "sent": {kind: self._sent[kind].copy() for kind in KINDS},
            "received": {kind: self._received[kind].copy() for kind in KINDS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])
        for name in _COLUMNS:
            self._columns[name] = array("q", np.asarray(state["columns"][name]).tolist())
        for kind in KINDS:
            self._sent[kind] = np.array(state["sent"][kind], np.int64)
            self._received[kind] = np.array(state["received"][kind], np.int64)


def with_coordinator(operations: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which of these operations, a column of a ledger, cost so much for each participant on the
    coordinator's link."""
    return np.isin(operations, [OPERATIONS.index("upload"), OPERATIONS.index("download")])
