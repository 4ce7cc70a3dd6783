"""Islands: workers that are several processes with fast links between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tacit.errors import PeerError, PeerLost, UserError
from tacit.fleet.attended import AttendedFleet
from tacit.fleet.fleet import Pending
from tacit.fleet.ledger import SMALL_MESSAGE
from tacit.fleet.process_group import all_gather, broadcast_from_first, spread
from tacit.fleet.star import Lead, Settled


class IslandFleet(AttendedFleet):
    """Each worker is an island: several processes that hold the same model.

    ``group``: this process and its counterparts in the other islands, one in each; ``island``: the
    processes of this one (the two dimensions of a mesh). A model crosses between islands once, in
    as many parts as an island has processes: each exchanges its part with its counterparts, and
    the parts are put together within the island. Small messages go between the islands' first
    processes, who tell the others.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None,
        island: dist.ProcessGroup,
        device: torch.device | str = "cpu",
    ) -> None:
        self.island = island
        self.place = dist.get_rank(island)
        self.inhabitants = dist.get_world_size(island)
        super().__init__(1, group, device)

    @property
    def leader(self) -> bool:
        return self.place == 0 and super().leader

    def barrier(self) -> None:
        super().barrier()
        with self._waiting():
            dist.barrier(self.island)

    def _broadcast(self, row: Tensor) -> Tensor:
        return self._tell(super()._broadcast(row) if self.place == 0 else row.clone())

    def _max(self, partial: Tensor) -> Tensor:
        return self._tell(super()._max(partial) if self.place == 0 else partial.clone())

    def _tell(self, value: Tensor) -> Tensor:
        """What the island's first process has."""
        with self._waiting():
            broadcast_from_first(value, self.island)
        return value

    def _gather_rows(self, rows: Tensor) -> Tensor:
        """A row crosses between islands once, in parts or, if it is small, by the first process."""
        hosted, n = rows.shape
        if self.inhabitants == 1:
            return super()._gather_rows(rows)
        if n * rows.element_size() <= SMALL_MESSAGE:
            return self._tell(
                super()._gather_rows(rows) if self.place == 0 else rows.new_empty(self.size, n)
            )
        size = -(-n // self.inhabitants)
        padded = rows.new_zeros(hosted, size * self.inhabitants)
        padded[:, :n] = rows
        part = super()._gather_rows(padded[:, self.place * size : (self.place + 1) * size])
        parts = rows.new_empty(self.inhabitants * self.size, size)
        with self._waiting():
            all_gather(parts, part, group=self.island)
        whole = parts.view(self.inhabitants, self.size, size).transpose(0, 1)
        return whole.reshape(self.size, -1)[:, :n]

    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]:
        every = super()._gather_lengths(lengths) if self.place == 0 else [0] * self.size
        told: list[int] = self._tell(torch.tensor(every, device=self.device)).tolist()
        return told

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        """Between the islands' first processes, who tell the others."""
        every = super()._gather_bytes(messages, lengths) if self.place == 0 else None
        joined = self._tell_bytes(None if every is None else b"".join(every), sum(lengths))
        ends = list(itertools.accumulate(lengths, initial=0))
        return [joined[start:end] for start, end in itertools.pairwise(ends)]

    def _collect_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes] | None:
        return super()._collect_bytes(messages, lengths) if self.place == 0 else None

    def _spread_bytes(self, message: bytes | None, length: int) -> bytes:
        first = self.place == 0
        return self._tell_bytes(super()._spread_bytes(message, length) if first else None, length)

    def _tell_bytes(self, message: bytes | None, length: int) -> bytes:
        return spread(message, length, self.island, self.device, self._waiting)

    def _converse(self, rows: Tensor, reports: Tensor, lead: Lead) -> Settled:
        """The islands' first processes talk with the coordinator, and tell the others."""
        if self.inhabitants == 1:
            return super()._converse(rows, reports, lead)
        settled: Settled | None = None
        error: PeerError | UserError | None = None
        if self.place == 0:
            try:
                settled = super()._converse(rows, reports, lead)
            except (PeerError, UserError) as refusal:  # the others wait for a word
                error = refusal
        self._tell_error(error)
        said = torch.zeros(2 * self.size + 3, dtype=torch.int64, device=self.device)
        if settled is not None:
            masks = torch.from_numpy(np.concatenate([settled.callers, settled.members])).long()
            got = settled.combination is not None
            said = torch.cat([masks, torch.tensor([settled.whole, settled.waves, got])])
        told = self._tell(said.to(self.device)).cpu()
        callers, members = told[: self.size].numpy() > 0, told[self.size : -3].numpy() > 0
        whole, waves, got = told[-3:].tolist()
        own = None if settled is None else settled.combination
        combination = self._tell(own if own is not None else rows[0].clone()) if got else None
        return Settled(callers, members, bool(whole), waves, combination)

    def _tell_error(self, error: PeerError | UserError | None) -> None:
        """Raise the first process's error, if there is one, in all of the island."""
        text = "" if error is None else str(error)
        reason = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        about = torch.tensor([error is not None, isinstance(error, PeerLost), len(reason)])
        refused, lost, length = self._tell(about.to(self.device)).tolist()
        if not refused:
            return
        if error is None:
            reason = torch.zeros(length, dtype=torch.uint8, device=self.device)
        text = self._tell(reason).cpu().numpy().tobytes().decode(errors="replace")
        if error is not None:
            raise error
        raise PeerLost(text) if lost else PeerError(text)

    def _sum_later(self, partial: Tensor) -> Pending:
        small = partial.numel() * partial.element_size() <= SMALL_MESSAGE
        if self.inhabitants == 1:
            return super()._sum_later(partial)
        if small:
            message = super()._sum_later(partial) if self.place == 0 else None
            return _Told(self, message, partial)
        size = -(-partial.numel() // self.inhabitants)
        padded = torch.zeros(size * self.inhabitants, dtype=partial.dtype, device=partial.device)
        padded[: partial.numel()] = partial
        part = padded[self.place * size : (self.place + 1) * size].clone()
        return _Assembled(self, super()._sum_later(part), padded, partial.numel())


class _Told:
    """A small message that the island's first process gets, and tells the others."""

    def __init__(self, fleet: IslandFleet, message: Pending | None, partial: Tensor) -> None:
        self._fleet, self._message, self._partial = fleet, message, partial

    def wait(self) -> Tensor:
        return self._fleet._tell(
            self._message.wait() if self._message is not None else self._partial.clone()
        )


class _Assembled:
    """A large message of which each process of the island gets a part."""

    def __init__(self, fleet: IslandFleet, part: Pending, whole: Tensor, numel: int) -> None:
        self._fleet, self._part, self._whole, self._numel = fleet, part, whole, numel

    def wait(self) -> Tensor:
        part = self._part.wait()
        with self._fleet._waiting():
            all_gather(self._whole, part, group=self._fleet.island)
        return self._whole[: self._numel]
