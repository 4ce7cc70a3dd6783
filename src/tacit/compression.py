"""What travels: compressed messages, and the memory of what they left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit.aggregators import Aggregator
from tacit.compressors import Compressor
from tacit.download import Download
from tacit.errors import UserError
from tacit.exchange import Exchange
from tacit.fleet import Fleet, Kind
from tacit.memory import Heard, Memory
from tacit.replicas import Models
from tacit.schedule import Densities
from tacit.setting import Setting
from tacit.ways import Ways


class Compression:
    """Combines the workers' vectors by messages of ``compressor``.

    Everybody sends its message to everybody (an all-gather), adds up what comes, and so knows the
    combination. Where messages can be added without being decoded (a *reducible* compressor, and a
    mean) they are, in an all-reduce. Where all messages together would be more than a dense
    all-reduce moves (two vectors), that is done instead, and said once: nothing is lost then.

    ``download``: the messages go to a coordinator beside worker 0, who sends the combination back,
    compressed by this one, with error feedback of its own (see :class:`Download`). What a worker
    receives then does not grow with their number.
    ``densities``: a warm-up of the compressor's density; at density 1 vectors travel whole.
    ``heard``: what receivers keep of each sender, and combine; None: the last messages.

    What bad senders can do is in :class:`Ways`. Belongs to one run and one exchange. Vectors are
    float32.
    """

    def __init__(
        self,
        compressor: Compressor,
        memory: Memory | None = None,
        download: Compressor | None = None,
        densities: Densities | None = None,
        heard: Heard | None = None,
    ) -> None:
        self.compressor = compressor
        self.memory = memory or Memory()
        self.download = None if download is None else Download(download)
        self.densities = densities
        self.heard = heard or Heard()
        self.heard.check(self.memory)

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        """Begin a run."""
        self.fleet = fleet
        self.compressor.start(setting)
        self.memory.start(fleet, models, setting)
        if self.densities is not None:
            self.densities.start(setting)
        if self.download is not None:
            self.download.start(fleet, setting)
        self.heard.start(fleet, self.memory, setting, self.download is None or fleet.leader)
        self._ways = Ways(fleet, self.memory, self.heard, self.download)
        #: How many workers trained at the last exchange.
        self._busy = fleet.size

    def check(self, optimizer: Optimizer) -> None:
        """Raise UserError for a local optimizer that does not go with this."""
        self.memory.check(optimizer)

    @property
    def given_up(self) -> int:
        """Exchanges in which the messages would have been longer than the vectors."""
        return self._ways.given_up

    def combine(
        self, rows: Tensor, kind: Kind, participants: Tensor, aggregator: Aggregator
    ) -> Tensor:
        """What the participants' vectors come to, ``(d,)``, the same in every process. ``rows``:
        the hosted workers', ``(L, d)``; ``participants``: ``(K,)`` bool."""
        fleet, memory = self.fleet, self.memory
        if memory.counts_absent and fleet.busy != self._busy:
            # one that has no more data must not be part of the direction for ever
            self._busy = fleet.busy
            memory.begin_again()
            self.heard.begin_again()
        whole = memory.whole or not self._use_density()
        standing = aggregator.weights(torch.ones_like(participants))
        if (own := memory.weights()) is not None:
            standing = standing * own
        standing = standing / standing.sum()
        weights = standing if memory.whole else standing * participants
        hosted = weights[fleet.hosted.start : fleet.hosted.stop].tolist()
        taking = fleet.takes_part(kind)
        outgoing = {
            row: memory.outgoing(row, rows[row])
            for row, weight in enumerate(hosted)
            if weight and taking
        }
        exchange = Exchange(
            kind,
            fleet.ledger.step,
            outgoing,
            weights,
            standing,
            self._busy / fleet.size,
            aggregator,
            self.compressor,
        )
        combined = self._ways.whole(exchange) if whole else self._ways.compressed(exchange)
        return memory.direction(combined)

    def _use_density(self) -> bool:
        """Set the density of this step; whether anything is to be compressed."""
        if self.densities is None:
            return True
        density = self.densities.at(self.fleet.ledger.step)
        if density < 1:
            self.compressor.set_density(density)
        return density < 1

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What all workers share."""
        own = {"kind": self._kind, "given up": self.given_up, "busy": self._busy}
        heard = {"heard": self.heard.state_dict()} if self.download is None else {}
        return {"memory": self.memory.state_dict(), **own, **heard}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError for a state of another memory."""
        self._load_shared(state)
        if self.download is None:
            with _fitting():
                self.heard.load_state_dict(state.get("heard", {}))

    def _load_shared(self, state: dict[str, Any]) -> None:
        with _fitting():
            if state["kind"] != self._kind:
                raise KeyError(state["kind"])
            self.memory.load_state_dict(state["memory"])
            self._ways.given_up, self._busy = state["given up"], state["busy"]

    @property
    def _kind(self) -> str:
        names = [type(part).__name__ for part in (self.memory, self.heard)]
        return " ".join(names) if self.heard.remembers else names[0]

    def worker_state(self, row: int) -> dict[str, Any]:
        """What belongs to the worker in this row; beside worker 0, what the coordinator has."""
        worker = row + self.fleet.hosted.start
        state = {
            "memory": self.memory.worker_state(row),
            # pairs: a saver that asks a new run for the names there are would leave these out
            "compressor": list(map(list, self.compressor.worker_state(worker).items())),
        }
        if worker == 0 and self.download is not None:
            state["coordinator"] = self.download.state_dict()
            heard = self.heard.state_dict().items()
            state["heard"] = {name: tensor.clone() for name, tensor in heard}
        return state

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        worker = row + self.fleet.hosted.start
        with _fitting():
            self.memory.load_worker_state(row, state["memory"])
            self.compressor.load_worker_state(worker, dict(state["compressor"]))
            if self.download is not None and "coordinator" in state:
                self.download.load_state_dict(state["coordinator"])
                self.heard.load_state_dict(state.get("heard", {}))

    def take_over(self, shared: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:
        """Go on from another number of workers, whose states these are: every memory is the mean of
        theirs, so that nothing unsent is lost."""
        self._load_shared(shared)
        self._busy = self.fleet.size
        with _fitting():
            memories = [worker["memory"] for worker in workers]
            names = memories[0] if memories else {}
            means = {n: torch.stack([memory[n] for memory in memories]).mean(dim=0) for n in names}
            self.memory.take_over(means)
        self.heard.take_over()
        # the file of worker 0, which holds it, may be lost
        coordinators = [w["coordinator"] for w in workers if "coordinator" in w]
        if self.download is not None and coordinators and not self.memory.sends_again:
            self.download.take_over(coordinators[0])


@contextmanager
def _fitting() -> Iterator[None]:
    """Around what reads a checkpoint."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError):
        raise UserError(
            "the memory in this checkpoint is that of another recipe, or of other options; resume "
            "with those that it was saved with"
        ) from None
