from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import tacit
from helpers.tasks import SGD, mlp_task, perceptron
from tacit.fleet import LocalFleet
from tacit.gradients import GradientExchange
from tacit.replicas import Replicas
from tacit.rng import torch_stream
from tacit.setting import Setting

K = 4


@pytest.fixture
def exchange() -> GradientExchange:
    replicas = Replicas(perceptron(), K)
    replicas.gradients.copy_(torch.randn(K, replicas.d, generator=torch_stream(0, "gradients")))
    exchange = GradientExchange()
    exchange.start(LocalFleet(K), replicas, Setting(K, replicas.d))
    return exchange


def test_every_worker_gets_the_mean(exchange):
    before = exchange.models.gradients.clone()
    exchange.step(torch.ones(K, dtype=torch.bool))
    torch.testing.assert_close(exchange.models.gradients, before.mean(dim=0).expand(K, -1))
    ledger = exchange.fleet.ledger
    assert ledger.by_kind() == {**dict.fromkeys(ledger.by_kind(), 0), "gradient": K * 8 * 53}


def test_only_participants_count(exchange):
    who = torch.tensor([True, False, True, False])
    expected = exchange.models.gradients[who].mean(dim=0)
    exchange.models.gradients[~who] = torch.nan
    exchange.step(who)
    torch.testing.assert_close(exchange.models.gradients, expected.expand(K, -1))
    assert exchange.fleet.ledger.sent("gradient").tolist() == [4 * 53, 0, 4 * 53, 0]


@pytest.mark.parametrize("optimizer", [SGD, torch.optim.Adam])
def test_synchronous_training_is_one_worker_with_a_large_batch(optimizer):
    task = mlp_task(optimizer=optimizer)
    simulation = tacit.Simulation(task, tacit.synchronous(), LocalFleet(K), seed=1)
    parameters = simulation.replicas.parameters[0].clone()
    module = perceptron()
    nn.utils.vector_to_parameters(parameters, module.parameters())
    plain = optimizer(module.parameters())
    for step in range(6):
        batch = np.concatenate([shard.at(step) for shard in simulation.training.feed.shards])
        x, y = task.train.batch(batch)
        plain.zero_grad()
        task.loss(module(x), y).backward()
        plain.step()
        assert simulation.step()
    got = simulation.replicas.parameters
    assert not (got - got[0]).any()  # equal to the bit, as under DistributedDataParallel
    expected = nn.utils.parameters_to_vector(module.parameters()).detach()
    torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-5)
    assert simulation.fleet.ledger.bytes() == 6 * K * 8 * 53
