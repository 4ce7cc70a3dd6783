from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tacit
from helpers.tasks import SGD, conv_task, convolution, data, mlp_task, perceptron
from tacit import rng
from tacit.errors import TrainingDiverged, UserError
from tacit.fleet import LocalFleet
from tacit.optimizers import LocalOptimizer
from tacit.replicas import Replicas
from tacit.tasks.batches import Batches
from tacit.tasks.feed import ShardFeed
from tacit.training import LocalTraining, batchable

SEED = 5


def local_training(task, workers, execution="loop", optimizer=None, module=None):
    """Training of these workers, each of which draws from all the data."""
    with rng.scoped(SEED, "model"):
        replicas = Replicas(module or task.model(), len(workers))
    everything = np.arange(len(task.train))
    shards = [Batches(everything, task.batch_size, SEED, k) for k in workers]
    local = LocalOptimizer(replicas, optimizer or task.optimizer)
    feed = ShardFeed(task.train, shards)
    return LocalTraining(task, replicas, local, workers, feed, SEED, execution)


def rows_of(training):
    return list(range(len(training.workers)))


def deeper() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)
    )


@pytest.mark.parametrize("model", [perceptron, deeper])
def test_batched_and_loop_agree_to_rounding(model):
    task = mlp_task(model=model)
    loop, batched = (local_training(task, range(4), way) for way in ("loop", "batched"))
    assert (loop.batched, batched.batched) == (False, True)
    for step in range(1, 6):
        losses = [training.gradients(rows_of(training), step) for training in (loop, batched)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(
            batched.replicas.gradients, loop.replicas.gradients, rtol=1e-4, atol=1e-6
        )
        for training in (loop, batched):
            training.step(rows_of(training))
    assert len({tuple(row.tolist()) for row in loop.replicas.parameters}) == 4


@pytest.mark.parametrize("execution", ["loop", "batched"])
def test_against_a_plain_training_loop(execution):
    task = mlp_task()
    training = local_training(task, range(3), execution)
    module = training.replicas.show(training.replicas.parameters[0].clone(), torch.zeros(0))
    modules = [copy.deepcopy(module) for _ in range(3)]
    optimizers = [SGD(module.parameters()) for module in modules]
    for step in range(1, 5):
        losses = training.gradients(rows_of(training), step)
        training.step(rows_of(training))
        for k, (module, optimizer) in enumerate(zip(modules, optimizers, strict=True)):
            x, y = task.train.batch(training.feed.shards[k].at(step - 1))
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
            assert float(losses[k]) == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.stack([nn.utils.parameters_to_vector(m.parameters()) for m in modules])
    torch.testing.assert_close(training.replicas.parameters, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("workers", [[0], [2, 3], [1, 2, 4, 5]])
def test_a_workers_training_does_not_depend_on_who_is_hosted_beside_it(workers):
    """Convolution, batch norm and dropout, bit for bit."""
    everybody, some = (local_training(conv_task(), who) for who in (range(6), workers))
    for step in range(1, 4):
        for training in (everybody, some):
            training.gradients(rows_of(training), step)
            training.step(rows_of(training))
    assert torch.equal(some.replicas.parameters, everybody.replicas.parameters[workers])
    assert torch.equal(some.replicas.buffers, everybody.replicas.buffers[workers])


def test_dropout_has_a_stream_for_each_worker_and_draw():
    """Same data, same model: what differs is the dropout."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3))

    task = conv_task(train=data(1, 1, 6, 6), batch_size=1, model=model)
    training = local_training(task, range(3))
    seen = []
    for step in (1, 2):
        training.gradients(rows_of(training), step)
        seen += [tuple(row.tolist()) for row in training.replicas.gradients]
    assert len(set(seen)) == 6
    again = local_training(task, range(3))
    again.gradients(rows_of(again), 1)
    assert [tuple(row.tolist()) for row in again.replicas.gradients] == seen[:3]


def test_the_default_generator_is_neither_used_nor_disturbed():
    torch.manual_seed(1)
    first = local_training(conv_task(), range(2))
    state = torch.random.get_rng_state()
    first.gradients([0, 1], 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second = local_training(conv_task(), range(2))
    second.gradients([0, 1], 1)
    assert torch.equal(first.replicas.gradients, second.replicas.gradients)


@pytest.mark.parametrize("execution", ["loop", "batched"])
def test_workers_that_rest_draw_no_batch_and_have_no_gradient(execution):
    training = local_training(mlp_task(), range(3), execution)
    losses = training.gradients([0, 2], 1)
    assert losses.shape == (2,)
    assert training.draws == [1, 0, 1]
    assert not training.replicas.gradients[1].any()
    assert training.replicas.gradients[[0, 2]].any(dim=1).all()
    training.gradients([1], 2)
    late = training.replicas.gradients[1].clone()
    fresh = local_training(mlp_task(), range(3), execution)
    fresh.gradients([0, 1, 2], 1)
    torch.testing.assert_close(fresh.replicas.gradients[1], late)


class HalfUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("execution", ["loop", "batched"])
def test_a_parameter_that_is_not_used_has_gradient_zero(execution):
    training = local_training(mlp_task(model=HalfUsed), range(2), execution)
    training.replicas.gradients.fill_(7.0)
    training.gradients([0, 1], 1)
    assert training.replicas.gradients[:, :21].any(dim=1).all()
    assert not training.replicas.gradients[:, 21:].any()


def test_frozen_parameters_and_tied_ones_in_a_batched_pass():
    def model() -> nn.Module:
        module = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
        module[2].weight = module[0].weight
        module[3].weight.requires_grad_(False)
        return module

    loop, batched = (
        local_training(mlp_task(model=model), range(3), way) for way in ("loop", "batched")
    )
    assert loop.replicas.d == 36 + 6 + 6 + 3
    frozen = loop.replicas.module[3].weight.clone()
    for step in (1, 2):
        for training in (loop, batched):
            training.gradients([0, 1, 2], step)
            training.step([0, 1, 2])
    torch.testing.assert_close(loop.replicas.parameters, batched.replicas.parameters)
    assert torch.equal(loop.replicas.module[3].weight, frozen)
    assert torch.equal(batched.replicas.module[3].weight, frozen)


def test_batch_norm_statistics_are_those_of_the_workers_own_batches():
    task = conv_task(model=lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 3)))
    training = local_training(task, range(3))
    training.gradients([0, 1, 2], 1)
    for k in range(3):
        x, _ = task.train.batch(training.feed.shards[k].at(0))
        mean, variance = training.replicas.buffers[k].tolist()
        assert mean == pytest.approx(0.1 * x.mean().item(), rel=1e-4)
        assert variance == pytest.approx(0.9 + 0.1 * x.var().item(), rel=1e-4)


@pytest.mark.parametrize("execution", ["loop", "batched"])
def test_divergence_names_the_worker_and_the_step(execution):
    task = mlp_task()
    training = local_training(task, [4, 7, 9], execution)
    training.replicas.parameters[1] = torch.inf
    with pytest.raises(TrainingDiverged, match="worker 7 is not finite at step 12") as caught:
        training.gradients([0, 1, 2], 12)
    assert "\n" not in str(caught.value)


class Own(nn.Sequential):
    """A container with a forward of its own may do what a batched pass cannot."""

    def forward(self, x):
        return F.dropout(super().forward(x), training=self.training)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (perceptron, True),
        (deeper, True),
        (lambda: nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU()), True),
        (convolution, False),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()), False),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), False),
        (lambda: Own(nn.Linear(2, 2)), False),
        (HalfUsed, False),
    ],
)
def test_what_is_batched_of_its_own_accord(model, expected):
    assert batchable(model()) is expected


def test_auto():
    assert local_training(mlp_task(), range(2), "auto").batched
    assert not local_training(mlp_task(), [0], "auto").batched
    assert not local_training(conv_task(), range(2), "auto").batched
    own = local_training(mlp_task(model=lambda: Own(nn.Linear(6, 3))), range(2), "auto")
    own.gradients([0, 1], 1)  # runs


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.Dropout(0.5), "Dropout"), (nn.BatchNorm1d(3), "BatchNorm1d")]
)
def test_a_batched_pass_over_randomness_or_statistics_is_refused(layer, name):
    task = mlp_task(model=lambda: nn.Sequential(nn.Linear(6, 3), layer))
    with pytest.raises(UserError, match=rf"cannot run {name} \(1\).*'loop'"):
        local_training(task, range(2), "batched")


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU, nn.LSTMCell])
def test_a_batched_pass_over_recurrent_layers_that_vmap_does_not_run_is_refused(layer):
    task = mlp_task(model=lambda: nn.Sequential(nn.Linear(6, 3), layer(3, 3)))
    with pytest.raises(UserError, match=rf"cannot run {layer.__name__} \(1\).*'loop'") as caught:
        local_training(task, range(2), "batched")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell])
def test_cells_that_vmap_runs_agree_with_the_loop(cell):
    task = mlp_task(model=lambda: nn.Sequential(nn.Linear(6, 3), cell(3, 3)))
    loop, batched = (local_training(task, range(3), way) for way in ("loop", "batched"))
    for training in (loop, batched):
        training.gradients([0, 1, 2], 1)
    torch.testing.assert_close(
        batched.replicas.gradients, loop.replicas.gradients, rtol=1e-4, atol=1e-6
    )


def test_unknown_execution():
    with pytest.raises(UserError, match="auto, loop or batched, not 'fast'"):
        local_training(mlp_task(), range(2), "fast")


def test_lbfgs_evaluates_the_loss_of_each_worker_by_itself():
    """As torch's LBFGS on each worker's own module and batch."""
    lbfgs = partial(torch.optim.LBFGS, lr=0.3, max_iter=4)
    task = mlp_task(optimizer=lbfgs)
    simulation = tacit.Simulation(task, tacit.local_sgd(100), LocalFleet(3))
    module = copy.deepcopy(simulation.replicas.bind(1))
    for p in module.parameters():
        p.data = p.detach().clone()
    plain = lbfgs(module.parameters())
    for step in range(3):
        x, y = task.train.batch(simulation.training.feed.shards[1].at(step))

        def closure(x=x, y=y):
            plain.zero_grad()
            loss = task.loss(module(x), y)
            loss.backward()
            return loss

        plain.step(closure)
        simulation.step()
    expected = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    torch.testing.assert_close(simulation.replicas.parameters[1], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="exchanges gradients"):
        tacit.Simulation(task, tacit.synchronous(), LocalFleet(3))
