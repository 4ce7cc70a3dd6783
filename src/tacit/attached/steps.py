"""One worker's steps: gradients before the optimizer's step, models after it."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from tacit.attached.flat import FlatModel
from tacit.averaging import ModelAveraging
from tacit.fleet import AttendedFleet
from tacit.gradients import GradientExchange


class Steps:
    """What an attached worker does with the others in a step.

    ``fleet``: the workers that average models. ``inside``: those that average gradients, by
    ``exchange``: the same ones, or the processes of this worker's island; None where models
    alone are exchanged.
    """

    def __init__(
        self,
        flat: FlatModel,
        optimizer: Optimizer,
        fleet: AttendedFleet,
        averaging: ModelAveraging | None,
        inside: AttendedFleet | None,
        exchange: GradientExchange | None,
    ) -> None:
        self.flat, self.optimizer = flat, optimizer
        self.fleet, self.averaging = fleet, averaging
        self.inside, self.exchange = inside, exchange
        self.fleets = [fleet] if inside is None or inside is fleet else [inside, fleet]
        self._everyone = torch.ones(inside.size if inside else fleet.size, dtype=torch.bool)
        self.count = 0
        #: Steps that are whole: one in which the others could not be reached is not.
        self.finished = 0
        self.synchronisations = 0
        #: The optimizer is stepping with the others' gradient; its hooks have nothing to do.
        self.following = False

    def exchange_gradients(self, have: bool) -> bool:
        """Before the optimizer's step. ``have``: this worker has a gradient of its own. Whether
        there is a mean gradient to step with, now that of this worker's parameters."""
        if self.inside is None or self.exchange is None:
            return False
        self.inside.ledger.step = self.count + 1
        self.inside.has_gradient = have
        self.inside.aside = self.flat.read_gradients() * have
        if self.exchange.compression is not None:
            self.flat.read()  # what is sent may depend on the model
        anybody = self.exchange.step(self._everyone)
        if anybody:
            self.flat.write_gradients(self.inside.heard())
        return anybody

    def advance(self, learned: bool = False) -> None:
        """After the optimizer's step, or where it was skipped. ``learned``: it was a step on this
        worker's own data."""
        self._advance(learned)
        self.finished = self.count

    def _advance(self, learned: bool) -> None:
        self.count += 1
        for fleet in self.fleets:
            fleet.owes |= learned
        self.fleet.ledger.step = self.count
        if self.averaging is None:
            self.synchronisations += 1
            return
        averages_buffers = self.averaging.buffers == "average"
        self.flat.read()
        if averages_buffers:
            self.flat.read_buffers()
        self.fleet.gave = False
        arrived = self.averaging.step(self.count)
        self.fleet.owes &= not self.fleet.gave
        self.synchronisations += arrived
        if arrived or self.averaging.settled is not None:
            self.flat.write()
            if averages_buffers:
                self.flat.write_buffers()

    def advance_to(self, count: int) -> None:
        while self.count < count:
            self.advance()

    @property
    def exchanges(self) -> list[GradientExchange | ModelAveraging]:
        """In the order in which a step has them."""
        both = (self.exchange, self.averaging)
        return [exchange for exchange in both if exchange is not None]

    def last_word(self) -> None:
        """No more steps; those who go on without waiting hear what remains."""
        self.flat.read()
        self.flat.read_buffers()
        for exchange in self.exchanges:
            exchange.last_word()

    def follow(self) -> None:
        """A step without data of one's own, with the others' mean gradient if there is one."""
        if self.exchange_gradients(False):
            self.following = True
            try:
                self.optimizer.step()
            finally:
                self.following = False
            # the island has learned, and all its processes must say the same
            self.fleet.owes |= self.inside is not self.fleet
        self.advance()
