"""The model exchange: when its trigger says so, the workers' models are combined into one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tacit.aggregators import Aggregator, Mean, OuterOptimizer
from tacit.aggregators.mean import blame
from tacit.compression import Compression
from tacit.errors import TrainingDiverged
from tacit.fitting import Travels, check_parts
from tacit.fleet import Fleet, Pending, Settled
from tacit.late import Late
from tacit.optimizers import OptimizerRows
from tacit.replicas import Models
from tacit.saved_averaging import SavedAveraging
from tacit.setting import Setting
from tacit.topologies import Coordinated, Everyone, Peers, Topology
from tacit.triggers import Trigger


class ModelAveraging(SavedAveraging):
    """Averages models after a local step, as Algorithm 1 of the FDA paper does, from any parts.

    ``trigger``: when. ``aggregator`` and ``outer``: how. ``topology``: who takes part in a round.
    ``buffers``: floating-point buffers (batch-norm statistics) stay ``local``, as published, or
    ``average`` with the models. ``optimizer_state``: likewise for the local optimizers' moments.
    What travels is charged.

    Messages may travel beside the computation. ``lag``: the decision comes so many steps after
    the step that was checked (published: 0), and nothing is checked in between. ``overlap``: the
    models arrive so many steps after they left (published: 0). A worker then continues from the
    combined model plus what it has learned meanwhile, ``w <- mean + (w - w when it left)``.

    ``compression``: what travels of the models' changes since the last synchronisation; None: the
    models, dense. What was not sent is in its memory. Buffers and moments travel dense.

    A :class:`Coordinated` topology may average a part of the models, whose workers then go on from
    it; only what everybody gets is a synchronisation, and a new reference. Among :class:`Peers`
    there is no common model: each goes on from what the aggregator makes of those that it holds.
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
        overlap: int = 0,
        compression: Compression | None = None,
    ) -> None:
        topology = topology or Everyone()
        check_parts(
            trigger,
            aggregator,
            outer,
            topology,
            buffers,
            optimizer_state,
            lag,
            overlap,
            compression,
        )
        self.trigger = trigger
        self.aggregator = aggregator or Mean()
        self.outer = outer
        self.topology = topology
        self.buffers = buffers
        self.optimizer_state = optimizer_state
        self.lag = lag
        self.overlap = overlap
        self.compression = compression

    def start(
        self, fleet: Fleet, models: Models, optimizer: OptimizerRows, setting: Setting
    ) -> None:
        """Begin a run. All workers hold the same model, the first reference."""
        self.fleet, self.models, self.optimizer = fleet, models, optimizer
        for part in (self.trigger, self.aggregator, self.topology):
            part.start(setting)
        self.aggregator.check(self.topology.senders)
        #: The global model at the last synchronisation, ``(d,)``.
        self.reference = models.parameters[0].clone()
        if self.outer is not None:
            self.outer.start(self.reference)
        if self.compression is not None:
            self.compression.start(fleet, models, setting)
        self.rounds = 0
        self.participants = self.topology.participants(0)
        #: The last estimate of the trigger, or None where nothing was estimated at the last step.
        self.estimate: float | None = None
        #: The last conversation with a coordinator, or None where there was none at the last step.
        self.settled: Settled | None = None
        #: A check whose decision is to come, and models that have left.
        self._check: Late | None = None
        self._travelling: Late | None = None
        #: The hosted workers' models as they left, ``(L, d)``.
        self._left: Tensor | None = None

    # -- Algorithm 1

    def step(self, step: int) -> bool:
        """After local step ``step`` (1, 2, ...); says whether the models were synchronised."""
        self.estimate = self.settled = None
        if self._travelling is not None:
            return self._arrive(step)
        if not self._fires(step):
            return False
        if self.overlap:
            self._leave(step)
            return False
        if isinstance(self.topology, Coordinated):
            return self._coordinate(self.topology, step)
        if isinstance(self.topology, Peers):
            return self._mix(self.topology, step)
        model = self._combined_models()
        if not math.isfinite(float(model.sum())):
            raise TrainingDiverged(
                f"the mean of the models is not finite at step {step}; lower the learning rate"
            )
        self._synchronise(model)
        return True

    def _coordinate(self, topology: Coordinated, step: int) -> bool:
        models, d = self.models, len(self.reference)
        self.settled = settled = topology.meet(
            self.fleet, self._rows(), self.reference, self.trigger, self.aggregator, step
        )
        hosted = slice(self.fleet.hosted.start, self.fleet.hosted.stop)
        here = torch.from_numpy(settled.receivers()[hosted])
        if settled.combination is not None:
            models.parameters[here] = settled.combination[:d]
            if self._averages_buffers:
                models.buffers[here] = settled.combination[d:]
        if settled.whole:
            assert settled.combination is not None
            self._synchronise(settled.combination[:d])
        return settled.whole

    def _mix(self, topology: Peers, step: int) -> bool:
        models, d = self.models, len(self.reference)
        mixed = topology.mix(self.fleet, self._rows(), self.aggregator, step)
        models.parameters[:] = mixed[:, :d]
        if self._averages_buffers:
            models.buffers[:] = mixed[:, d:]
        self.rounds += 1
        return True

    def introduce(self) -> None:
        """Before the first step of workers that do not wait for each other."""
        self.topology.introduce(self.fleet, self._rows(), "model")

    def last_word(self) -> None:
        """No more steps here: those who go on may need this model."""
        self.topology.last_word(self.fleet, self._rows(), "model")

    def _rows(self) -> Tensor:
        """The models, and behind them what travels with them."""
        if not self._averages_buffers:
            return self.models.parameters
        return torch.cat([self.models.parameters, self.models.buffers], dim=1)

    def _fires(self, step: int) -> bool:
        if self._check is not None:
            if step < self._check.due:
                return False
            if self._decide(self._check.message, step):
                self.fleet.roll_call()
                self._check = None
                return True
            self._check = None
        if not self.trigger.due(step):
            return False
        if not self._checks_by_mean:
            self.fleet.roll_call()
        if not self.trigger.monitors:
            return True
        state = self.trigger.local_state(self.models.parameters, self.reference)
        message = self.trigger.decision.combine_later(
            self.fleet, state, "monitoring", self.participants, self.lag
        )
        if self.lag:
            self._check = Late(step + self.lag, message)
            return False
        return self._decide(message, step, state)

    def _decide(self, message: Pending, step: int, state: Tensor | None = None) -> bool:
        self.estimate = self.trigger.estimate(message.wait())
        if not math.isfinite(self.estimate):
            if state is not None:
                blame(self.fleet, state, "monitoring")
            raise TrainingDiverged(
                f"the trigger's estimate is {self.estimate} at step {step}: a worker's model is no "
                "longer finite; lower the learning rate"
            )
        return self.trigger.fires(self.estimate)

    def _leave(self, step: int) -> None:
        self._left = self.models.parameters.clone()
        message = self.aggregator.combine_later(
            self.fleet, self._left, "model", self.participants, self.overlap
        )
        self._travelling = Late(step + self.overlap, message)

    def _arrive(self, step: int) -> bool:
        assert self._travelling is not None
        assert self._left is not None
        if step < self._travelling.due:
            return False
        if self._more_than_models:
            self.fleet.roll_call()
        learned = self.models.parameters - self._left
        self._synchronise(self._travelling.message.wait())
        self.models.parameters += learned
        self._travelling = self._left = None
        return True

    def _synchronise(self, model: Tensor) -> None:
        if self.outer is not None:
            model = self.outer.step(self.reference, model)
        self.models.parameters[:] = model
        self.trigger.synchronised(model - self.reference)
        self.reference = model
        if self._averages_buffers and not self.topology.coordinated:
            self.models.buffers[:] = self._combined(self.models.buffers)
        if self.optimizer_state == "average":
            self._average_optimizer_state()
        self.rounds += 1
        self.participants = self.topology.participants(self.rounds)

    def _combined_models(self) -> Tensor:
        if self.compression is None:
            return self._combined(self.models.parameters)
        drifts = self.models.parameters - self.reference
        drift = self.compression.combine(drifts, "model", self.participants, self.aggregator)
        return self.reference + drift

    def _combined(self, rows: Tensor) -> Tensor:
        return self.aggregator.combine(self.fleet, rows, "model", self.participants)

    def _average_optimizer_state(self) -> None:
        rows = self.optimizer.rows()
        for tensor in rows:
            tensor[:] = self._combined(tensor)
        self.optimizer.set_rows(rows)

    @property
    def _averages_buffers(self) -> bool:
        return self.buffers == "average" and self.models.buffers.numel() > 0

    @property
    def _more_than_models(self) -> bool:
        return self._averages_buffers or self.optimizer_state == "average"

    def next_message(self, step: int) -> tuple[int, int]:
        """The first step after ``step`` at which a message leaves, and how many columns the first
        one has (a roll call: none). Workers that have nothing to train on learn from it when they
        are expected."""
        if self._travelling is not None:
            if self._more_than_models:
                return max(step + 1, self._travelling.due), 0
            step = max(step, self._travelling.due)
        elif self._check is not None:
            step = max(step, self._check.due - 1)
            if self.trigger.fires(self.trigger.estimate(self._check.message.wait())):
                return step + 1, 0
        columns = self._state_size() if self._checks_by_mean else 0
        return self.trigger.next_due(step), columns

    @property
    def _checks_by_mean(self) -> bool:
        """Whether a check is a mean, which carries who takes part; else a roll call comes first."""
        return self.trigger.monitors and not self.trigger.decision.gathers


def consensus(fleet: Fleet, rows: Tensor, participants: Tensor | None = None) -> Tensor:
    """The mean of the participants' models (or buffers), ``(d,)``: what is evaluated and saved.

    Charged as evaluation, which is no cost of the method.
    """
    weights = None if participants is None else participants.to(torch.float64)
    return fleet.mean(rows, "evaluation", weights)
