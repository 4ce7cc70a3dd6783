from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from helpers.tasks import convolution, perceptron
from tacit.errors import UserError
from tacit.replicas import Replicas


class Tied(nn.Module):
    """Two names for one weight, a frozen layer, and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * self.second(self.frozen(self.first(x)).tanh())


@pytest.fixture
def replicas() -> Replicas:
    torch.manual_seed(0)
    return Replicas(perceptron(), 3)


def test_all_rows_start_as_the_module():
    module = perceptron()
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    replicas = Replicas(module, 3)
    assert len(replicas) == 3
    assert replicas.d == flat.numel() == 53
    assert torch.equal(replicas.parameters, flat.expand(3, -1))
    assert replicas.gradients.shape == (3, 53)
    assert not replicas.gradients.any()
    assert replicas.buffers.shape == (3, 0)


def test_bind_makes_the_module_a_view_of_one_row(replicas):
    module = replicas.bind(1)
    before = replicas.parameters.clone()
    with torch.no_grad():
        module[0].weight += 1.0
    changed = (replicas.parameters != before).nonzero()
    assert set(changed[:, 0].tolist()) == {1}
    assert set(changed[:, 1].tolist()) == set(range(30))  # the first weight is 5 x 6
    replicas.parameters[1] = 7.0
    assert all(bool((p == 7.0).all()) for p in module.parameters())


def test_backward_fills_the_gradients_of_the_bound_row_alone(replicas):
    module = replicas.bind(2)
    x = torch.randn(4, 6)
    module(x).square().sum().backward()
    reference = copy.deepcopy(module)
    reference.zero_grad()
    reference(x).square().sum().backward()
    expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
    assert torch.equal(replicas.gradients[2], expected)
    assert not replicas.gradients[:2].any()


def test_show_neither_trains_nor_changes_rows(replicas):
    before = replicas.parameters.clone()
    module = replicas.show(torch.full((53,), 3.0), torch.zeros(0))
    assert all(bool((p == 3.0).all()) and p.grad is None for p in module.parameters())
    assert torch.equal(replicas.parameters, before)
    assert torch.equal(torch.cat([p.flatten() for p in replicas.bind(0).parameters()]), before[0])


def test_tied_parameters_are_one_and_frozen_ones_are_shared():
    module = Tied()
    frozen = module.frozen.weight.clone()
    replicas = Replicas(module, 2)
    assert replicas.d == 16 + 4 + 1
    bound = replicas.bind(1)
    assert bound.first.weight is bound.second.weight
    with torch.no_grad():
        bound.first.weight.fill_(5.0)
        bound.scale.fill_(9.0)
    assert bool((replicas.bind(1).second.weight == 5.0).all())
    assert not bool((replicas.bind(0).second.weight == 5.0).any())
    assert replicas.bind(0).scale.item() == 2.0
    assert replicas.bind(1).scale.item() == 9.0
    assert torch.equal(replicas.bind(1).frozen.weight, frozen)
    assert replicas.bind(1).frozen.weight is module.frozen.weight


def test_gradients_of_a_tied_parameter_add_up():
    module = Tied()
    reference = copy.deepcopy(module)
    replicas = Replicas(module, 2)
    x = torch.randn(3, 4)
    replicas.bind(0)(x).sum().backward()
    reference(x).sum().backward()
    expected = [p.grad.flatten() for p in reference.parameters() if p.requires_grad]
    torch.testing.assert_close(replicas.gradients[0], torch.cat(expected))


def test_stacked_leaves_are_views_by_name():
    replicas = Replicas(Tied(), 2)
    leaves, targets = replicas.stacked()
    assert set(leaves) == {"first.weight", "second.bias", "scale"}
    assert {n: tuple(t.shape) for n, t in leaves.items()} == {
        "first.weight": (2, 4, 4),
        "second.bias": (2, 4),
        "scale": (2,),
    }
    for target, leaf in zip(targets, leaves.values(), strict=True):
        assert target.shape == leaf.shape
        assert leaf.requires_grad
        assert leaf.is_leaf
    replicas.parameters.fill_(4.0)
    assert all(bool((leaf == 4.0).all()) for leaf in leaves.values())
    for target in targets:
        target.fill_(1.0)
    assert bool((replicas.gradients == 1.0).all())


def test_buffers_and_counters_belong_to_workers():
    replicas = Replicas(convolution(), 2)
    module = replicas.bind(0).train()
    module(torch.randn(5, 1, 6, 6) + 3.0)
    module(torch.randn(5, 1, 6, 6) + 3.0)
    replicas.bind(1).train()(torch.randn(5, 1, 6, 6) - 3.0)
    untouched = torch.tensor([0.0] * 3 + [1.0] * 3)
    assert (replicas.buffers - untouched).abs().amin(dim=1).gt(0).all()
    assert not torch.equal(replicas.buffers[0], replicas.buffers[1])
    name = "1.num_batches_tracked"
    assert [counters[name].item() for counters in replicas.counters] == [2, 1]
    mean = replicas.bind(0)[1].running_mean
    assert mean.data_ptr() == replicas.buffers[0].data_ptr()


def test_groups_are_blocks_of_columns_for_an_optimizer_of_all_rows():
    module = perceptron()
    kernels = [module[0].weight, module[2].weight]
    others = [module[0].bias, module[2].bias]
    groups = [{"params": kernels, "weight_decay": 0.1}, {"params": others, "lr": 0.5}]
    replicas = Replicas(module, 3, groups)
    first, second = replicas.column_blocks()
    assert (first["weight_decay"], second["lr"]) == (0.1, 0.5)
    assert first["params"][0].shape == (3, 45)
    assert second["params"][0].shape == (3, 8)
    with torch.no_grad():
        second["params"][0].fill_(6.0)
        second["params"][0].grad.fill_(2.0)
    module = replicas.bind(2)
    assert bool((module[0].bias == 6.0).all())
    assert bool((module[2].bias == 6.0).all())
    assert not bool((module[0].weight == 6.0).any())
    assert bool((module[0].bias.grad == 2.0).all())
    assert not module[0].weight.grad.any()


def test_one_group_is_all_rows_with_their_padding():
    replicas = Replicas(perceptron(), 3)
    (block,) = replicas.column_blocks()
    (parameter,) = block["params"]
    assert parameter.shape == parameter.grad.shape == (3, 64)
    assert torch.equal(parameter[:, :53], replicas.parameters)
    assert not parameter[:, 53:].any()


def test_rows_start_at_the_same_place_in_a_cache_line():
    """What a vector instruction sees must not depend on which rows are hosted beside a row."""
    replicas = Replicas(perceptron(), 5)
    starts = {replicas.parameters[row].data_ptr() % 64 for row in range(5)}
    assert len(starts) == 1
    assert {replicas.gradients[row].data_ptr() % 64 for row in range(5)} == starts


def test_row_blocks_are_views_in_the_modules_shapes():
    module = Tied()
    groups = [{"params": [module.scale]}, {"params": [module.first.weight, module.second.bias]}]
    replicas = Replicas(module, 2, groups)
    blocks = replicas.row_blocks(1)
    shapes = [[tuple(p.shape) for p in block["params"]] for block in blocks]
    assert shapes == [[(1,)], [(4, 4), (4,)]]
    with torch.no_grad():
        blocks[1]["params"][0].fill_(3.0)
    blocks[0]["params"][0].grad.fill_(2.0)
    assert bool((replicas.bind(1).first.weight == 3.0).all())
    assert replicas.bind(1).scale.grad.item() == 2.0
    assert replicas.gradients[0].abs().sum() == 0


def test_worker_state_goes_to_any_row():
    source = Replicas(convolution(), 2)
    source.parameters.normal_()
    source.bind(1).train()(torch.randn(4, 1, 6, 6))
    target = Replicas(convolution(), 3)
    target.load_worker_state(2, source.worker_state(1))
    assert torch.equal(target.parameters[2], source.parameters[1])
    assert torch.equal(target.buffers[2], source.buffers[1])
    assert target.counters[2]["1.num_batches_tracked"].item() == 1
    assert target.counters[0]["1.num_batches_tracked"].item() == 0
    source.parameters.zero_()
    source.counters[1]["1.num_batches_tracked"].zero_()
    assert target.parameters[2].any()
    assert target.counters[2]["1.num_batches_tracked"].item() == 1


def test_models_that_cannot_be_trained():
    frozen = perceptron().requires_grad_(False)
    with pytest.raises(UserError, match="no trainable parameters"):
        Replicas(frozen, 2)
    with pytest.raises(UserError, match="float32"):
        Replicas(perceptron().double(), 2)


class Reassigning(nn.Module):
    """Counts its passes in a buffer that it replaces, and shares that buffer with a child."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.register_buffer("passes", torch.zeros(1))
        self.linear.register_buffer("same", self.passes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.linear.same is self.passes or torch.equal(self.linear.same, self.passes)
        self.passes = self.passes + 1
        return self.linear(x)


def test_a_buffer_that_a_module_replaces_is_kept_and_a_shared_one_stays_shared():
    replicas = Replicas(Reassigning(), 2)
    assert replicas.buffers.shape == (2, 1)  # one buffer under two names
    for _ in range(3):
        replicas.bind(1)(torch.ones(1, 2))
        replicas.collect(1)
    assert replicas.buffers.flatten().tolist() == [0.0, 3.0]
