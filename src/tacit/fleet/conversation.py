"""The conversation with the coordinator between the processes of a group, point to point."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tacit.errors import PeerError, PeerLost
from tacit.fleet.star import Lead, Mask, Settled, Star, settle

if TYPE_CHECKING:
    from tacit.fleet.process_group import ProcessGroupFleet

#: The coordinator's words are four numbers, 16 bytes; the first says what follows.
_REQUEST = 1  # the worker whose row is wanted
_CLOSE = 2  # whole, waves; then two masks, then the combination for those who get it
_STOP = 3  # the length of the reason, whether a peer is gone; then the reason


def converse(fleet: ProcessGroupFleet, rows: Tensor, reports: Tensor, lead: Lead) -> Settled:
    """One conversation; the coordinator is in the group's first process.

    Raises PeerError, in every process, where the coordinator refuses what it gets, and PeerLost
    where a process is gone.
    """
    if fleet.rank == 0:
        return _lead(Post(fleet), rows, reports, lead)
    return _follow(Post(fleet), rows, reports)


class Post:
    """Tensors from and to the processes of a group, by rank."""

    def __init__(self, fleet: ProcessGroupFleet) -> None:
        self.fleet = fleet
        self.device = fleet.device
        self.others = range(1, len(fleet.counts))
        #: The process of each worker.
        self.rank_of = [r for r, count in enumerate(fleet.counts) for _ in range(count)]

    def send(self, tensor: Tensor, rank: int) -> Any:
        """Start to send."""
        with self.fleet._waiting():
            return dist.isend(tensor.contiguous(), self._global(rank), self.fleet.group)

    def receive(self, tensor: Tensor, rank: int) -> Any:
        """Start to receive."""
        with self.fleet._waiting():
            return dist.irecv(tensor, self._global(rank), self.fleet.group)

    def wait(self, works: Sequence[Any]) -> None:
        with self.fleet._waiting():
            for work in works:
                work.wait()

    def get(self, tensor: Tensor, rank: int) -> Tensor:
        self.wait([self.receive(tensor, rank)])
        return tensor

    def word(self, *numbers: int) -> Tensor:
        return torch.tensor([*numbers, *[0] * (4 - len(numbers))], dtype=torch.int32).to(
            self.device
        )

    def stop(self, error: Exception) -> None:
        """Tell every other process why there is no more to say; those who can be told."""
        reason = torch.frombuffer(bytearray(str(error).encode() or b"?"), dtype=torch.uint8)
        lost = isinstance(error, PeerLost)
        words = [self.word(_STOP, len(reason), lost), reason.to(self.device)]
        sending = []
        for rank in self.others:
            with contextlib.suppress(PeerLost):
                sending += [self.send(tensor, rank) for tensor in words]
        for work in sending:
            with contextlib.suppress(PeerLost):
                self.wait([work])

    def _global(self, rank: int) -> int:
        group = self.fleet.group
        return rank if group is None else dist.get_global_rank(group, rank)


def _lead(post: Post, rows: Tensor, reports: Tensor, lead: Lead) -> Settled:
    try:
        return _talk(post, rows, reports, lead)
    except Exception as error:
        post.stop(error)
        raise


def _talk(post: Post, rows: Tensor, reports: Tensor, lead: Lead) -> Settled:
    fleet = post.fleet
    every = [reports, *(torch.zeros(fleet.counts[r], 2).double() for r in post.others)]
    every = [part.to(post.device) for part in every]
    post.wait([post.receive(every[rank], rank) for rank in post.others])
    heard = torch.cat(every).cpu()
    held = _sent_by_callers(post, rows, heard[:, 0].long().tolist())
    settled = settle(_ProcessStar(post, rows, heard, held), lead)
    masks = np.stack([settled.callers, settled.members])
    packed = torch.from_numpy(np.packbits(masks, axis=1)).to(post.device)
    closing = [post.word(_CLOSE, settled.whole, settled.waves), packed]
    post.wait([post.send(tensor, rank) for rank in post.others for tensor in closing])
    assert settled.combination is not None
    receiving = _processes(post, settled.receivers())
    post.wait([post.send(settled.combination, rank) for rank in post.others if receiving[rank]])
    return settled


def _follow(post: Post, rows: Tensor, reports: Tensor) -> Settled:
    fleet = post.fleet
    sending = [post.send(reports.to(post.device), 0)]
    sending += [post.send(row, 0) for row in rows[reports[:, 0].to(rows.device) > 0]]
    while True:
        word, first, second, _ = post.get(post.word(), 0).tolist()
        if word == _STOP:
            reason = post.get(torch.zeros(first, dtype=torch.uint8, device=post.device), 0)
            text = reason.cpu().numpy().tobytes().decode(errors="replace")
            raise PeerLost(text) if second else PeerError(text)
        if word == _CLOSE:
            break
        sending.append(post.send(rows[first - fleet.hosted.start], 0))
    post.wait(sending)
    packed = torch.zeros(2, -(-fleet.size // 8), dtype=torch.uint8, device=post.device)
    masks = np.unpackbits(post.get(packed, 0).cpu().numpy(), axis=1, count=fleet.size) > 0
    settled = Settled(masks[0], masks[1], bool(first), second, None)
    if not _processes(post, settled.receivers())[fleet.rank]:
        return settled
    combination = post.get(torch.empty_like(rows[0]), 0)
    return Settled(masks[0], masks[1], bool(first), second, combination)


def _processes(post: Post, workers: Mask) -> list[bool]:
    """The processes that host any of these workers."""
    chosen = {post.rank_of[worker] for worker in np.flatnonzero(workers)}
    return [rank in chosen for rank in range(len(post.fleet.counts))]


def _sent_by_callers(post: Post, rows: Tensor, said: list[int]) -> dict[int, Tensor]:
    """The callers' rows, and those that are here. A row that does not fit is on its way all the
    same, and received, if it is not absurdly long, so that the next message is not taken for it."""
    longest = rows.shape[1] * 4 + 1024
    here = range(len(rows))
    coming = {w: width for w, width in enumerate(said) if 0 < width <= longest and w not in here}
    held = {worker: rows.new_empty(width) for worker, width in coming.items()}
    post.wait([post.receive(row, post.rank_of[worker]) for worker, row in held.items()])
    return {**dict(enumerate(rows)), **held}


class _ProcessStar(Star):
    def __init__(self, post: Post, rows: Tensor, reports: Tensor, held: dict[int, Tensor]) -> None:
        super().__init__(reports, rows.shape[1])
        self._post, self._held = post, held

    def _rows(self, workers: Sequence[int]) -> Tensor:
        wanted = [worker for worker in workers if worker not in self._held]
        post = self._post
        while wanted:
            # one of each process at a time: it answers before it hears the next request
            ranks = {post.rank_of[worker]: worker for worker in reversed(wanted)}
            post.wait([post.send(post.word(_REQUEST, w), rank) for rank, w in ranks.items()])
            for worker in ranks.values():
                self._held[worker] = torch.empty_like(self._held[0])
            post.wait([post.receive(self._held[w], rank) for rank, w in ranks.items()])
            wanted = [worker for worker in wanted if worker not in self._held]
        return torch.stack([self._held[worker] for worker in workers])
