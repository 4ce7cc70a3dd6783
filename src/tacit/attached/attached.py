"""A training loop whose model is attached to those of other workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tacit.attached import meeting
from tacit.attached.failures import say_gone, survivors, undisturbed
from tacit.attached.keeping import Keeper
from tacit.attached.steps import Steps
from tacit.errors import PeerLost, UserError
from tacit.fleet import AttendedFleet, Kind
from tacit.fleet.attended import Purpose

#: The optimizers that are attached now.
ATTACHED: WeakSet[Optimizer] = WeakSet()


class Attached:
    """What :func:`tacit.attach` returns.

    ``consensus()``, ``save()`` and ``finish()`` are for all workers to call, though not at the same
    step: who comes first waits for the others, and serves their exchanges meanwhile.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Steps,
        keeper: Keeper,
        introductions: Sequence[Mapping[str, Any]],
    ) -> None:
        """``introductions``: what the workers have said of themselves."""
        self.model = model
        self._steps, self._keeper = steps, keeper
        self._token: str = introductions[0]["own token"]
        self._stepped = False
        self._began = time.perf_counter()
        if keeper.latest is not None:
            steps.count, steps.synchronisations = keeper.load()
        ATTACHED.add(steps.optimizer)
        self._undo: list[Callable[[], Any]] = [
            steps.optimizer.register_step_pre_hook(self._before).remove,
            steps.optimizer.register_step_post_hook(self._after).remove,
            lambda: ATTACHED.discard(steps.optimizer),
        ]

    @property
    def steps(self) -> int:
        """Optimizer steps so far, skipped ones included."""
        return self._steps.count

    @property
    def synchronisations(self) -> int:
        """Exchanges of whole models, or gradients, so far."""
        return self._steps.synchronisations

    @property
    def fleet(self) -> AttendedFleet:
        """The workers, and the ledger of what they have sent each other."""
        return self._steps.fleet

    # -- inside the user's loop

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if self._steps.following:
            return None
        self._steps.flat.check_complete(optimizer)
        if self._steps.inside is None:
            return None
        if getattr(optimizer, "grad_scale", None) is not None:
            raise UserError(
                "the gradients are still scaled, by each worker's own scale; "
                "say attach(..., scaler=scaler)"
            )
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._exchange(optimizer)
            return None

        def exchanging() -> Any:
            loss = closure()
            self._exchange(optimizer)
            return loss

        return (args[0], exchanging), {k: v for k, v in kwargs.items() if k != "closure"}

    def _exchange(self, optimizer: Optimizer) -> None:
        # a fused optimizer is called even when the GradScaler has found an overflow
        overflow = getattr(optimizer, "found_inf", None)
        with self._failing():
            if self._steps.exchange_gradients(not bool(overflow)) and overflow is not None:
                overflow.zero_()

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped = True
        if not self._steps.following:
            with self._failing():
                self._steps.advance(learned=True)

    def watch(self, scaler: Any) -> None:
        """Take part in the exchange also at steps that this GradScaler skips."""
        original, before = scaler.step, vars(scaler).get("step")

        def step(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if optimizer is not self._steps.optimizer or not self._undo:
                return original(optimizer, *args, **kwargs)
            if self._steps.inside is not None and scaler.is_enabled():
                with contextlib.suppress(RuntimeError):  # they are unscaled already
                    scaler.unscale_(optimizer)
            self._stepped = False
            result = original(optimizer, *args, **kwargs)
            if not self._stepped:
                with self._failing():
                    self._steps.follow()
            return result

        def undo() -> None:
            if vars(scaler).get("step") is step:
                del scaler.step
                if before is not None:
                    scaler.step = before

        scaler.step = step
        self._undo.append(undo)

    # -- together with the others

    def _serve(self, purpose: Purpose) -> tuple[Tensor, Tensor]:
        """Meet, and do what others have come for, until it is this worker's turn; the consensus
        parameters and buffers, for those who have come for them."""
        self._check_attached()
        if purpose == "save":
            self._keeper.folder_to_save_in()
        means = torch.empty(0), torch.empty(0)
        met: Purpose | None = None
        try:
            with self._failing():
                while met != purpose:
                    met = meeting.meet(self._steps, purpose)
                    if met == "save":
                        self._keeper.save(self.steps, self.synchronisations)
                    else:
                        kind: Kind = "model" if met == "finish" else "evaluation"
                        means = meeting.consensus(self._steps, kind)
        finally:
            meeting.part(self._steps)
        return means

    def _check_attached(self) -> None:
        if not self._undo:
            raise UserError("this model is no longer attached")

    @contextlib.contextmanager
    def consensus(self) -> Iterator[nn.Module]:
        """The model with the mean of the workers' parameters and floating-point buffers (of those
        workers that have learned something since the last average), to evaluate or save; where the
        recipe has another aggregator, with what that makes of all workers'. This worker's own come
        back afterwards. Charged as evaluation."""
        with self._steps.flat.showing(*self._serve("look")):
            yield self.model

    def save(self) -> None:
        """Write a checkpoint to the folder that :func:`tacit.attach` was given. Best after the
        learning-rate scheduler has stepped, so that it is saved at the same step."""
        self._serve("save")

    def finish(self) -> None:
        """Wait for workers that have more data, take over the consensus model, and detach. (Among
        peers nobody waits: see ``AttachedPeer``.)"""
        self._steps.flat.show(*self._serve("finish"))
        self.detach()
        for fleet in self._steps.fleets:
            fleet.linger()

    def detach(self) -> None:
        """Undo what attaching did, without a word to the others."""
        for undo in self._undo:
            undo()
        self._undo = []
        self._steps.flat.restore()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._undo:
            self.finish()
        else:
            self.detach()

    # -- looking

    def stats(self) -> dict[str, Any]:
        """Steps, synchronisations, bytes by kind (sent and received, all workers together; among
        peers as if none of them were gone), bytes
        on the wire where there is no coordinator, seconds since attaching, and how many of them
        this process waited for others; of a compressed exchange, how often messages would have been
        longer than the vectors, which travelled instead (``given_up``)."""
        ledger = self.fleet.ledger
        stats: dict[str, Any] = {
            "steps": self.steps,
            "synchronisations": self.synchronisations,
            "bytes": ledger.by_kind(),
            "ring_bytes": ledger.ring_bytes(),
            "seconds": time.perf_counter() - self._began,
            "waited_seconds": sum(fleet.waited for fleet in self._steps.fleets),
        }
        for exchange in self._steps.exchanges:
            if exchange.compression is not None:
                stats["given_up"] = exchange.compression.given_up
        for fleet in self._steps.fleets[:-1]:
            stats["island_bytes"] = fleet.ledger.by_kind()
        return stats

    def state_dict(self) -> dict[str, Any]:
        """Everything, as a tree: ``shared`` is equal in all processes, ``worker`` has one key, this
        worker's number. For ``torch.distributed.checkpoint`` and the like."""
        return self._keeper.state_dict(self.steps, self.synchronisations)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave, in a run with as many workers."""
        steps = self._steps
        steps.count, steps.synchronisations = self._keeper.load_state_dict(state)

    # -- failure

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            with torch.no_grad():
                yield
        except PeerLost as error:
            with undisturbed():
                raise PeerLost(self._obituary(error)) from error

    def _obituary(self, error: PeerLost) -> str:
        """Who is gone. Leaves a checkpoint."""
        counterparts, *others = [
            dist.get_process_group_ranks(fleet.group or dist.group.WORLD)
            for fleet in reversed(self._steps.fleets)
        ]
        ranks = sorted({*counterparts, *(rank for group in others for rank in group)})
        alive = survivors(self._token, ranks, self.steps)
        gone = [rank for rank in ranks if rank not in alive] if alive is not None else []
        who = say_gone(gone, len(ranks)) if gone else str(error)
        left = None
        if alive is not None:
            workers = [worker for worker, rank in enumerate(counterparts) if rank in alive]
            left = self._keeper.save_remains(
                max(alive.values()), self.synchronisations, self._token, workers
            )
        saved = f"; what is left is saved in {left}" if left is not None else ""
        return f"{who} at step {self.steps} or after{saved}; start the job again to go on"
