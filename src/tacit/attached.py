"""A training loop whose model is attached to those of other workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tacit.errors import PeerLost, UserError
from tacit.failures import say_ranks, survivors, undisturbed
from tacit.flat import FlatModel
from tacit.fleet import AttendedFleet, Kind
from tacit.fleet.attended import Purpose
from tacit.gradients import GradientExchange
from tacit.keeping import Keeper
from tacit.recipes import Recipe


class Attached:
    """What :func:`tacit.attach` returns. Its methods are for all workers to call, at any step
    each: who comes first waits for the others, and serves their exchanges meanwhile.

    ``steps``: optimizer steps so far, skipped ones included. ``synchronisations``: exchanges of a
    whole model or gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        flat: FlatModel,
        optimizer: Optimizer,
        recipe: Recipe,
        exchange: GradientExchange | None,
        fleet: AttendedFleet,
        inside: AttendedFleet | None,
        keeper: Keeper,
        token: str,
    ) -> None:
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.fleet = fleet
        self.steps = 0
        self.synchronisations = 0
        self._flat, self._keeper, self._token = flat, keeper, token
        self._exchange, self._averaging = exchange, recipe.averaging
        #: The workers that average gradients: all, or those of this island.
        self._inside = inside
        self._fleets = [fleet] if inside in (None, fleet) else [inside, fleet]
        self._everyone = torch.ones(inside.size if inside else fleet.size, dtype=torch.bool)
        self._following = self._stepped = False
        self._began = time.perf_counter()
        hooks = (optimizer.register_step_pre_hook, optimizer.register_step_post_hook)
        calls = (self._before, self._after)
        self._undo: list[Callable[[], Any]] = [
            hook(call).remove for hook, call in zip(hooks, calls, strict=True)
        ]

    # -- a step

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._following and self._inside is not None:
            with self._failing():
                # a fused optimizer is called even when the GradScaler found an overflow
                overflow = getattr(optimizer, "found_inf", None)
                if self._exchange_gradients(not bool(overflow)) and overflow is not None:
                    overflow.zero_()

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped = True
        if not self._following:
            with self._failing():
                self._advance(learned=True)

    def _exchange_gradients(self, have: bool) -> bool:
        """Whether there is a mean gradient to step with, now that of this worker's parameters."""
        assert self._exchange is not None
        assert self._inside is not None
        self._inside.ledger.step = self.steps + 1
        self._inside.has_gradient = have
        self._inside.aside = self._flat.read_gradients() * have
        self._exchange.step(self._everyone)
        if self._inside.weight > 0:
            self._flat.write_gradients(self._inside.heard())
        return self._inside.weight > 0

    def _advance(self, learned: bool = False) -> None:
        """After the optimizer's step, or where it was skipped."""
        self.steps += 1
        for fleet in self._fleets:
            fleet.owes |= learned
        self.fleet.ledger.step = self.steps
        if self._averaging is None:
            self.synchronisations += 1
            return
        self._flat.read()
        if self._averaging.buffers == "average":
            self._flat.read_buffers()
        self.fleet.gave = False
        arrived = self._averaging.step(self.steps)
        self.fleet.owes &= not self.fleet.gave
        if arrived:
            self.synchronisations += 1
            self._flat.write()
            if self._averaging.buffers == "average":
                self._flat.write_buffers()

    def watch(self, scaler: Any) -> None:
        """Take part in the exchange also at steps that this GradScaler skips."""
        original = scaler.step

        def step(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if optimizer is not self.optimizer:
                return original(optimizer, *args, **kwargs)
            if self._inside is not None and scaler.is_enabled():
                with contextlib.suppress(RuntimeError):  # they are unscaled already
                    scaler.unscale_(optimizer)
            self._stepped = False
            result = original(optimizer, *args, **kwargs)
            if not self._stepped:
                with self._failing():
                    if self._inside is not None and self._exchange_gradients(False):
                        self._follow()
                    self._advance()
            return result

        scaler.step = step
        self._undo.append(lambda: delattr(scaler, "step"))

    def _follow(self) -> None:
        """Step with the others' mean gradient."""
        self._following = True
        try:
            self.optimizer.step()
        finally:
            self._following = False

    # -- meeting the others

    def _meet(self, purpose: Purpose) -> Purpose:
        """Wait for all workers, taking part in the exchanges of those that still train. What they
        have met for, which may be more urgent than this worker's purpose."""
        met: Purpose = purpose
        if self._inside is not None:
            met = self._meet_inside(self._inside, purpose)
        if self._averaging is None:
            return met
        fleet, averaging = self.fleet, self._averaging
        fleet.purpose = met
        while True:
            step, width = averaging.next_message(self.steps)
            fleet.ledger.step = step
            if not fleet.answer(width, "monitoring" if width else "control"):
                break
            self._advance_to(step)
        met = fleet.met_for
        fleet.ledger.step = self.steps
        latest = fleet.max(torch.tensor([[self.steps]], device=fleet.device), "control")
        self._advance_to(int(latest))  # steps without messages, that others have taken
        return met

    def _meet_inside(self, inside: AttendedFleet, purpose: Purpose) -> Purpose:
        inside.purpose = purpose
        while True:
            inside.ledger.step = self.steps + 1
            inside.aside = torch.zeros(len(self._flat.trained), device=inside.device)
            if not inside.answer(self._flat.d, "gradient"):
                break
            if self._exchange_gradients(False):
                self._follow()
            self._advance()
            inside.owes = False
        met = inside.met_for
        inside.ledger.step = self.steps
        if inside.absences:
            # a follower's optimizer may have had another learning rate
            self._flat.read()
            self._flat.parameters[0] = inside.mean(self._flat.parameters, "model")
            self._flat.write()
            inside.owes, inside.absences = True, False
        return met

    def _advance_to(self, step: int) -> None:
        while self.steps < step:
            self._advance()

    def _serve(self, purpose: Purpose) -> tuple[Tensor, Tensor] | None:
        """Meet, and do what others have come for, until it is this worker's turn. For those who
        look or finish, the consensus model and buffers."""
        self._check_open()
        met, means = None, None
        with self._failing(), torch.no_grad():
            while met != purpose:
                met = self._meet(purpose)
                if met == "save":
                    self._keeper.save(self.steps, self.synchronisations)
                else:
                    means = self._means("model" if met == "finish" else "evaluation")
        for fleet in self._fleets:
            fleet.purpose = None
        return means

    def _means(self, kind: Kind) -> tuple[Tensor, Tensor]:
        self._flat.read()
        self._flat.read_buffers()
        parameters, buffers = self._flat.parameters, self._flat.buffers
        if self._averaging is not None:
            parameters = self._mean(self.fleet, parameters, kind)
        for fleet in self._fleets:
            buffers = self._mean(fleet, buffers, kind)
        return parameters[0].clone(), buffers[0].clone()

    @staticmethod
    def _mean(fleet: AttendedFleet, rows: Tensor, kind: Kind) -> Tensor:
        """Of those who have learned something since the last average; if nobody has, of all."""
        if not rows.numel():
            return rows
        mean = fleet.mean(rows, kind)
        if fleet.weight == 0:
            owes, fleet.owes = fleet.owes, True
            mean = fleet.mean(rows, kind)
            fleet.owes = owes
        return mean[None]

    @contextlib.contextmanager
    def consensus(self) -> Iterator[nn.Module]:
        """The model with the mean of all workers' parameters and floating-point buffers, to
        evaluate or save; this worker's own come back afterwards. Charged as evaluation."""
        means = self._serve("look")
        assert means is not None
        own = self._flat.parameters[0].clone(), self._flat.buffers[0].clone()
        self._show(*means)
        try:
            yield self.model
        finally:
            self._show(*own)

    def _show(self, parameters: Tensor, buffers: Tensor) -> None:
        self._flat.parameters[0] = parameters
        self._flat.write()
        self._flat.buffers[0] = buffers
        self._flat.write_buffers()

    def save(self) -> None:
        """Write a checkpoint to the folder that :func:`tacit.attach` was given. Best after the
        learning-rate scheduler has stepped, so that it is saved at the same step."""
        self._serve("save")

    def finish(self) -> None:
        """Wait for workers that have more data, take over the consensus model, and detach."""
        means = self._serve("finish")
        assert means is not None
        self._show(*means)
        self.detach()

    def detach(self) -> None:
        """Undo what attaching did, without a word to the others."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._flat.restore()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._undo:
            self.finish()
        else:
            self.detach()

    # -- looking

    def stats(self) -> dict[str, Any]:
        """Steps, synchronisations, bytes by kind (sent and received, all workers together), bytes
        on the wire where there is no coordinator, seconds since attaching, and how many of them
        this process waited for others."""
        ledger = self.fleet.ledger
        stats: dict[str, Any] = {
            "steps": self.steps,
            "synchronisations": self.synchronisations,
            "bytes": ledger.by_kind(),
            "ring_bytes": ledger.ring_bytes(),
            "seconds": time.perf_counter() - self._began,
            "waited_seconds": sum(fleet.waited for fleet in self._fleets),
        }
        for fleet in self._fleets[:-1]:
            stats["island_bytes"] = fleet.ledger.by_kind()
        return stats

    def state_dict(self) -> dict[str, Any]:
        """Everything, as a tree: ``shared`` is equal in all processes, ``worker`` has one key, this
        worker's number. For ``torch.distributed.checkpoint`` and the like."""
        self._check_open()
        return self._keeper.state_dict(self.steps, self.synchronisations)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave, in a run with as many workers."""
        self.steps, self.synchronisations = self._keeper.load_state_dict(state)

    # -- failure

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except PeerLost as error:
            with undisturbed():
                raise PeerLost(self._obituary(error)) from error

    def _obituary(self, error: PeerLost) -> str:
        """Who is gone. Leaves a checkpoint."""
        ranks = dist.get_process_group_ranks(self.fleet.group or dist.group.WORLD)
        alive = survivors(self._token, ranks, self.steps)
        gone = [rank for rank in ranks if rank not in alive]
        workers = [ranks.index(rank) for rank in sorted(alive)]
        left = self._keeper.save_remains(max(alive.values()), self.synchronisations, workers)
        saved = f"; what is left is saved in {left}" if left is not None else ""
        who = f"{say_ranks(gone)} of {len(ranks)} did not answer" if gone else str(error)
        return f"{who} at step {self.steps} or after{saved}; start the job again to go on"

    def _check_open(self) -> None:
        if not self._undo:
            raise UserError("this model is no longer attached")
