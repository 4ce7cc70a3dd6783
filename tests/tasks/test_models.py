from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tacit.rng import scoped
from tacit.tasks.models import MODELS, LeNet5
from tacit.tasks.models.initialise import glorot_normal, glorot_uniform, he_normal
from tacit.tasks.task import binary_loss
from tacit.tasks.text import character_loss

CASES = {
    "mlp": (4_810, (64,)),
    "lenet5": (61_706, (1, 28, 28)),
    "vgg16": (2_592_202, (1, 28, 28)),
    "densenet121": (6_964_106, (3, 32, 32)),
    "densenet201": (18_112_138, (3, 32, 32)),
    "kamp-cnn": (21_840, (1, 28, 28)),
    "kamp-mlp": (7_601, (150,)),
    "linear": (151, (150,)),
    "resnet20": (269_722, (3, 32, 32)),
    "resnet110": (1_727_962, (3, 32, 32)),
    "monna-cnn": (431_080, (1, 28, 28)),
    "monna-cifar": (1_310_922, (3, 32, 32)),
    "char-lstm": (243_969, (64,)),
    "gru": (66_570, (100, 40)),
}


def build(name: str) -> nn.Module:
    with scoped(0, "model"):
        return MODELS[name]()


def test_every_model_has_a_case() -> None:
    assert set(CASES) == set(MODELS)


@pytest.mark.parametrize("name", CASES)
def test_sizes_and_gradients(name: str) -> None:
    count, shape = CASES[name]
    model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    inputs = torch.rand(4, *shape)
    logits = model((65 * inputs).long() if name == "char-lstm" else inputs)
    if name == "char-lstm":
        assert logits.shape == (4, 64, 65)
        character_loss(logits, (65 * inputs).long()).backward()
    elif name in ("kamp-mlp", "linear"):
        assert logits.shape == (4, 1)
        binary_loss(logits, torch.arange(4) % 2).backward()
    else:
        assert logits.shape == (4, 10)
        F.cross_entropy(logits, torch.arange(4)).backward()
    for parameter in model.parameters():
        assert parameter.is_contiguous()
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    "name",
    [
        "mlp", "lenet5", "vgg16", "densenet121", "kamp-cnn", "kamp-mlp", "resnet20", "char-lstm",
        "gru",
    ],
)  # fmt: skip
def test_initial_weights_come_from_the_default_generator(name: str) -> None:
    one, same = build(name), build(name)
    for first, second in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(first, second)
    with scoped(1, "model"):
        other = MODELS[name]()
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_outputs_are_logits() -> None:
    sums = build("lenet5")(torch.rand(8, 1, 28, 28)).sum(dim=1)
    assert (sums - 1).abs().min() > 1e-3


def plain_lenet(model: LeNet5) -> nn.Sequential:
    """The textbook LeNet-5 that shares the parameters of ``model``."""
    return nn.Sequential(
        model.conv1, nn.Tanh(), nn.AvgPool2d(2), model.conv2, nn.Tanh(), nn.AvgPool2d(2),
        model.classifier,
    )  # fmt: skip


def test_lenet_equals_the_textbook_network_forward_and_backward() -> None:
    model = build("lenet5")
    assert isinstance(model, LeNet5)
    with scoped(0, "input"):
        images, targets = torch.rand(32, 1, 28, 28), torch.randint(10, (32,))
        for parameter in model.parameters():  # away from zero biases and small activations
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    results = []
    for network in (model, plain_lenet(model)):
        logits = network(images)
        loss = F.cross_entropy(logits, targets)
        results.append((logits, *torch.autograd.grad(loss, list(model.parameters()))))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=2e-6)


def test_lenet_is_exact_in_double_precision() -> None:
    model = build("lenet5").double()
    assert isinstance(model, LeNet5)
    images = torch.rand(8, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(model(images), plain_lenet(model)(images), rtol=1e-12, atol=1e-13)


def test_lenet_runs_batched_over_workers() -> None:
    model = build("lenet5")
    images = torch.rand(3, 4, 1, 28, 28)
    stacked = {name: p.detach().expand(3, *p.shape) for name, p in model.named_parameters()}
    call = torch.func.vmap(lambda p, x: torch.func.functional_call(model, p, (x,)))
    batched = call(stacked, images)
    for worker in range(3):
        torch.testing.assert_close(batched[worker], model(images[worker]), rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    for name in ("vgg16", "densenet121"):
        model = build(name)
        images = torch.rand(2, *CASES[name][1])
        model.train()
        with scoped(0, "dropout"):
            assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(("name", "dropouts"), [("densenet121", 58 * 2), ("densenet201", 98 * 2)])
def test_densenet_has_keras_constants(name: str, dropouts: int) -> None:
    layers = list(build(name).modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1.001e-5, 0.01)}
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Conv2d))
    drops = [layer for layer in layers if isinstance(layer, nn.Dropout)]
    assert len(drops) == dropouts
    assert {drop.p for drop in drops} == {0.2}


def test_glorot_uniform_has_keras_bounds() -> None:
    layers = nn.Sequential(nn.Conv2d(8, 16, 5), nn.Linear(300, 200))
    with scoped(0, "init"):
        glorot_uniform(layers)
    for layer, fans in zip(layers, ((8 + 16) * 25, 500), strict=True):
        bound = math.sqrt(6 / fans)
        assert layer.weight.abs().max() <= bound
        assert layer.weight.abs().max() > 0.99 * bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert (layer.bias == 0).all()


def test_glorot_normal_has_its_variance_and_is_not_cut() -> None:
    layers = nn.Sequential(nn.Conv2d(8, 16, 5), nn.Linear(300, 200))
    with scoped(0, "init"):
        glorot_normal(layers)
    for layer, fans in zip(layers, ((8 + 16) * 25, 500), strict=True):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.05)
        assert layer.weight.abs().max() > 3 * math.sqrt(2 / fans)
        assert (layer.bias == 0).all()


def test_kamp_cnn_is_the_network_of_the_example_and_drops_whole_channels() -> None:
    model = build("kamp-cnn").eval()
    conv1, conv2 = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    hidden, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    with scoped(0, "input"):
        images = torch.rand(8, 1, 28, 28)
    x = F.relu(F.max_pool2d(conv1(images), 2))
    x = F.relu(F.max_pool2d(conv2(x), 2))
    expected = last(F.relu(hidden(x.flatten(1))))
    torch.testing.assert_close(model(images), expected)
    dropped = []
    channels = next(m for m in model.modules() if isinstance(m, nn.Dropout2d))
    channels.register_forward_hook(lambda _, __, output: dropped.append(output))
    model.train()
    with scoped(0, "dropout"):
        model(images)
    empty = (dropped[0] == 0).flatten(2)
    assert (empty.all(dim=2) == empty.any(dim=2)).all()
    assert 0.3 < empty.all(dim=2).float().mean() < 0.7


def test_the_networks_of_the_monna_experiments() -> None:
    """Layer by layer as published; batch norm comes after ReLU."""
    cnn, cifar = build("monna-cnn"), build("monna-cifar")
    counts = [
        sum(p.numel() for p in m.parameters()) for m in cnn.modules() if not list(m.children())
    ]
    assert [count for count in counts if count] == [520, 25_050, 400_500, 5_010]
    layers = [m for m in cifar.modules() if not list(m.children())]
    kinds = [type(m).__name__ for m in layers if not isinstance(m, nn.Flatten)]
    pair = ["Conv2d", "ReLU", "BatchNorm2d"] * 2
    assert kinds[:16] == [*pair, "MaxPool2d", "Dropout"] * 2
    assert kinds[16:] == ["Linear", "ReLU", "Dropout", "Linear"]
    counts = [sum(p.numel() for p in m.parameters()) for m in layers]
    expected = [1_792, 128, 36_928, 128, 73_856, 256, 147_584, 256, 1_048_704, 1_290]
    assert [count for count in counts if count] == expected
    assert [m.p for m in layers if isinstance(m, nn.Dropout)] == [0.25] * 3
    # the first normalises its pixels itself
    images = torch.rand(2, 1, 28, 28)
    plain = nn.Sequential(*[m for m in cnn.modules() if not list(m.children())])
    torch.testing.assert_close(cnn(images), plain((images - 0.1307) / 0.3081))


def test_he_normal_is_cut_and_keeps_its_variance() -> None:
    weight = torch.empty(256, 64, 3, 3)
    with scoped(0, "init"):
        he_normal(weight)
    wanted = math.sqrt(2 / (64 * 9))
    assert weight.std().item() == pytest.approx(wanted, rel=0.01)
    limit = 2 * wanted / 0.8796
    assert 0.99 * limit < weight.abs().max() <= limit * 1.0001
