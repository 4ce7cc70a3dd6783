"""How vectors travel: everybody's messages to everybody, an all-reduce, a coordinator, or dense."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tacit.aggregators import Mean, Robust
from tacit.compressors import Arrived, Identity, RandomK
from tacit.download import REFUSAL, Download, longest
from tacit.errors import PeerError, TrainingDiverged, UserError
from tacit.exchange import Exchange
from tacit.fleet import Fleet
from tacit.fleet.letters import Distrust
from tacit.memory import Heard, Memory


class Ways:
    """Moves the vectors of an :class:`Exchange`, and makes their combination ``(d,)``, the same in
    every process; the memory hears what of each hosted worker's arrived.

    With a robust aggregator a message that cannot be read, one that is announced longer than any
    is, a refusal, and silence of a worker that takes part are rows of NaN: a bad sender, of whom
    nothing is remembered. Else they stop all.
    """

    def __init__(
        self, fleet: Fleet, memory: Memory, heard: Heard, download: Download | None
    ) -> None:
        self.fleet, self.memory, self.heard, self.download = fleet, memory, heard, download
        model = memory.models.parameters[0]
        self._d, self._device = len(model), model.device
        #: Exchanges in which the messages would have been longer than the vectors.
        self.given_up = 0

    def whole(self, exchange: Exchange) -> Tensor:
        """Without compression."""
        if not self.heard.remembers:
            return self._dense(exchange)
        exchange = replace(exchange, compressor=Identity())
        if self.download is not None:
            return self._by_coordinator(self.download, exchange)
        messages, limit = self._messages(exchange), self.fleet.size * longest(self._d)
        every = self.fleet.gather_within(messages, exchange.kind, limit, self._distrust(exchange))
        if every is None:
            raise PeerError(f"whole vectors of more than {limit:,} bytes are announced")
        return self._decoded(every, exchange)

    def compressed(self, exchange: Exchange) -> Tensor:
        """By messages of the compressor, unless they are too long."""
        if self.download is not None:
            return self._by_coordinator(self.download, exchange)
        if exchange.compressor.reducible and self._adds_up(exchange):
            return self._reduced(exchange)
        # a dense all-reduce moves 2 (K-1)/K vectors to each, a gather (K-1)/K of all messages; what
        # is no mean would gather dense vectors too
        vectors = 2 if self._adds_up(exchange) else self.fleet.size
        messages, limit = self._messages(exchange), vectors * 4 * self._d
        every = self.fleet.gather_within(messages, exchange.kind, limit, self._distrust(exchange))
        if every is None:
            self._give_up()
            return self.whole(exchange)
        return self._decoded(every, exchange)

    def _dense(self, exchange: Exchange) -> Tensor:
        vectors = self._rows(exchange.outgoing, self._d)
        if isinstance(exchange.aggregator, Mean):
            combined = self._mean(vectors, exchange)
        else:
            takes_part = exchange.weights > 0
            combined = exchange.aggregator.combine(self.fleet, vectors, exchange.kind, takes_part)
        for row, vector in exchange.outgoing.items():
            self.memory.sent(row, vector, None)
        return combined

    def _reduced(self, exchange: Exchange) -> Tensor:
        compressor, name = exchange.compressor, self._name(0, exchange)
        picked = {row: compressor.pick(v, *name) for row, v in exchange.outgoing.items()}
        for row, vector in exchange.outgoing.items():
            if not math.isfinite(float(vector.sum())):
                picked[row] = torch.full_like(picked[row], math.nan)  # so that all find out now
        width = len(compressor.pick(self.memory.models.parameters[0], *name))
        rows = self._rows(picked, width)  # copies: what is picked may be the memory itself
        mean = self._mean(rows, exchange)
        if not math.isfinite(float(mean.sum())):
            raise _diverged("what some worker has to send", exchange.step)
        for row, vector in exchange.outgoing.items():
            self.memory.sent(row, vector, compressor.place(rows[row], self._d, *name))
        return compressor.place(mean, self._d, *name).dense()

    def _by_coordinator(self, download: Download, exchange: Exchange) -> Tensor:
        messages = self._messages(exchange)
        distrust = self._distrust(exchange)
        every = self.fleet.collect_bytes(messages, exchange.kind, longest(self._d), distrust)
        whole = exchange.compressor if isinstance(exchange.compressor, Identity) else None
        if every is not None:
            arrived = download.spread(
                exchange.kind, lambda: self._decoded(every, exchange), whole, self.heard.afresh
            )
        else:
            arrived = download.spread(exchange.kind, None, whole)
            for row in exchange.outgoing:
                self._read(row, messages[row], exchange)
        return arrived.dense().to(self._device)

    # -- messages

    def _messages(self, exchange: Exchange) -> list[bytes]:
        """The hosted workers'; an empty one of those that take no part."""
        voice = None if exchange.kind == "evaluation" else self.fleet.voice
        first, messages = self.fleet.hosted.start, [b""] * len(self.fleet.hosted)
        honest = {
            r: v for r, v in exchange.outgoing.items() if voice is None or voice.honest[r + first]
        }
        for row, vector in honest.items():
            messages[row] = self._encoded(row, vector, exchange)
        if voice is not None:  # in every process, as liars overhear everybody
            said = self._lies({row: messages[row] for row in honest}, exchange)
            for row in exchange.outgoing.keys() - honest.keys():
                messages[row] = self._encoded(row, said[row], exchange)
        return messages

    def _encoded(self, row: int, vector: Tensor, exchange: Exchange) -> bytes:
        try:
            return exchange.compressor.encode(vector, *self._name(row, exchange))
        except UserError as error:  # sent, so that all stop, and none waits for this one
            diverged = not torch.isfinite(vector).all()
            return REFUSAL + (b"" if diverged else str(error).encode())

    def _lies(self, honest: dict[int, bytes], exchange: Exchange) -> Tensor:
        """The hosted liars' rows, of ``(L, d)``; ``honest``: the others' messages by row."""
        outgoing, compressor = self._rows(exchange.outgoing, self._d), exchange.compressor
        if not self.heard.remembers:
            return self.fleet.said(outgoing, exchange.kind)
        arrived = {
            row: compressor.arrive(message, self._d, "itself", *self._name(row, exchange))
            for row, message in honest.items()
            if not message.startswith(REFUSAL)
        }
        said = self.heard.lies(arrived, lambda rows: self.fleet.said(rows, exchange.kind))
        if isinstance(compressor, RandomK) and compressor.scaled:
            said *= compressor.most(self._d) / self._d  # so that what they want is what arrives
        return said

    def _decoded(self, every: Sequence[bytes], exchange: Exchange) -> Tensor:
        """What all are told of everybody's messages."""
        first, weights = self.fleet.hosted.start, exchange.weights
        counted = [w for w, message in enumerate(every) if message and weights[w] > 0]
        if self._adds_up(exchange):
            total = torch.zeros(self._d, device=self._device)
            present = sum(float(weights[worker]) for worker in counted)
            scale = 1 / (exchange.trained if self.memory.counts_absent else present or 1.0)
            for worker in counted:
                arrived = self._hear(worker - first, every[worker], exchange)
                arrived.add_to(total, float(weights[worker]) * scale)
            return total
        found = {w: self._read(w - first, every[w], exchange) for w in counted}
        found |= dict.fromkeys(self._missing(every, exchange))
        if not found:
            return torch.zeros(self._d, device=self._device)
        who, rows = self.heard.rows(dict(sorted(found.items())))
        return self.heard.told(exchange.aggregator(rows, exchange.standing[who]))

    def _missing(self, every: Sequence[bytes], exchange: Exchange) -> list[int]:
        """Who is silent and should not be, where that is a bad sender. Who is away has said so in
        the roll call, which gives no names: of the silent ones the first are believed."""
        if not isinstance(exchange.aggregator, Robust):
            return []
        away = self.fleet.size - round(self.fleet.weight * self.fleet.size)
        silent = [w for w, m in enumerate(every) if not m and exchange.weights[w] > 0]
        return silent[away:]

    def _read(self, row: int, message: bytes, exchange: Exchange) -> Arrived | None:
        """:meth:`_hear`; None for what cannot be used, where that is a bad sender."""
        if not isinstance(exchange.aggregator, Robust):
            return self._hear(row, message, exchange)
        if message.startswith(REFUSAL):
            return None
        try:
            return self._hear(row, message, exchange)
        except PeerError:
            return None

    def _hear(self, row: int, message: bytes, exchange: Exchange) -> Arrived:
        """What is in the message of the worker in this row, hosted or not."""
        sender = f"worker {row + self.fleet.hosted.start}"
        if message.startswith(REFUSAL):
            if reason := message[len(REFUSAL) :].decode(errors="replace"):
                raise UserError(f"{sender} at step {exchange.step}: {reason}")
            raise _diverged(f"what {sender} has to send", exchange.step)
        name = self._name(row, exchange)
        arrived = exchange.compressor.arrive(message, self._d, sender, *name)
        if row in exchange.outgoing:
            self.memory.sent(row, exchange.outgoing[row], arrived)
        return arrived

    # -- pieces

    def _distrust(self, exchange: Exchange) -> Distrust | None:
        robust = isinstance(exchange.aggregator, Robust)
        return Distrust(longest(self._d), REFUSAL) if robust else None

    def _adds_up(self, exchange: Exchange) -> bool:
        """Whether only the (weighted) sum of the messages matters."""
        return isinstance(exchange.aggregator, Mean) and not self.heard.remembers

    def _mean(self, rows: Tensor, exchange: Exchange) -> Tensor:
        mean = self.fleet.mean(rows, exchange.kind, exchange.weights)
        if self.memory.counts_absent:
            mean = mean * (float(exchange.weights.sum()) * self.fleet.weight / exchange.trained)
        return mean

    def _rows(self, vectors: dict[int, Tensor], width: int) -> Tensor:
        """One row for each hosted worker; zeros of those that take no part, which nobody reads."""
        rows = torch.zeros(len(self.fleet.hosted), width, device=self._device)
        for row, vector in vectors.items():
            rows[row] = vector
        return rows

    def _name(self, row: int, exchange: Exchange) -> tuple[str | int, ...]:
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


def _diverged(what: str, step: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"{what} is not finite at step {step}; lower the learning rate or look at the data"
    )
