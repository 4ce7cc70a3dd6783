from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tacit
from helpers.tasks import ADAM, conv_task, data, mlp_task, perceptron
from tacit.averaging import ModelAveraging
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import Link
from tacit.recipes import Recipe
from tacit.simulate import Simulation
from tacit.topologies import Sampled
from tacit.triggers import Every

K = 3

RECIPES: dict[str, Callable[[], Recipe]] = {
    "synchronous": lambda: tacit.synchronous(),
    "synchronous models": lambda: tacit.synchronous("models"),
    "local_sgd": lambda: tacit.local_sgd(period=3, buffers="average"),
    "fda linear": lambda: tacit.fda(0.02),
    "fda sketch": lambda: tacit.fda(0.02, "sketch", columns=16),
    "fda lag": lambda: tacit.fda(0.02, lag=1),
    "fda overlap": lambda: tacit.fda(0.02, lag=1, overlap=1),
    "dynamic_averaging": lambda: tacit.dynamic_averaging(0.03, every=2),
    "dynamic_averaging nearest": lambda: tacit.dynamic_averaging(
        0.03, every=1, augmentation="nearest", weights="samples", buffers="average"
    ),
    "fedavg period": lambda: tacit.fedavg(fraction=0.5, period=2),
    "fda average": lambda: tacit.fda(0.02, "exact", buffers="average", optimizer_state="average"),
    "fedavg": lambda: tacit.fedavg(fraction=0.5, epochs=0.5, lr=0.1),
    "fedavgm": lambda: tacit.fedavgm(epochs=0.5, lr=0.1),
    "fedadam": lambda: tacit.fedadam(fraction=0.3, epochs=0.5, lr=0.1),
    "fedadagrad": lambda: tacit.fedadagrad(epochs=0.5, lr=0.1),
    "diloco": lambda: tacit.diloco(period=2),
    "compressed lowrank": lambda: tacit.compressed("lowrank", feedback=True, per_tensor=True),
    "dgc": lambda: tacit.dgc(
        0.1,
        nesterov=True,
        clip=1.0,
        warmup="1/0.2",
        values="fp16",
        dense="fp16",
        weight_decay=0.01,
        lr=0.1,
    ),
    "ef21 both ways": lambda: tacit.ef21("topk(density=0.2)", momentum=0.3, download="lowrank"),
    "ef21 partial": lambda: tacit.ef21("topk(density=0.1)", fraction=0.5, start="zero"),
    "ef21_w": lambda: tacit.ef21_w("topk(density=0.1)", estimate=7),
    "byz_ef21": lambda: tacit.byz_ef21(1, compressor="topk(density=0.1)"),
    "byz_ef21 both ways": lambda: tacit.byz_ef21(
        1, "median", "topk(density=0.2)", 0.3, "lowrank", "zero"
    ),
    "rosdhb": lambda: tacit.rosdhb(1, density=0.2, download="topk(density=0.5)"),
    "monna": lambda: tacit.monna(1, 0.9, 0.1, "all"),
    "learn": lambda: tacit.learn(1, 0.1, "worst", "mean"),
    "sparseloco": lambda: tacit.sparseloco(period=2, k=6, block=32),
    "local_sgd randomk": lambda: tacit.local_sgd(2, compressor="randomk(density=0.3,scaled=true)"),
    "fda compressed": lambda: tacit.fda(
        0.02, compressor="qsgd", download="topk(density=0.3,values=int8)"
    ),
}


def simulation(recipe: Recipe | None = None, workers: int = K, **settings: Any) -> Simulation:
    task = settings.pop("task", None) or mlp_task(optimizer=settings.pop("optimizer", ADAM))
    recipe = recipe or tacit.fda(0.02)
    return Simulation(task, recipe, tacit.LocalFleet(workers), **{"seed": 1, **settings})


def advance(run: Simulation, steps: int) -> list[int]:
    return [run.steps for _ in range(steps) if run.step()]


# -- the same seed, the same run


@pytest.mark.parametrize("task", [mlp_task, conv_task])
@pytest.mark.parametrize("name", RECIPES)
def test_same_seed_same_run_whatever_the_default_generators_hold(name, task):
    rows = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002 - what must not matter
        run = simulation(RECIPES[name](), task=task(optimizer=ADAM))
        fired = advance(run, 6)
        rows.append((fired, run.replicas.parameters.clone(), run.replicas.buffers.clone()))
        after = torch.rand(1)
        torch.manual_seed(disturbance)
        assert torch.equal(after, torch.rand(1))  # nor was anything drawn from them
    assert rows[0][0] == rows[1][0]
    assert torch.equal(rows[0][1], rows[1][1])
    assert torch.equal(rows[0][2], rows[1][2])


def test_another_seed_another_run():
    one, other = simulation(seed=1), simulation(seed=2)
    assert not torch.equal(one.replicas.parameters, other.replicas.parameters)
    same_model = simulation(seed=1)
    advance(one, 2)
    advance(same_model, 2)
    assert torch.equal(one.replicas.parameters, same_model.replicas.parameters)


@pytest.mark.parametrize("task", [mlp_task, conv_task])
@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, task):
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)

    def fresh() -> Simulation:
        return simulation(RECIPES[name](), task=task(optimizer=ADAM), scheduler=scheduler)

    whole, first = fresh(), fresh()
    expected = advance(whole, 11)
    fired = advance(first, 5)
    workers = {k: first.worker_state(k) for k in range(K)}
    saved = pickle.dumps((first.shared_state(), workers))
    advance(first, 2)  # the saved state is not touched by what comes later
    second = fresh()
    second.load_state(*pickle.loads(saved))
    fired += advance(second, 6)
    assert fired == expected
    assert second.steps == whole.steps
    assert torch.equal(second.replicas.parameters, whole.replicas.parameters)
    assert torch.equal(second.replicas.buffers, whole.replicas.buffers)
    for a, b in zip(second.optimizer.rows(), whole.optimizer.rows(), strict=True):
        assert torch.equal(a, b)
    one, other = second.evaluate(), whole.evaluate()
    for field in ("accuracy", "loss", "bytes", "ring_bytes", "checks", "synchronisations"):
        assert getattr(one, field) == getattr(other, field), field
    assert one.train_loss == pytest.approx(other.train_loss, rel=1e-12)
    assert list(second.fleet.ledger) == list(whole.fleet.ledger)


# -- theta


@pytest.mark.parametrize("estimator", ["exact", "naive", "linear"])
@pytest.mark.parametrize("workers", [2, 3, 5])
def test_theta_0_is_synchronous(estimator, workers):
    dynamic = simulation(tacit.fda(0.0, estimator), workers)
    every = simulation(tacit.synchronous("models"), workers)
    assert advance(dynamic, 8) == advance(every, 8) == list(range(1, 9))
    assert torch.equal(dynamic.replicas.parameters, every.replicas.parameters)
    kinds = dynamic.fleet.ledger.by_kind()
    assert kinds["model"] == every.fleet.ledger.by_kind()["model"]
    assert kinds["monitoring"] > 0


def test_one_worker_alone():
    """Exact sees that it agrees with itself; naive, linear and sketch do not."""
    assert advance(simulation(tacit.fda(0.0, "exact"), 1), 10) == []
    for estimator in ("naive", "linear", "sketch"):
        assert advance(simulation(tacit.fda(0.001, estimator), 1), 10) != []


@pytest.mark.parametrize("estimator", ["exact", "naive", "linear"])
@pytest.mark.parametrize("theta", [0.003, 0.02, 0.1])
def test_the_variance_is_within_theta_at_every_check_that_does_not_synchronise(estimator, theta):
    run = simulation(tacit.fda(theta, estimator))
    largest, fired = 0.0, 0
    for _ in range(40):
        if run.step():
            fired += 1
            continue
        rows = run.replicas.parameters.double()
        largest = max(largest, float((rows - rows.mean(0)).square().sum(1).mean()))
    assert 0 < largest <= theta * (1 + 1e-6)
    assert fired > 0


def test_the_estimators_fire_in_their_order():
    """Naive, the largest estimate, first; exact, the smallest, last."""
    first = {
        estimator: advance(simulation(tacit.fda(0.05, estimator)), 60)[0]
        for estimator in ("exact", "linear", "naive")
    }
    assert first["naive"] <= first["linear"] <= first["exact"]


def test_a_large_theta_never_synchronises_and_workers_go_their_own_ways():
    run = simulation(tacit.fda(1e9))
    assert advance(run, 8) == []
    alone = Simulation(mlp_task(optimizer=ADAM), tacit.local_sgd(100), tacit.LocalFleet(K), seed=1)
    advance(alone, 8)
    assert torch.equal(run.replicas.parameters, alone.replicas.parameters)


# -- evaluation


def test_evaluations_come_after_every_epoch_and_at_the_end():
    # 61 samples, 3 workers, batches of 4: 5.083 steps an epoch
    evaluations = list(simulation().run(17))
    assert [e.step for e in evaluations] == [6, 11, 16, 17]
    assert evaluations[0].epoch == pytest.approx(6 * 12 / 61)
    assert [e.step for e in simulation().run(7, evaluate_every=3)] == [3, 6, 7]


def test_an_evaluation_is_that_of_the_mean_model():
    run = simulation(tacit.fda(1e9), task=conv_task(optimizer=ADAM))
    advance(run, 4)
    module = conv_task().model()
    nn.utils.vector_to_parameters(run.replicas.parameters.mean(dim=0), module.parameters())
    buffers = run.replicas.buffers.mean(dim=0)
    module[1].running_mean, module[1].running_var = buffers[:3], buffers[3:]
    module.eval()
    with torch.no_grad():
        output = module(run.task.test.inputs)
    evaluation = run.evaluate()
    targets = run.task.test.targets
    assert evaluation.accuracy == pytest.approx(
        float((output.argmax(dim=1) == targets).float().mean())
    )
    assert evaluation.loss == pytest.approx(
        float(nn.functional.cross_entropy(output, targets)), rel=1e-4
    )


def test_a_test_set_larger_than_one_evaluation_batch():
    small = simulation(task=mlp_task(test=data(1203, 6, name="test")))
    evaluation = small.evaluate()
    module = small.replicas.show(small.replicas.parameters[0], torch.zeros(0))
    with torch.no_grad():
        output = module(small.task.test.inputs)
    correct = int((output.argmax(dim=1) == small.task.test.targets).sum())
    assert evaluation.accuracy == correct / 1203
    expected = float(nn.functional.cross_entropy(output, small.task.test.targets))
    assert evaluation.loss == pytest.approx(expected, rel=1e-4)


def test_looking_changes_nothing():
    watched, unwatched = (
        simulation(tacit.fda(0.02), task=conv_task(optimizer=ADAM)) for _ in range(2)
    )
    for _ in range(6):
        watched.step()
        watched.evaluate()
        unwatched.step()
    assert torch.equal(watched.replicas.parameters, unwatched.replicas.parameters)
    assert torch.equal(watched.replicas.buffers, unwatched.replicas.buffers)
    assert watched.fleet.ledger.bytes() == unwatched.fleet.ledger.bytes()


def test_train_loss_is_the_mean_over_workers_and_steps_since_the_last_evaluation():
    run = simulation()
    for _ in range(2):
        losses = []
        original = run.training.gradients

        def keep(active, step, original=original, losses=losses):
            found = original(active, step)
            losses.extend(found.tolist())
            return found

        run.training.gradients = keep
        advance(run, 3)
        run.training.gradients = original
        assert len(losses) == 3 * K
        assert run.evaluate().train_loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_checks_since_the_last_evaluation():
    run = simulation(tacit.fda(0.02))
    fired = advance(run, 5)
    first = run.evaluate().checks
    fired += advance(run, 5)
    second = run.evaluate().checks
    assert [step for step, _, _ in first + second] == list(range(1, 11))
    assert [step for step, _, synchronised in first + second if synchronised] == fired
    assert all((estimate > 0.02) == synchronised for _, estimate, synchronised in first + second)
    counting = simulation(tacit.local_sgd(3))
    advance(counting, 7)
    assert counting.evaluate().checks == [(3, None, True), (6, None, True)]


def test_bytes_of_local_sgd():
    run = simulation(tacit.local_sgd(3))
    evaluation = list(run.run(7))[-1]
    exchange = 2 * K * 4 * run.replicas.d
    assert evaluation.bytes == {"model": 2 * exchange, "gradient": 0, "monitoring": 0, "control": 0}
    assert evaluation.total_bytes == 2 * exchange
    assert evaluation.ring_bytes == 2 * K * (K - 1) * 4 * run.replicas.d  # small: to every peer
    assert evaluation.synchronisations == 2


def test_the_virtual_clock():
    link = Link(1e6, 0.01, "star")
    run = simulation(tacit.local_sgd(3), link=link)
    evaluation = list(run.run(6))[-1]
    messages = 2 * (2 * K * 4 * run.replicas.d * 8 / 1e6 + 2 * 0.01)
    assert evaluation.predicted_seconds == pytest.approx(
        6 * evaluation.step_seconds + messages, rel=1e-9
    )
    assert evaluation.step_seconds > 0
    assert evaluation.seconds > 0
    assert simulation().evaluate().predicted_seconds is None


def test_an_evaluation_is_a_line_of_json():
    import json

    evaluation = list(simulation().run(2))[-1]
    assert json.loads(json.dumps(evaluation.as_dict()))["step"] == 2


# -- pieces


def test_sampled_workers_rest():
    run = simulation(tacit.fedavg(fraction=0.3, epochs=0.5, lr=0.1))
    who = run.recipe.averaging.participants.clone()
    start = run.replicas.parameters.clone()
    run.step()
    moved = (run.replicas.parameters != start).any(dim=1)
    assert moved.tolist() == who.tolist()
    assert sum(who.tolist()) == 1
    assert run.training.draws == [int(w) for w in who]


def test_sampled_workers_rest_even_with_momentum():
    """Those of an earlier round would move on by their momentum if all rows stepped together."""
    averaging = ModelAveraging(Every(2), topology=Sampled(0.5))
    run = simulation(Recipe("sampled", averaging=averaging), workers=5)  # of Adam
    rested = 0
    for _ in range(4):
        before, who = run.replicas.parameters.clone(), averaging.participants.clone()
        run.step()
        assert (run.replicas.parameters != before).any(dim=1).tolist() == who.tolist()
        run.step()
        rested += int((~who & (torch.tensor(run.training.draws) > 0)).sum())
    assert rested > 0


def test_a_task_with_two_parameter_groups():
    """Kernels decay, biases do not, as with a plain optimizer that is given both."""
    task = mlp_task(optimizer=partial(torch.optim.SGD, lr=0.1), kernel_decay=0.5)
    run = simulation(tacit.synchronous(), workers=1, task=task)
    module = perceptron()
    columns = [module[0].weight, module[2].weight, module[0].bias, module[2].bias]
    start = run.replicas.parameters[0].clone()
    with torch.no_grad():
        for p, piece in zip(columns, start.split([p.numel() for p in columns]), strict=True):
            p.copy_(piece.view(p.shape))
    groups = [{"params": columns[:2], "weight_decay": 0.5}, {"params": columns[2:]}]
    plain = torch.optim.SGD(groups, lr=0.1)
    for step in range(4):
        x, y = task.train.batch(run.training.feed.shards[0].at(step))
        plain.zero_grad()
        task.loss(module(x), y).backward()
        plain.step()
        run.step()
    expected = torch.cat([p.detach().flatten() for p in columns])
    torch.testing.assert_close(run.replicas.parameters[0], expected, rtol=1e-5, atol=1e-6)


def test_a_schedule_is_stepped_with_the_optimizer():
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1)
    run = simulation(scheduler=scheduler, optimizer=partial(torch.optim.SGD, lr=1.0))
    advance(run, 5)
    (optimizer,) = run.optimizer.optimizers
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_data_without_classes():
    regression = mlp_task(
        train=data(40, 6),
        model=lambda: nn.Linear(6, 1),
        loss=lambda output, y: (output.squeeze(1) - y.float()).square().mean(),
    )
    object.__setattr__(regression.train, "targets", regression.train.targets.float())
    run = simulation(task=regression)
    advance(run, 2)
    with pytest.raises(UserError, match="class labels"):
        simulation(task=regression, partition="label:0")


def test_divergence_ends_the_run_with_worker_and_step():
    task = mlp_task(
        model=lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
        optimizer=partial(torch.optim.SGD, lr=1e30),
    )
    run = simulation(tacit.local_sgd(100), task=task)
    with pytest.raises(TrainingDiverged, match=r"worker \d is not finite at step \d+"):
        advance(run, 20)


def test_more_workers_than_samples():
    with pytest.raises(UserError, match="more workers than samples"):
        simulation(workers=62)


def test_progress():
    """It learns."""
    first, *_, last = simulation(tacit.fda(0.02)).run(120)
    assert last.loss < 0.8 * first.loss
    assert last.accuracy > first.accuracy


def test_a_state_that_is_not_finite_names_the_step_and_the_worker():
    run = simulation(tacit.fda(1.0))
    run.step()
    run.replicas.parameters[1] = float("nan")
    with pytest.raises(TrainingDiverged, match="at step 1: worker 1 sent NaN"):
        run.recipe.averaging.step(2)  # the ledger is at step 1


def test_evaluations_cannot_be_less_than_a_step_apart():
    with pytest.raises(UserError, match="at least 1 step, got 0"):
        next(simulation(tacit.local_sgd()).run(3, evaluate_every=0))
