"""Training K workers on one task with one recipe: the same loop in one process or in many.

For example::

    for evaluation in Simulation(task, tacit.fda(theta=1.0), LocalFleet(10)).run(steps=500):
        print(evaluation.step, evaluation.accuracy, evaluation.bytes)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tacit import rng
from tacit.aggregators import Aggregator, PeerRule
from tacit.attacks import Liars
from tacit.averaging import consensus
from tacit.errors import UserError
from tacit.evaluation import Evaluation, examine
from tacit.fleet import Fleet, Kind, Link, predicted_seconds
from tacit.journal import Journal
from tacit.optimizers import LocalOptimizer, OptimizerFactory, SchedulerFactory
from tacit.recipes import Recipe
from tacit.replicas import Replicas
from tacit.saved import SavedSimulation
from tacit.setting import Setting
from tacit.tasks.batches import Order
from tacit.tasks.feed import feed_of
from tacit.tasks.task import Task, parameter_groups
from tacit.topologies import Peers
from tacit.training import Execution, LocalTraining

#: Rounds of a stream without end that are run if nothing else is said, and between evaluations.
_ENDLESS = 2000
_STREAM_EVERY = 100


class Simulation(SavedSimulation):
    """A run: the hosted workers' models, data and optimizers, and the recipe that joins them.

    ``partition``: how the training data is split, as on the command line (``iid``, ``sorted:0.6``,
    ``label:0``, ``dirichlet:0.5``, ...). ``order``: ``shuffle`` or ``resample``, see ``Batches``.
    ``optimizer``: overrides the task's; a recipe's own comes first. ``link``: of the virtual clock.
    ``noise``: standard deviation of what is added to every worker's first model, each its own;
    where gradients are exchanged there is one model, and none is.
    ``liars``: the workers that lie, for tests of what that does; the data is split over the others.
    A task that is a stream gives every worker fresh samples; it is not partitioned.
    Raises UserError where the pieces do not fit, TrainingDiverged when a loss is not finite.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        fleet: Fleet,
        *,
        seed: int = 0,
        partition: str = "iid",
        batch_size: int | None = None,
        order: Order = "shuffle",
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        execution: Execution = "auto",
        device: torch.device | str = "cpu",
        link: Link | None = None,
        noise: float = 0.0,
        liars: Liars | None = None,
    ) -> None:
        self.task, self.recipe, self.fleet, self.link = task, recipe, fleet, link
        batch_size = batch_size or task.batch_size
        _keep_freed_memory()
        self.stream = task.stream(fleet.size, batch_size, seed) if task.stream else None
        if self.stream is not None and liars is not None:
            raise UserError(f"{task.name} is a stream, where no worker can lie; leave out liars")
        if liars is not None:
            liars.check(fleet.size)
        self.liars, honest = liars, fleet.size - (liars.count if liars is not None else 0)
        learners = range(min(fleet.hosted.start, honest), min(fleet.hosted.stop, honest))
        feed, samples = feed_of(
            task, self.stream, partition, honest, learners, batch_size, seed, order
        )
        # a liar says that it has as much as others
        samples += [sum(samples) // honest] * (fleet.size - honest)
        with rng.scoped(seed, "model"):
            module = task.model()
        self.replicas = Replicas(
            module, len(fleet.hosted), parameter_groups(task, module), device=device
        )
        averaging = recipe.averaging
        partial = averaging is not None and averaging.topology.partial
        self.optimizer = LocalOptimizer(
            self.replicas,
            recipe.optimizer or optimizer or task.optimizer,
            scheduler,
            together=False if partial else None,
        )
        if recipe.gradients is not None and self.optimizer.evaluates_loss:
            raise UserError(
                f"recipe {recipe.name} exchanges gradients, which this optimizer evaluates by "
                "itself; use a recipe that averages models, or another optimizer"
            )
        if recipe.gradients is not None:
            recipe.gradients.check(self.optimizer.optimizers[0])
        if execution == "auto" and partial:
            execution = "loop"  # a batched pass takes all hosted workers, or none
        self.training = LocalTraining(
            task,
            self.replicas,
            self.optimizer,
            fleet.hosted,
            feed,
            seed,
            execution,
            device,
            fleet.deterministic,
            count=self.stream is not None,
        )
        #: Steps in which all workers together see as many samples as there are; rarely whole. Of a
        #: stream, all its rounds; of one without end, so many.
        self.steps_per_epoch = len(task.train) / (honest * batch_size)
        if self.stream is not None:
            self.steps_per_epoch = float(self.stream.rounds or _ENDLESS)
        self.setting = Setting(
            workers=fleet.size,
            d=self.replicas.d,
            seed=seed,
            steps_per_epoch=self.steps_per_epoch,
            device=torch.device(device),
            samples=torch.tensor(samples),
            rates=torch.tensor(self.stream.sizes) if self.stream is not None else None,
            shapes=self.replicas.shapes,
        )
        #: Who trains and is evaluated, ``(K,)`` bool.
        self.honest = torch.arange(fleet.size) < honest
        if liars is not None:
            _start_liars(liars, recipe, self.setting)
        fleet.voice = liars
        if recipe.gradients is not None:
            recipe.gradients.start(fleet, self.replicas, self.setting)
        if averaging is not None:
            averaging.start(fleet, self.replicas, self.optimizer, self.setting)
        if noise and recipe.gradients is None:
            self.replicas.scatter(noise, seed, fleet.hosted)
        if self.stream is not None and recipe.gradients is not None and recipe.gradients.warms_up:
            raise UserError("a warm-up counts epochs, which a stream has not; leave out warmup")
        self._everyone = torch.ones(fleet.size, dtype=torch.bool)
        self.steps = 0
        self.synchronisations = 0
        self._compute_seconds = 0.0
        self._seconds = 0.0
        self.journal = Journal(fleet, self.stream)

    # -- the loop

    def run(
        self,
        steps: int,
        evaluate_every: int | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> Iterator[Evaluation]:
        """Train up to step ``steps``, yielding an evaluation after each epoch (of a stream, 100
        rounds; or ``evaluate_every`` steps) and at the end. ``on_step`` is called after each step
        and its evaluation: checkpoints belong there."""
        if evaluate_every is not None and evaluate_every < 1:
            raise UserError(f"evaluate_every must be at least 1 step, got {evaluate_every}")
        if self.stream is not None and steps > (self.stream.rounds or steps):
            raise UserError(
                f"{steps} steps are more than the {self.stream.rounds} rounds of this stream; run "
                "fewer, or take smaller batches"
            )
        while self.steps < steps:
            self.step()
            if self._due(evaluate_every) or self.steps == steps:
                yield self.evaluate()
            if on_step is not None:
                on_step()

    def step(self) -> bool:
        """One step of all workers; says whether whole models or gradients were exchanged."""
        began = time.perf_counter()
        self.steps += 1
        self.fleet.ledger.step = self.steps
        recipe, hosted = self.recipe, self.fleet.hosted
        participants = recipe.averaging.participants if recipe.averaging else self._everyone
        here = (participants & self.honest)[hosted.start : hosted.stop].tolist()
        active = [row for row, taking_part in enumerate(here) if taking_part]
        if self.liars is not None and self.liars.needs_flipped:
            self.liars.flipped = self.training.flipped(active)
            self.liars.rate = self.optimizer.rate

        losses = self.training.gradients(active, self.steps) if active else torch.zeros(0)
        backward = time.perf_counter()
        if recipe.gradients is not None:
            recipe.gradients.step(participants)
        exchanged = time.perf_counter()
        self.training.step(active)
        stepped = time.perf_counter()
        fired = recipe.averaging.step(self.steps) if recipe.averaging is not None else False

        exchanged_gradients = recipe.gradients is not None and recipe.gradients.charged
        synchronised = fired or exchanged_gradients
        self.synchronisations += synchronised
        self.journal.note(self.steps, losses, self.training.mistakes, recipe.averaging, fired)
        computed = (backward - began) + (stepped - exchanged)
        self._compute_seconds += computed / max(1, len(active))
        self._seconds += time.perf_counter() - began
        return synchronised

    def _due(self, every: int | None) -> bool:
        if every is not None:
            return self.steps % every == 0
        if self.stream is not None:
            return self.steps % _STREAM_EVERY == 0
        # epochs are rarely whole numbers of steps: the remainder carries over
        epoch = self.steps_per_epoch
        return int(self.steps / epoch) > int((self.steps - 1) / epoch)

    # -- looking at the run

    def consensus(self) -> tuple[Tensor, Tensor]:
        """One model to look at: parameters ``(d,)`` and buffers ``(d_b,)``. The mean of the honest
        workers' models; on a real fleet, where nobody knows who lies, what the recipe's own rule
        makes of all, if it has a robust one. Among peers no worker need have this model."""
        averaging = self.recipe.averaging
        who = averaging.participants if averaging is not None else self._everyone
        who = who & self.honest
        rule = None if averaging is None or self.liars is not None else averaging.aggregator

        def combined(rows: Tensor) -> Tensor:
            if rule is None or not rule.gathers or isinstance(rule, PeerRule):
                return consensus(self.fleet, rows, who)
            return rule.combine(self.fleet, rows, "evaluation", who)

        buffers = self.replicas.buffers
        return combined(self.replicas.parameters), (
            combined(buffers) if buffers.numel() else buffers[0]
        )

    def evaluate(self) -> Evaluation:
        """Test the consensus model. Every process tests a part of the test data."""
        module = self.replicas.show(*self.consensus())
        test = self.task.test if self.stream is None else self.stream.test(max(0, self.steps - 1))
        count, hosted, size = len(test), self.fleet.hosted, self.fleet.size
        mine = range(count * hosted.start // size, count * hosted.stop // size)
        tested = examine(module, self.task, test, mine, self.training.device)
        sums = torch.tensor([*tested, *self.journal.losses], dtype=torch.float64)
        loss, correct, train_loss, batches = self.fleet.total(sums).tolist()
        step_seconds = self._compute_seconds / max(1, self.steps)
        averaging = self.recipe.averaging
        evaluation = Evaluation(
            step=self.steps,
            epoch=self.steps / self.steps_per_epoch,
            accuracy=correct / count,
            loss=loss / count,
            train_loss=train_loss / max(1.0, batches),
            synchronisations=self.synchronisations,
            bytes=self.fleet.ledger.by_kind(),
            ring_bytes=self.fleet.ledger.ring_bytes(),
            seconds=self._seconds,
            step_seconds=step_seconds,
            predicted_seconds=(
                predicted_seconds(self.fleet.ledger, self.link, self.steps, step_seconds)
                if self.link
                else None
            ),
            threshold=averaging.trigger.threshold if averaging is not None else None,
            checks=self.journal.checks,
            rounds=self.journal.rounds(),
            drifts=self.journal.drifts(self.steps),
            conversations=self.journal.conversations,
        )
        self.journal.begin(self.steps)
        return evaluation


def _start_liars(liars: Liars, recipe: Recipe, setting: Setting) -> None:
    rules: dict[Kind, Aggregator] = {}
    partial = any(
        p is not None and p.topology.partial for p in (recipe.gradients, recipe.averaging)
    )
    if recipe.gradients is not None:
        rules["gradient"] = recipe.gradients.aggregator
    if recipe.averaging is not None:
        rules["model"] = recipe.averaging.aggregator
        rules["monitoring"] = recipe.averaging.trigger.decision
    peers = recipe.averaging is not None and isinstance(recipe.averaging.topology, Peers)
    liars.start(setting, rules, peers, partial)


def _keep_freed_memory() -> None:
    """Make glibc keep the memory that each step frees and the next one needs again.

    Freeing one block of just under 32 MB raises malloc's thresholds (``man mallopt``,
    M_MMAP_THRESHOLD); otherwise a step costs hundreds of page faults, up to half of its time.
    """
    torch.empty(7_500_000)
