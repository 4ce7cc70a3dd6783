from __future__ import annotations

import pytest
import torch
from torch import nn

from tacit.rng import scoped
from tacit.tasks.data import TensorData
from tacit.tasks.models import resnet20, resnet110
from tacit.tasks.models.resnet import Block
from tacit.tasks.registry import TASKS, load
from tacit.tasks.task import parameter_groups


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> TensorData:
    """What CIFAR-10 is replaced by: a few random images."""
    with scoped(0, "images"):
        part = TensorData(torch.rand(16, 3, 32, 32), torch.arange(16) % 4)
    monkeypatch.setitem(TASKS, "cifar10", TASKS["cifar10"]._replace(load=lambda data: (part, part)))
    return part


def test_resnet_halves_the_image_twice_and_its_shortcuts_have_no_parameters() -> None:
    model = resnet20().eval()
    blocks = [layer for layer in model.modules() if isinstance(layer, Block)]
    shapes = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.rand(2, 3, 32, 32))
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 19
    assert len([p for p in resnet110().parameters() if p.ndim == 4]) == 109


def test_resnet_shortcut_keeps_every_second_pixel_and_pads_with_zero_channels() -> None:
    block = Block(16, 32).eval()
    nn.init.zeros_(block.residual[-1].weight)
    with scoped(0, "input"):
        features = torch.rand(2, 16, 8, 8)
    output = block(features)
    assert torch.equal(output[:, 8:24], features[:, :, ::2, ::2])
    assert (output[:, :8] == 0).all()
    assert (output[:, 24:] == 0).all()
    same = Block(16, 16).eval()
    nn.init.zeros_(same.residual[-1].weight)
    assert torch.equal(same(features), features)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", ["resnet20", "resnet110"])
def test_published_settings(name: str) -> None:
    task = load("cifar10", name)
    sgd = task.optimizer(parameter_groups(task, nn.Linear(2, 2)))
    assert isinstance(sgd, torch.optim.SGD)
    chosen = {name: sgd.defaults[name] for name in ("lr", "momentum", "nesterov")}
    assert chosen == {"lr": 0.1, "momentum": 0.9, "nesterov": False}
    assert [group["weight_decay"] for group in sgd.param_groups] == [1e-4]
    assert task.batch_size == 128


def test_resnet20_learns_a_few_images(images: TensorData) -> None:
    task = load("cifar10", "resnet20")
    with scoped(0, "model"):
        model = task.model()
    optimizer = task.optimizer(parameter_groups(task, model))
    inputs, targets = images.inputs, images.targets
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
