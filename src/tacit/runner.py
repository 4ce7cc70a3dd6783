"""From a configuration to a finished run folder, in one process or as one of many."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from tacit import checkpoint
from tacit.config import RunConfig
from tacit.errors import UserError
from tacit.evaluation import Evaluation
from tacit.fleet import Fleet, Link, LocalFleet, ProcessGroupFleet, layout
from tacit.runs import RunFolder, RunRecord, read_run
from tacit.simulate import Simulation
from tacit.tasks.registry import load

#: Passes over a data set, if nothing else is said.
_EPOCHS = 10.0


class Observer(Protocol):
    """Whoever watches a run: a progress bar, a log."""

    def begin(self, config: RunConfig, steps: int) -> None: ...

    def stepped(self, step: int, synchronisations: int, total_bytes: int) -> None: ...

    def evaluated(self, evaluation: Evaluation) -> None: ...

    def end(self) -> None: ...


def launched_by_torchrun() -> bool:
    """Whether this process is one of several that were started together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def make_fleet(config: RunConfig) -> Fleet:
    """All workers here, or this process's part of them if it is one of many."""
    if not launched_by_torchrun():
        return LocalFleet(config.workers, config.deterministic)
    cuda = config.device.startswith("cuda")
    if not dist.is_initialized():
        # our own launcher names a rendezvous file; torchrun sets the usual variables
        rendezvous = os.environ.get("TACIT_RENDEZVOUS", "env://")
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=rendezvous,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else "cpu"
    mine = layout(config.workers, dist.get_world_size())[dist.get_rank()]
    return ProcessGroupFleet(len(mine), device=device, deterministic=config.deterministic)


def build(config: RunConfig, fleet: Fleet) -> Simulation:
    """The simulation that a configuration describes."""
    device = getattr(fleet, "device", config.device)
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device; use --device cpu")
    return Simulation(
        load(config.task, model=config.model, data=config.data),
        config.build_recipe(),
        fleet,
        seed=config.seed,
        partition=config.partition,
        batch_size=config.batch_size,
        order=config.order,
        noise=config.noise,
        optimizer=config.build_optimizer(),
        execution=config.execution,
        device=device,
        link=Link.parse(config.link),
        liars=config.build_liars(),
    )


def execute(
    config: RunConfig,
    open_folder: Callable[[], RunFolder],
    observer: Observer | None = None,
    resume: bool = False,
) -> RunRecord:
    """Run ``config`` in the folder that ``open_folder`` gives, once everything else is known to be
    right. With ``resume``, go on from its last checkpoint. Every process of a fleet calls this."""
    fleet = make_fleet(config)
    simulation = build(config, fleet)
    epochs = config.epochs or (_EPOCHS if simulation.stream is None else 1.0)
    steps = config.steps or max(1, round(epochs * simulation.steps_per_epoch))
    folder = _agree_on_folder(fleet, open_folder)
    if resume:
        shared, workers = checkpoint.read_folder(folder.checkpoints, fleet.hosted)
        simulation.load_state(shared, workers)
        if fleet.leader:
            folder.truncate(simulation.steps)
    watcher = observer if fleet.leader else None
    if watcher:
        watcher.begin(config, steps)

    def on_step() -> None:
        ledger = fleet.ledger
        if watcher:
            watcher.stepped(simulation.steps, simulation.synchronisations, ledger.bytes())
        if config.checkpoint_every and simulation.steps % config.checkpoint_every == 0:
            states = {k: simulation.worker_state(k) for k in fleet.hosted}
            checkpoint.write_folder(
                folder.checkpoints, simulation.steps, fleet, simulation.shared_state(), states
            )

    error, evaluation = None, None
    try:
        for evaluation in simulation.run(steps, config.evaluate_every, on_step):
            if fleet.leader:
                folder.append(evaluation)
            if watcher:
                watcher.evaluated(evaluation)
            if config.stop_at_target and config.target and evaluation.accuracy >= config.target:
                break
    except BaseException as caught:
        error = str(caught) or type(caught).__name__
        raise
    finally:
        if watcher:
            watcher.end()
        if fleet.leader:
            folder.finish(_summary(config, simulation, evaluation, error))
    fleet.barrier()
    if isinstance(fleet, ProcessGroupFleet):
        fleet.linger()
    return read_run(folder.path)


def _summary(
    config: RunConfig, simulation: Simulation, last: Evaluation | None, error: str | None
) -> dict[str, Any]:
    ledger = simulation.fleet.ledger
    final = last.as_dict() if last else {}
    for by_step in ("checks", "rounds", "conversations", "drifts"):
        final.pop(by_step, None)
    return {
        "recipe": config.label,
        "finished": error is None,
        "error": error,
        "parameters": simulation.replicas.d,
        "steps": simulation.steps,
        "sent_per_worker": ledger.sent().tolist(),
        "received_per_worker": ledger.received().tolist(),
        "final": final,
    }


def _agree_on_folder(fleet: Fleet, open_folder: Callable[[], RunFolder]) -> RunFolder:
    """The leader opens the folder and tells the others its path (or that it could not)."""
    if not isinstance(fleet, ProcessGroupFleet):
        return open_folder()
    own = b""
    failure: UserError | OSError | None = None
    if fleet.leader:
        try:
            own = str(open_folder().path.resolve()).encode()
        except (UserError, OSError) as error:
            failure = error  # the others wait: they must be told first
    messages = [own, *[b""] * (len(fleet.hosted) - 1)]
    path = fleet.gather_bytes(messages, "evaluation")[0].decode()
    if failure is not None:
        raise failure
    if not path:
        raise UserError("the first process could not open the run folder")
    return RunFolder(Path(path))
