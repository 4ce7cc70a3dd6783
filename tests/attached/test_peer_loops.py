"""Attached loops in which nobody waits for all: MoNNA and LEARN."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import tacit
import tacit.fleet.carrier
from helpers.loops import batches, model_of, vector
from helpers.situations import loss_of
from helpers.spawn import run_processes, run_survivors
from helpers.tasks import conv_task, mlp_task
from tacit import checkpoint, rng
from tacit.averaging import ModelAveraging
from tacit.errors import PeerError, PeerLost, UserError
from tacit.fleet import LocalFleet
from tacit.gradients import GradientExchange
from tacit.topologies import Peers
from tacit.triggers import Every

N, STEPS = 4, 10
RECIPES = {
    "monna": lambda f: tacit.monna(f, momentum=0.5, lr=0.1),
    "learn": lambda f: tacit.learn(f, lr=0.1),
    "averaged": lambda f: tacit.Recipe(
        "averaged",
        averaging=ModelAveraging(
            Every(2), tacit.aggregators.TrimmedMean(f), topology=Peers(f), buffers="average"
        ),
    ),
}


def start(worker: int, recipe: tacit.Recipe, task: Any = None, **options: Any) -> Any:
    task = task or mlp_task()
    module = model_of(task)
    if worker:
        with torch.no_grad():
            for p in module.parameters():
                p.add_(1.0)  # worker 0's model is what counts
    make = recipe.optimizer or partial(torch.optim.SGD, lr=0.1)
    optimizer = make(module.parameters())
    sync = tacit.attach(module, optimizer, recipe, steps_per_epoch=5, **options)
    return task, module, optimizer, sync, batches(task, worker, dist.get_world_size())


def steps(task: Any, module: nn.Module, optimizer: Any, shard: Any, draws: range) -> None:
    for draw in draws:
        loss_of(task, module, shard, draw).backward()
        optimizer.step()
        optimizer.zero_grad()


# -- it is the method


def train(worker: int, name: str) -> dict[str, Any]:
    task, module, optimizer, sync, shard = start(worker, RECIPES[name](0), conv_task())
    for draw in range(STEPS):
        with torch.random.fork_rng():
            rng.seed_default(rng.derive(0, "training", worker, draw), [])
            steps(task, module, optimizer, shard, range(draw, draw + 1))
    before = sync.stats()["bytes"]
    with sync.consensus() as model:
        seen = vector(model)
    assert sync.stats()["bytes"] == before  # looking costs nothing
    own = vector(module)
    sync.finish()
    assert torch.equal(vector(module), own)
    return {"own": own, "seen": seen, "bytes": before}


@pytest.mark.parametrize("name", RECIPES)
def test_with_nobody_silent_it_is_the_simulation(name: str) -> None:
    """f = 0: a worker waits for all, so which come first does not matter."""
    results = run_processes(train, 3, name)
    method = RECIPES[name](0)
    method = replace(method, optimizer=method.optimizer or partial(torch.optim.SGD, lr=0.1))
    simulation = tacit.Simulation(conv_task(), method, LocalFleet(3), execution="loop")
    for _ in range(STEPS):
        simulation.step()
    charged = simulation.fleet.ledger.by_kind()
    for worker, result in enumerate(results):
        expected = simulation.replicas.parameters[worker]
        torch.testing.assert_close(result["own"], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(result["seen"], result["own"])
        assert {k: result["bytes"][k] for k in ("model", "gradient")} == {
            k: charged[k] for k in ("model", "gradient")
        }


# -- those who are not there


def unequal(worker: int, name: str, f: int, counts: list[int]) -> tuple[Tensor, int]:
    task, module, optimizer, sync, shard = start(worker, RECIPES[name](f))
    steps(task, module, optimizer, shard, range(counts[worker]))
    sync.finish()
    return vector(module), sync.steps


def by_hand(counts: list[int]) -> list[Tensor]:
    """MoNNA with f = 0 is a mean of all models; who has no data left stays where it is."""
    task, n = mlp_task(), len(counts)
    modules = [model_of(task) for _ in counts]
    shards = [batches(task, k, n) for k in range(n)]
    momenta = [torch.zeros_like(vector(modules[0])) for _ in counts]
    for draw in range(max(counts)):
        training = [k for k in range(n) if draw < counts[k]]
        for k in training:
            modules[k].zero_grad()
            loss_of(task, modules[k], shards[k], draw).backward()
            gradient = torch.cat([p.grad.flatten() for p in modules[k].parameters()])
            momenta[k] = 0.5 * momenta[k] + 0.5 * gradient
            nn.utils.vector_to_parameters(
                vector(modules[k]) - 0.1 * momenta[k], modules[k].parameters()
            )
        mean = torch.stack([vector(module) for module in modules]).mean(0)
        for k in training:
            nn.utils.vector_to_parameters(mean, modules[k].parameters())
    return [vector(module) for module in modules]


@pytest.mark.parametrize("counts", [[7, 4, 7], [5, 7, 0], [3, 3, 9]], ids=str)
def test_who_has_no_data_left_says_a_last_word(counts: list[int]) -> None:
    results = run_processes(unequal, 3, "monna", 0, counts)
    for (model, count), own, expected in zip(results, counts, by_hand(counts), strict=True):
        assert count == own
        torch.testing.assert_close(model, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_who_has_no_data_left_are_zero() -> None:
    """With f = 0 LEARN is the mean of gradients, then of models."""
    task, counts = mlp_task(), [5, 2, 2]
    results = run_processes(unequal, 3, "learn", 0, counts)
    modules = [model_of(task) for _ in counts]
    shards = [batches(task, k, 3) for k in range(3)]
    for draw in range(max(counts)):
        training = [k for k in range(3) if draw < counts[k]]
        mean = torch.zeros_like(vector(modules[0]))
        for k in training:
            loss = loss_of(task, modules[k], shards[k], draw)
            parts = torch.autograd.grad(loss, list(modules[k].parameters()))
            mean += torch.cat([part.flatten() for part in parts]) / 3
        stepped = [vector(m) - 0.1 * mean * (k in training) for k, m in enumerate(modules)]
        for k in training:
            middle = torch.stack(stepped).mean(0)
            nn.utils.vector_to_parameters(middle, modules[k].parameters())
    for (model, count), own, module in zip(results, counts, modules, strict=True):
        assert count == own
        torch.testing.assert_close(model, vector(module), rtol=1e-4, atol=1e-5)


def go_on(worker: int, how: str, folder: str | None = None) -> dict[str, Any]:
    """Worker 1 of four is gone, or lies, from step 4 on; f = 1."""
    tacit.fleet.carrier._ABSENCE = 1.0
    task, module, optimizer, sync, shard = start(worker, tacit.monna(1, 0.5, 0.1))
    for draw in range(3 * STEPS):
        if worker == 1 and draw == 4:
            if how == "dies":
                os._exit(1)
            if how == "leaves in order":
                break
        loss_of(task, module, shard, draw).backward()
        if worker == 1 and how == "lies":
            with torch.no_grad():
                for p in module.parameters():
                    p.fill_(torch.nan if draw % 2 else 1e30)
        optimizer.step()
        optimizer.zero_grad()
    began = time.perf_counter()
    sync.finish()
    x, y = task.train.batch(shard.indices)
    return {
        "loss": task.loss(module(x), y).item(),
        "steps": sync.steps,
        "finishing": time.perf_counter() - began,
    }


@pytest.mark.parametrize("how", ["dies", "leaves in order", "lies"])
def test_the_others_go_on_without_one_who(how: str) -> None:
    results = run_survivors(go_on, N, how, timeout=90)
    task = mlp_task()
    for worker in (0, 2, 3):
        result = results[worker]
        assert result["steps"] == 3 * STEPS
        shard = batches(task, worker, N)
        x, y = task.train.batch(shard.indices)
        assert result["loss"] < 0.8 * task.loss(model_of(task)(x), y).item()


def too_many(worker: int, folder: str) -> tuple[str, float]:
    _, module, optimizer, sync, shard = made = start(
        worker, tacit.monna(1, 0.5, 0.1), checkpoint=folder
    )
    began = time.perf_counter()
    try:
        for draw in range(STEPS):
            if worker in (1, 2) and draw == 4:
                sync.detach()  # without a word
                return "gone", 0.0
            steps(made[0], module, optimizer, shard, range(draw, draw + 1))
    except PeerLost as error:
        return str(error), time.perf_counter() - began
    return "went on", 0.0


def test_with_more_than_f_gone_the_error_says_who_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    results = run_processes(too_many, N, str(tmp_path))
    for worker in (0, 3):
        said, seconds = results[worker]
        assert "worker 1 is gone" in said
        assert "worker 2 is gone" in said
        assert f"saved in {tmp_path}/peer-0000{worker}" in said
        assert "\n" not in said
        assert seconds < 20
        shared, own = checkpoint.read_folder(tmp_path / f"peer-0000{worker}", [worker])
        assert shared["steps"] == 4  # the fifth is taken again
        assert "after 4 steps" in said
        assert torch.isfinite(own[worker]["model"]["parameters"]).all()


def first_batch(worker: int) -> int:
    """Worker 1 dies before it has exchanged anything."""
    task, module, optimizer, sync, shard = start(worker, tacit.monna(1, 0.5, 0.1))
    if worker == 1:
        os._exit(1)
    steps(task, module, optimizer, shard, range(STEPS))
    sync.finish()
    return sync.steps


def test_one_may_die_before_the_first_exchange() -> None:
    assert run_survivors(first_batch, N) == [STEPS, None, STEPS, STEPS]


# -- an overflow


def overflow(worker: int, name: str) -> tuple[Tensor, int, float]:
    recipe = RECIPES[name](0)
    task, module = mlp_task(), model_of(mlp_task())
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    sync = tacit.attach(module, optimizer, recipe, scaler=scaler)
    shard = batches(task, worker, 3)
    for draw in range(STEPS):
        loss = loss_of(task, module, shard, draw)
        if worker == 1 and draw in (3, 4):
            loss = loss * torch.inf
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    own = vector(module)
    sync.finish()
    return own, sync.steps, scaler.get_scale()


@pytest.mark.parametrize("name", ["monna", "learn"])
def test_a_worker_whose_gradient_overflows_keeps_in_step(name: str) -> None:
    results = run_processes(overflow, 3, name)
    for model, count, _ in results:
        assert count == STEPS
        assert torch.isfinite(model).all()
    assert [scale for _, _, scale in results] == [8.0, 2.0, 8.0]


# -- checkpoints


def stop_and_go_on(
    worker: int, folder: str, saves: list[int], until: int, lost: int | None = None
) -> tuple[int, Tensor, Tensor]:
    """Up to step ``until``, saved after so many steps of one's own; then the rest, as a new job.
    Worker ``lost`` has no checkpoint then."""
    for end in (until, STEPS):
        recipe = tacit.monna(0 if lost is None else 1, 0.5, 0.1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            task, module, optimizer, sync, shard = start(worker, recipe, checkpoint=folder)
        began, first, said = sync.steps, vector(module), [str(w.message) for w in caught]
        for draw in range(sync.steps, end):
            steps(task, module, optimizer, shard, range(draw, draw + 1))
            if end == until and sync.steps == saves[worker] and worker != lost:
                sync.save()
        sync.detach()
        dist.barrier()
    assert lost is None or any(
        "checkpoints of different steps: 8, 5, 6, 0" in line for line in said
    )
    return began, first, vector(module)


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    resumed = run_processes(stop_and_go_on, 3, str(tmp_path / "a"), [6, 6, 6], 6)
    whole = run_processes(stop_and_go_on, 3, str(tmp_path / "b"), [0, 0, 0], 0)
    for (began, _, model), (_, _, expected) in zip(resumed, whole, strict=True):
        assert began == 6
        torch.testing.assert_close(model, expected, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        f"peer-0000{k}" for k in range(3)
    ]


def test_all_go_on_at_a_step_that_more_than_f_have_reached(tmp_path: Path) -> None:
    """Worker 0 says it was at step 8, and 3 has lost its checkpoint."""
    results = run_processes(stop_and_go_on, N, str(tmp_path), [8, 5, 6, 6], 8, 3)
    assert [began for began, _, _ in results] == [6] * N
    assert len({tuple(first.tolist()) for _, first, _ in results}) == N
    for _, first, model in results:
        assert torch.isfinite(model).all()
        assert not torch.equal(first, model)


def damaged(worker: int, folder: str, how: str) -> str:
    if worker == 1:
        path = Path(folder) / "peer-00001" / "step-000000006" / "worker-00001.tacit"
        path.write_bytes(path.read_bytes()[: 0 if how == "empty" else -9])
    dist.barrier()
    options = {"stateful": {"other": torch.nn.Linear(1, 1)}} if how == "stateful" else {}
    try:
        start(worker, tacit.monna(0, 0.5, 0.1), checkpoint=folder, **options)
    except PeerError as error:
        return str(error)
    return "attached"


@pytest.mark.parametrize("how", ["empty", "cut off"])
def test_a_damaged_checkpoint_is_named_to_everybody(tmp_path: Path, how: str) -> None:
    run_processes(stop_and_go_on, 3, str(tmp_path), [6] * 3, 6)
    for said in run_processes(damaged, 3, str(tmp_path), how):
        assert said.startswith("worker 1 cannot go on: ")
        assert "is damaged" in said
        assert "\n" not in said


def after_a_loss(worker: int, folder: str) -> tuple[int, int]:
    """More than f go; then all begin again. The steps and those of a schedule, after the restart
    and at its end."""
    counts: list[int] = []
    for end in (4, STEPS):
        task, module = mlp_task(), model_of(mlp_task())
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        sync = tacit.attach(
            module,
            optimizer,
            tacit.monna(0),
            checkpoint=folder,
            stateful={"schedule": schedule},
        )
        shard = batches(task, worker, 3)
        try:
            for draw in range(sync.steps, STEPS):
                if worker == 1 and draw == end:
                    sync.save()
                    break
                loss_of(task, module, shard, draw).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        except PeerLost:
            assert end == 4
        counts += [sync.steps, schedule.last_epoch]
        sync.detach()
        dist.barrier()
    return counts[2], counts[3]


def test_a_lost_step_is_taken_again_with_its_learning_rate(tmp_path: Path) -> None:
    assert run_processes(after_a_loss, 3, str(tmp_path)) == [(STEPS, STEPS)] * 3


def going_back(worker: int) -> str:
    *_, sync, _ = start(worker, tacit.monna(0, 0.5, 0.1))
    with pytest.raises(UserError) as error:
        sync.load_state_dict(sync.state_dict())
    sync.detach()
    return str(error.value)


def test_a_worker_cannot_go_back_by_itself() -> None:
    for said in run_processes(going_back, 2):
        assert "start the job again" in said


def other_number(worker: int, folder: str) -> tuple[int, bool]:
    _, module, _, sync, _ = start(worker, tacit.monna(0, 0.5, 0.1), checkpoint=folder)
    sync.detach()
    shared, own = checkpoint.read_folder(Path(folder) / f"peer-0000{worker}", [worker])
    assert shared["workers"] == N
    return sync.steps, torch.equal(own[worker]["model"]["parameters"], vector(module))


def test_another_number_of_workers_takes_the_checkpoints_over(tmp_path: Path) -> None:
    run_processes(stop_and_go_on, N, str(tmp_path), [6] * N, 6)
    assert run_processes(other_number, 3, str(tmp_path)) == [(6, True)] * 3


# -- what is refused


def refused(worker: int, case: str) -> str:
    recipe, options = tacit.monna(0), {}
    match case:
        case "worst" | "all":
            recipe = tacit.monna(0, reception=case)
        case "deterministic":
            options = {"deterministic": True}
        case "island":
            options = {"island": dist.group.WORLD}
        case "liars":
            recipe = tacit.monna(2)
        case "half":
            peers = tacit.monna(0).averaging
            recipe = tacit.Recipe("half", gradients=GradientExchange(), averaging=peers)
        case "other":
            recipe = tacit.monna(0, rule="trimmed_mean" if worker == 1 else "nna")
        case "no folder" | "after":
            pass
    module = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    try:
        sync = tacit.attach(module, optimizer, recipe, **options)
        if case == "after":
            sync.detach()
        sync.save()
    except (UserError, PeerError) as error:
        return str(error)
    return "attached"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("worst", "reception=worst is for simulations"),
        ("all", "reception=all is for simulations"),
        ("deterministic", "leave out deterministic"),
        ("island", "monna has no islands"),
        ("liars", "nna with f=2 needs n > 2 f, at least 5 rows, not 3"),
        ("half", "take one topology for both"),
        ("other", "worker 1 cannot join"),
        ("no folder", "say attach(..., checkpoint=FOLDER)"),
        ("after", "no longer attached"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(case: str, message: str) -> None:
    for said in run_processes(refused, 3, case):
        assert message in said
        assert "\n" not in said
