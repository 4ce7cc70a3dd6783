"""Workers spread over the processes of a ``torch.distributed`` process group."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from tacit.errors import PeerLost, UserError
from tacit.fleet.conversation import Post, converse
from tacit.fleet.correspondence import Correspondence
from tacit.fleet.fleet import Fleet, Pending, Ready
from tacit.fleet.ledger import SMALL_MESSAGE, Kind
from tacit.fleet.mailbox import Mailbox
from tacit.fleet.star import Lead, Settled

#: Seconds for which a worker waits for enough of its peers.
_PATIENCE = 1800.0

# torch 2.13 renamed it, and warns about the old name
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class ProcessGroupFleet(Fleet):
    """Process ``r`` hosts the next ``workers[r]`` workers, in rank order.

    ``workers``: how many workers this process hosts (1: a plain cluster). Ranks may differ.
    ``group``: the process group; the default one if not given. Works on gloo and NCCL.
    What is gathered goes straight from every process to every other, in one hop; on a ring it would
    pay the latency n-1 times. Each process needs room for a copy to each of the others.
    """

    def __init__(
        self,
        workers: int = 1,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
        deterministic: bool = False,
    ) -> None:
        if not dist.is_initialized():
            raise UserError("torch.distributed is not initialised; call init_process_group first")
        self.group = group
        self.device = torch.device(device)
        self.rank = dist.get_rank(group)
        counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=self.device)
        counts[self.rank] = workers
        #: Seconds that this process has waited for others.
        self.waited = 0.0
        with self._waiting():
            dist.all_reduce(counts, group=group)
        self.counts: list[int] = counts.tolist()
        if min(self.counts) < 1:
            raise UserError(f"every process must host at least 1 worker, got {self.counts}")
        self._mailboxes: WeakKeyDictionary[Correspondence, dict[Kind, Mailbox]]
        self._mailboxes = WeakKeyDictionary()
        start = sum(self.counts[: self.rank])
        super().__init__(sum(self.counts), range(start, start + workers), deterministic)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Around every call that others must answer. Raises PeerLost where one does not."""
        began = time.perf_counter()
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = str(error).splitlines()[0][:200]
            raise PeerLost(f"a peer is gone or did not answer in time ({first})") from error
        finally:
            self.waited += time.perf_counter() - began

    def linger(self) -> None:
        """Before the program may end: gloo's threads let go of the last message a moment after it
        is there, and need Python for that; a program that ends in between is aborted."""
        time.sleep(0.05)

    def barrier(self) -> None:
        with self._waiting():
            dist.barrier(self.group)

    def total(self, values: Tensor) -> Tensor:
        values = values.to(self.device, copy=True)
        with self._waiting():
            dist.all_reduce(values, group=self.group)
        return values

    def _sum_later(self, partial: Tensor) -> Pending:
        processes = len(self.counts)
        if processes == 1:
            return Ready(partial)
        if partial.numel() * partial.element_size() <= SMALL_MESSAGE:
            # one hop to every peer at once: a ring would pay the latency 2 (n-1) times
            sent = partial.expand(processes, -1).contiguous()
            received = torch.empty_like(sent)
            with self._waiting():
                work = dist.all_to_all_single(received, sent, group=self.group, async_op=True)
            return _InFlight(self, work, lambda: received.sum(0))
        with self._waiting():
            work = dist.all_reduce(partial, group=self.group, async_op=True)
        return _InFlight(self, work, lambda: partial)

    def _max(self, partial: Tensor) -> Tensor:
        partial = partial.contiguous()
        with self._waiting():
            dist.all_reduce(partial, op=dist.ReduceOp.MAX, group=self.group)
        return partial

    def _broadcast(self, row: Tensor) -> Tensor:
        row = row.clone(memory_format=torch.contiguous_format)
        with self._waiting():
            broadcast_from_first(row, self.group)
        return row

    def _gather_rows(self, rows: Tensor) -> Tensor:
        return self._tell_everybody(rows, self.counts)

    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]:
        own = torch.tensor(lengths, dtype=torch.int64, device=self.device)
        every: list[int] = self._tell_everybody(own, self.counts).tolist()
        return every

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        ends = list(itertools.accumulate(lengths, initial=0))
        hosts = list(itertools.accumulate(self.counts, initial=0))
        sizes = [ends[stop] - ends[start] for start, stop in itertools.pairwise(hosts)]
        own = _tensor(b"".join(messages)).to(self.device)
        gathered = self._tell_everybody(own, sizes).cpu().numpy()
        return [gathered[start:end].tobytes() for start, end in itertools.pairwise(ends)]

    def _tell_everybody(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Every process's ``own``, one after the other; ``sizes``: the length of each."""
        processes = len(sizes)
        if processes == 1:
            return own.clone()
        sent = own.repeat(processes, *[1] * (own.dim() - 1))
        received = own.new_empty((sum(sizes), *own.shape[1:]))
        with self._waiting():
            dist.all_to_all_single(
                received, sent, list(sizes), [len(own)] * processes, group=self.group
            )
        return received

    def gather_first(
        self, rows: Tensor, kind: Kind, enough: int, correspondence: Correspondence
    ) -> tuple[list[int], Tensor] | None:
        """Collective where it is the first of its kind in its correspondence; then no other.

        Raises PeerLost where less than ``enough`` others are left, and where so many have not sent
        anything within half an hour; UserError for a step that is not later than the one before.
        """
        if max(self.counts) > 1 or self.deterministic:
            return None
        began = time.perf_counter()
        mailbox, step = self._mailbox(rows, kind, correspondence), self.ledger.step
        own = self.said(rows, kind)[0]
        self.ledger.gather(kind, [own.numel() * own.element_size()] * self.size)
        mailbox.post(step, own)
        held = mailbox.collect(step, enough, _PATIENCE) | {self.rank: own}
        self.waited += time.perf_counter() - began
        who = sorted(held)
        return who, torch.stack([held[rank].to(self.device) for rank in who])

    def introduce(self, rows: Tensor, kind: Kind, correspondence: Correspondence) -> None:
        if max(self.counts) == 1 and not self.deterministic:
            self._mailbox(rows, kind, correspondence)

    def last_word(self, rows: Tensor, kind: Kind, correspondence: Correspondence) -> None:
        if max(self.counts) == 1 and not self.deterministic:
            own = self.said(rows, kind)[0]
            self.ledger.gather(kind, [own.numel() * own.element_size()] * self.size)
            self._mailbox(rows, kind, correspondence).last_word(own)

    def _mailbox(self, rows: Tensor, kind: Kind, correspondence: Correspondence) -> Mailbox:
        mailboxes = self._mailboxes.setdefault(correspondence, {})
        if kind not in mailboxes:
            mailboxes[kind] = Mailbox(self.group, rows.shape[1], dtype=rows.dtype)
        return mailboxes[kind]

    def _collect_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes] | None:
        post = Post(self)
        if self.rank != 0:
            sending = [_tensor(message).to(self.device) for message in messages if message]
            post.wait([post.send(tensor, 0) for tensor in sending])
            return None
        coming = {w: n for w, n in enumerate(lengths) if n and w not in self.hosted}
        buffers = {w: torch.empty(n, dtype=torch.uint8).to(self.device) for w, n in coming.items()}
        post.wait([post.receive(buffer, post.rank_of[w]) for w, buffer in buffers.items()])
        got = {w: buffer.cpu().numpy().tobytes() for w, buffer in buffers.items()}
        return [*messages, *(got.get(w, b"") for w in range(len(messages), self.size))]

    def _spread_length(self, length: int) -> int:
        return int(self._broadcast(torch.tensor([length], device=self.device)))

    def _spread_bytes(self, message: bytes | None, length: int) -> bytes:
        own = message if self.rank == 0 else None
        return spread(own, length, self.group, self.device, self._waiting)

    def _converse(self, rows: Tensor, reports: Tensor, lead: Lead) -> Settled:
        return converse(self, rows, reports, lead)


def broadcast_from_first(tensor: Tensor, group: dist.ProcessGroup | None) -> None:
    """Everybody in ``group`` gets its first process's ``tensor``, in place."""
    source = 0 if group is None else dist.get_global_rank(group, 0)
    dist.broadcast(tensor, source, group=group)


def spread(
    message: bytes | None,
    length: int,
    group: dist.ProcessGroup | None,
    device: torch.device,
    waiting: Callable[[], AbstractContextManager[None]],
) -> bytes:
    """Everybody in ``group`` gets its first process's ``message``; the others give None. All know
    its ``length``."""
    if not length:
        return b""
    content = torch.zeros(length, dtype=torch.uint8) if message is None else _tensor(message)
    content = content.to(device)
    with waiting():
        broadcast_from_first(content, group)
    return content.cpu().numpy().tobytes()


def _tensor(message: bytes) -> Tensor:
    if not message:
        return torch.zeros(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(message), dtype=torch.uint8)


class _InFlight:
    """A collective that has been started, and what to make of it once it is done."""

    def __init__(self, fleet: ProcessGroupFleet, work: Any, result: Callable[[], Tensor]) -> None:
        self._fleet = fleet
        self._work = work
        self._result = result

    def wait(self) -> Tensor:
        with self._fleet._waiting():
            self._work.wait()
        return self._result()
