"""What travels: compressed messages, and the memory of what they left out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit.aggregators import Aggregator, Mean
from tacit.compressors import Arrived, Compressor
from tacit.download import REFUSAL, Download, longest
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import Fleet, Kind
from tacit.memory import Memory
from tacit.replicas import Models
from tacit.schedule import Densities
from tacit.setting import Setting


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

    Belongs to one run and one exchange. Vectors are float32.
    """

    def __init__(
        self,
        compressor: Compressor,
        memory: Memory | None = None,
        download: Compressor | None = None,
        densities: Densities | None = None,
    ) -> None:
        self.compressor = compressor
        self.memory = memory or Memory()
        self.download = None if download is None else Download(download)
        self.densities = densities

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        """Begin a run."""
        self.fleet = fleet
        self._d = models.parameters.shape[1]
        self.compressor.start(setting)
        self.memory.start(fleet, models, setting)
        if self.densities is not None:
            self.densities.start(setting)
        if self.download is not None:
            self.download.start(fleet, setting)
        #: Exchanges in which the messages would have been longer than the vectors.
        self.given_up = 0
        #: How many workers trained at the last exchange.
        self._busy = fleet.size

    def check(self, optimizer: Optimizer) -> None:
        """Raise UserError for a local optimizer that does not go with this."""
        self.memory.check(optimizer)

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
        whole = memory.whole or not self._use_density()
        weights = aggregator.weights(torch.ones_like(participants))
        if (own := memory.weights()) is not None:
            weights = weights * own
        weights = weights / weights.sum()
        if not memory.whole:
            weights = weights * participants
        hosted = weights[fleet.hosted.start : fleet.hosted.stop].tolist()
        taking = fleet.takes_part(kind)
        outgoing = {
            row: memory.outgoing(row, rows[row])
            for row, weight in enumerate(hosted)
            if weight and taking
        }
        exchange = _Exchange(kind, fleet.ledger.step, outgoing, weights, aggregator)
        if whole:
            combined = self._dense(exchange)
        elif self.download is not None:
            combined = self._by_coordinator(self.download, exchange)
        elif self.compressor.reducible and isinstance(aggregator, Mean):
            combined = self._reduced(exchange)
        else:
            combined = self._gathered(exchange)
        return memory.direction(combined)

    def _use_density(self) -> bool:
        """Set the density of this step; whether anything is to be compressed."""
        if self.densities is None:
            return True
        density = self.densities.at(self.fleet.ledger.step)
        if density < 1:
            self.compressor.set_density(density)
        return density < 1

    # -- the ways of the vectors

    def _dense(self, exchange: _Exchange) -> Tensor:
        vectors = self._rows(exchange.outgoing, self._d)
        if isinstance(exchange.aggregator, Mean):
            combined = self._mean(vectors, exchange)
        else:
            takes_part = exchange.weights > 0
            combined = exchange.aggregator.combine(self.fleet, vectors, exchange.kind, takes_part)
        for row, vector in exchange.outgoing.items():
            self.memory.sent(row, vector, None)
        return combined

    def _reduced(self, exchange: _Exchange) -> Tensor:
        name = self._name(0, exchange)
        picked = {row: self.compressor.pick(v, *name) for row, v in exchange.outgoing.items()}
        for row, vector in exchange.outgoing.items():
            if not math.isfinite(float(vector.sum())):
                picked[row] = torch.full_like(picked[row], math.nan)  # so that all find out now
        width = len(self.compressor.pick(self.memory.models.parameters[0], *name))
        rows = self._rows(picked, width)  # copies: what is picked may be the memory itself
        mean = self._mean(rows, exchange)
        if not math.isfinite(float(mean.sum())):
            raise _diverged("what some worker has to send", exchange.step)
        for row, vector in exchange.outgoing.items():
            self.memory.sent(row, vector, self.compressor.place(rows[row], self._d, *name))
        return self.compressor.place(mean, self._d, *name).dense()

    def _gathered(self, exchange: _Exchange) -> Tensor:
        # a dense all-reduce moves 2 (K-1)/K vectors to each, a gather (K-1)/K of all messages; what
        # is no mean would gather dense vectors too
        vectors = 2 if isinstance(exchange.aggregator, Mean) else self.fleet.size
        limit = vectors * 4 * self._d
        every = self.fleet.gather_within(self._messages(exchange), exchange.kind, limit)
        if every is None:
            self._give_up()
            return self._dense(exchange)
        return self._decoded(every, exchange)

    def _by_coordinator(self, download: Download, exchange: _Exchange) -> Tensor:
        messages = self._messages(exchange)
        every = self.fleet.collect_bytes(messages, exchange.kind, longest(self._d))
        if every is not None:
            arrived = download.spread(exchange.kind, lambda: self._decoded(every, exchange))
        else:
            arrived = download.spread(exchange.kind, None)
            for row in exchange.outgoing:
                self._hear(row, messages[row], exchange)
        return arrived.dense().to(self._device)

    # -- pieces

    def _messages(self, exchange: _Exchange) -> list[bytes]:
        """The hosted workers'; an empty one of those that take no part."""
        messages = [b""] * len(self.fleet.hosted)
        for row, vector in exchange.outgoing.items():
            try:
                messages[row] = self.compressor.encode(vector, *self._name(row, exchange))
            except UserError as error:  # sent, so that all stop, and none waits for this one
                diverged = not torch.isfinite(vector).all()
                messages[row] = REFUSAL + (b"" if diverged else str(error).encode())
        return messages

    def _decoded(self, every: Sequence[bytes], exchange: _Exchange) -> Tensor:
        """The combination of everybody's messages."""
        first, weights = self.fleet.hosted.start, exchange.weights
        here = {w: float(weights[w]) for w, message in enumerate(every) if message}
        present = sum(here.values())
        total = torch.zeros(self._d, device=self._device)
        if not present:
            return total
        if isinstance(exchange.aggregator, Mean):
            scale = 1 / (self._trained if self.memory.counts_absent else present)
            for worker, weight in here.items():
                arrived = self._hear(worker - first, every[worker], exchange)
                arrived.add_to(total, weight * scale)
            return total
        rows = [self._hear(worker - first, every[worker], exchange).dense() for worker in here]
        combined = exchange.aggregator(torch.stack(rows).to(self._device), weights[list(here)])
        return combined * (present / self._trained if self.memory.counts_absent else 1.0)

    def _hear(self, row: int, message: bytes, exchange: _Exchange) -> Arrived:
        """What is in the message of the worker in this row, hosted or not."""
        sender = f"worker {row + self.fleet.hosted.start}"
        if message.startswith(REFUSAL):
            if reason := message[len(REFUSAL) :].decode(errors="replace"):
                raise UserError(f"{sender} at step {exchange.step}: {reason}")
            raise _diverged(f"what {sender} has to send", exchange.step)
        arrived = self.compressor.arrive(message, self._d, sender, *self._name(row, exchange))
        if row in exchange.outgoing:
            self.memory.sent(row, exchange.outgoing[row], arrived)
        return arrived

    def _mean(self, rows: Tensor, exchange: _Exchange) -> Tensor:
        mean = self.fleet.mean(rows, exchange.kind, exchange.weights)
        if self.memory.counts_absent:
            mean = mean * (float(exchange.weights.sum()) * self.fleet.weight / self._trained)
        return mean

    @property
    def _trained(self) -> float:
        """The share of the workers that train, present or not."""
        return self._busy / self.fleet.size

    def _rows(self, vectors: dict[int, Tensor], width: int) -> Tensor:
        """One row for each hosted worker; zeros of those that take no part, which nobody reads."""
        rows = torch.zeros(len(self.fleet.hosted), width, device=self._device)
        for row, vector in vectors.items():
            rows[row] = vector
        return rows

    @property
    def _device(self) -> torch.device:
        return self.memory.models.parameters.device

    def _name(self, row: int, exchange: _Exchange) -> tuple[str | int, ...]:
        worker = row + self.fleet.hosted.start
        return ("worker", worker, exchange.kind, "step", exchange.step)

    def _give_up(self) -> None:
        if not self.given_up and self.fleet.leader:
            warnings.warn(
                f"compressed messages of {self.fleet.size} workers are longer together than a "
                "dense all-reduce, which is done instead; compress more, or send them through a "
                "coordinator (download=...)",
                stacklevel=2,
            )
        self.given_up += 1

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What all workers share."""
        kind = type(self.memory).__name__
        own = {"kind": kind, "given up": self.given_up, "busy": self._busy}
        return {"memory": self.memory.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError for a state of another memory."""
        with _fitting():
            if state["kind"] != type(self.memory).__name__:
                raise KeyError(state["kind"])
            self.memory.load_state_dict(state["memory"])
            self.given_up, self._busy = state["given up"], state["busy"]

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
        return state

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        worker = row + self.fleet.hosted.start
        with _fitting():
            self.memory.load_worker_state(row, state["memory"])
            self.compressor.load_worker_state(worker, dict(state["compressor"]))
        if self.download is not None and "coordinator" in state:
            self.download.load_state_dict(state["coordinator"])

    def take_over(self, shared: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:
        """Go on from another number of workers, whose states these are: every memory is the mean of
        theirs, so that nothing unsent is lost."""
        self.load_state_dict(shared)
        self._busy = self.fleet.size
        with _fitting():
            memories = [worker["memory"] for worker in workers]
            names = memories[0] if memories else {}
            means = {n: torch.stack([memory[n] for memory in memories]).mean(dim=0) for n in names}
            self.memory.take_over(means)
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


def _diverged(what: str, step: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"{what} is not finite at step {step}; lower the learning rate or look at the data"
    )


@dataclass(frozen=True)
class _Exchange:
    """``outgoing``: by row, what the hosted workers that take part would like to send.
    ``weights``: ``(K,)``, with sum 1 if all take part; 0 for those that do not."""

    kind: Kind
    step: int
    outgoing: dict[int, Tensor]
    weights: Tensor
    aggregator: Aggregator
