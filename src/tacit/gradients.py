"""The gradient exchange: the workers' gradients are combined before the local optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit.aggregators import Aggregator, Mean, refuse_peer_rule
from tacit.compression import Compression
from tacit.errors import UserError
from tacit.fleet import Fleet, Kind
from tacit.replicas import Models
from tacit.setting import Setting
from tacit.topologies import Everyone, Peers, Topology


class GradientExchange:
    """Replaces every worker's gradient by the combination of all: synchronous SGD.

    With equal optimizers on all workers the models stay equal, as in PyTorch's
    DistributedDataParallel. ``compression``: what travels; None: the gradients, dense.
    ``topology``: whose gradients count at a step; all get the result. Among :class:`Peers` each
    worker has its own, of the gradients it holds. ``charged``: False where the
    exchange stands for something else than communication, and is recorded alone.
    Raises UserError for EF21 with an aggregator that is no mean, unless receivers keep what they
    hear of each worker (Byz-EF21), and for a rule among peers where there is a server.
    """

    def __init__(
        self,
        aggregator: Aggregator | None = None,
        compression: Compression | None = None,
        topology: Topology | None = None,
        charged: bool = True,
    ) -> None:
        self.aggregator = aggregator or Mean()
        adds_up = (
            compression is not None
            and compression.memory.counts_absent
            and not compression.heard.remembers
        )
        if adds_up and not isinstance(self.aggregator, Mean):
            raise UserError(
                "EF21 adds up the workers' changes, which needs a mean of them; for another "
                "aggregator take byz_ef21"
            )
        if compression is not None and isinstance(topology, Peers):
            raise UserError("gradients among peers travel dense; leave out the compression")
        if not isinstance(topology, Peers):
            refuse_peer_rule(aggregator, "gradients combined on a server")
        self.compression = compression
        self.topology = topology or Everyone()
        self.charged = charged

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        """Begin a run."""
        self.fleet, self.models = fleet, models
        self.aggregator.start(setting)
        self.topology.start(setting)
        self.aggregator.check(self.topology.senders)
        if self.compression is not None:
            self.compression.start(fleet, models, setting)

    def check(self, optimizer: Optimizer) -> None:
        """Raise UserError for a local optimizer that does not go with this."""
        if self.compression is not None:
            self.compression.check(optimizer)

    def step(self, present: Tensor) -> bool:
        """Between the backward pass and the local optimizer step. ``present``: the workers that
        have a gradient, ``(K,)`` bool. Whether anybody had one; else there is nothing to step with.
        """
        gradients = self.models.gradients
        participants = present & self.topology.participants(self.fleet.ledger.step)
        kind: Kind = "gradient" if self.charged else "evaluation"
        if isinstance(self.topology, Peers):
            if not self.fleet.takes_part(kind):
                gradients.zero_()  # the others wait for a message
            gradients[:] = self.topology.mix(
                self.fleet, gradients, self.aggregator, self.fleet.ledger.step, kind
            )
            return True
        if self._reduces:
            gradients[:] = self.aggregator.combine(self.fleet, gradients, kind, participants)
            return self.fleet.weight > 0
        # what is gathered does not say who is away, and what it is away for, before it is there
        self.fleet.roll_call(kind)
        if self.fleet.weight == 0:
            return False
        if self.compression is None:
            gradients[:] = self.aggregator.combine(self.fleet, gradients, kind, participants)
        else:
            gradients[:] = self.compression.combine(gradients, kind, participants, self.aggregator)
        return True

    def introduce(self) -> None:
        """Before the first step of workers that do not wait for each other."""
        self.topology.introduce(self.fleet, self.models.gradients, "gradient")

    def last_word(self) -> None:
        """No more steps here: to those who go on this worker's gradients are zero."""
        self.topology.last_word(self.fleet, torch.zeros_like(self.models.gradients), "gradient")

    @property
    def first_message(self) -> int:
        """How many columns the first message of a step has (a roll call: none)."""
        return self.models.gradients.shape[1] if self._reduces else 0

    @property
    def _reduces(self) -> bool:
        """Whether gradients travel in a mean, which carries who takes part."""
        return self.compression is None and not self.aggregator.gathers

    @property
    def warms_up(self) -> bool:
        """Whether the first epochs send more."""
        densities = None if self.compression is None else self.compression.densities
        return densities is not None and bool(densities.warmup)

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What all workers share. What belongs to one worker is in :meth:`worker_state`."""
        return {} if self.compression is None else self.compression.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.topology.load_state_dict({})  # none of those for gradients has anything to save
        if self.compression is not None:
            self.compression.load_state_dict(state)

    def worker_state(self, row: int) -> dict[str, Any]:
        return {} if self.compression is None else self.compression.worker_state(row)

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        if self.compression is not None:
            self.compression.load_worker_state(row, state)

    def take_over(self, shared: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:
        """Go on from the state of another number of workers."""
        if self.compression is not None:
            self.compression.take_over(shared, workers)
