"""The model exchange: when its trigger says so, the workers' models are combined into one."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from tacit.aggregators import Aggregator, Mean, OuterOptimizer
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import Fleet, Pending, Ready
from tacit.optimizers import LocalOptimizer
from tacit.replicas import Replicas
from tacit.setting import Setting
from tacit.topologies import Everyone, Topology
from tacit.triggers import Trigger

Travels = Literal["local", "average"]


class ModelAveraging:
    """Averages models after a local step, as Algorithm 1 of the FDA paper does, from any parts.

    ``trigger``: when. ``aggregator`` and ``outer``: how. ``topology``: who takes part in a round.
    ``buffers``: floating-point buffers (batch-norm statistics) stay ``local``, as published, or
    ``average`` with the models. ``optimizer_state``: likewise for the local optimizers' moments.
    What travels is charged. ``lag``: 0 decides at the step that was checked (published); 1 decides
    one step later, so that the monitoring message travels during the next step's computation.
    """

    def __init__(
        self,
        trigger: Trigger,
        aggregator: Aggregator | None = None,
        outer: OuterOptimizer | None = None,
        topology: Topology | None = None,
        buffers: Travels = "local",
        optimizer_state: Travels = "local",
        lag: int = 0,
    ) -> None:
        for name, value in (("buffers", buffers), ("optimizer_state", optimizer_state)):
            if value not in ("local", "average"):
                raise UserError(f"{name} must be local or average, not {value!r}")
        if lag not in (0, 1):
            raise UserError(f"the decision may lag 0 or 1 steps, not {lag}")
        if optimizer_state == "average" and topology is not None and topology.partial:
            raise UserError(
                "optimizer_state='average' needs every worker in every round: a worker that was "
                "never sampled has no state; leave it local"
            )
        self.trigger = trigger
        self.aggregator = aggregator or Mean()
        self.outer = outer
        self.topology = topology or Everyone()
        self.buffers = buffers
        self.optimizer_state = optimizer_state
        self.lag = lag

    def start(
        self, fleet: Fleet, replicas: Replicas, optimizer: LocalOptimizer, setting: Setting
    ) -> None:
        """Begin a run. All workers hold the same model, the first reference."""
        self.fleet, self.replicas, self.optimizer = fleet, replicas, optimizer
        for part in (self.trigger, self.aggregator, self.topology):
            part.start(setting)
        #: The global model at the last synchronisation, ``(d,)``.
        self.reference = replicas.parameters[0].clone()
        if self.outer is not None:
            self.outer.start(self.reference)
        self.rounds = 0
        self.participants = self.topology.participants(0)
        #: The last estimate of the trigger, or None where nothing was estimated at the last step.
        self.estimate: float | None = None
        self._pending: Pending | None = None

    # -- Algorithm 1

    def step(self, step: int) -> bool:
        """After local step ``step`` (1, 2, ...); says whether the models were synchronised."""
        fired = self._fires(step)
        if fired:
            self._synchronise()
        return fired

    def _fires(self, step: int) -> bool:
        self.estimate = None
        late, self._pending = self._pending, None
        if late is not None and self._decide(late, step):
            return True
        if not self.trigger.due(step):
            return False
        if not self.trigger.monitors:
            return True
        state = self.trigger.local_state(self.replicas.parameters, self.reference)
        weights = None if self.participants.all() else self.participants
        message = self.fleet.mean_later(state, "monitoring", weights, overlapped=self.lag > 0)
        if self.lag:
            self._pending = message
            return False
        return self._decide(message, step)

    def _decide(self, message: Pending, step: int) -> bool:
        self.estimate = self.trigger.estimate(message.wait())
        if not math.isfinite(self.estimate):
            raise TrainingDiverged(
                f"the trigger's estimate is {self.estimate} at step {step}: a worker's model is no "
                "longer finite; lower the learning rate"
            )
        return self.trigger.fires(self.estimate)

    def _synchronise(self) -> None:
        model = self._combined(self.replicas.parameters)
        if self.outer is not None:
            model = self.outer.step(self.reference, model)
        self.replicas.parameters[:] = model
        self.trigger.synchronised(model - self.reference)
        self.reference = model
        if self.buffers == "average" and self.replicas.buffers.numel():
            self.replicas.buffers[:] = self._combined(self.replicas.buffers)
        if self.optimizer_state == "average":
            self._average_optimizer_state()
        self.rounds += 1
        self.participants = self.topology.participants(self.rounds)

    def _combined(self, rows: Tensor) -> Tensor:
        return self.aggregator.combine(self.fleet, rows, "model", self.participants)

    def _average_optimizer_state(self) -> None:
        rows = self.optimizer.rows()
        for tensor in rows:
            tensor[:] = self._combined(tensor)
        self.optimizer.set_rows(rows)

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What all workers share. What belongs to one worker is in ``Replicas``."""
        pending = self._pending.wait() if self._pending is not None else None
        if pending is not None:
            self._pending = Ready(pending)
        return {
            "reference": self.reference,
            "rounds": self.rounds,
            "pending": pending,
            "trigger": self.trigger.state_dict(),
            "outer": self.outer.state_dict() if self.outer is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reference = state["reference"].to(self.reference.device)
        self.rounds = state["rounds"]
        self.participants = self.topology.participants(self.rounds)
        pending = state["pending"]
        self._pending = Ready(pending.to(self.reference.device)) if pending is not None else None
        self.trigger.load_state_dict(state["trigger"])
        if self.outer is not None:
            self.outer.load_state_dict(state["outer"])


def consensus(fleet: Fleet, rows: Tensor, participants: Tensor | None = None) -> Tensor:
    """The mean of the participants' models (or buffers), ``(d,)``: what is evaluated and saved.

    Charged as evaluation, which is no cost of the method.
    """
    weights = None if participants is None else participants.to(torch.float64)
    return fleet.mean(rows, "evaluation", weights)
