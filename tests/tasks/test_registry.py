from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from tacit.errors import MissingExtra, UserError
from tacit.rng import scoped
from tacit.tasks import registry
from tacit.tasks.data import TensorData
from tacit.tasks.digits import stratified_choice
from tacit.tasks.registry import TASKS, TRAINING, find, load
from tacit.tasks.streams import Stream
from tacit.tasks.task import Task, parameter_groups


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets on disk replaced by a few random samples, so every task loads at once."""
    images = {"mnist": (1, 28, 28), "mnist-stream": (1, 28, 28), "cifar10": (3, 32, 32)}
    parts = {name: TensorData(torch.rand(4, *s), torch.arange(4)) for name, s in images.items()}
    text = torch.randint(65, (4, 64))
    parts["shakespeare"] = TensorData(text, text)
    parts["fsdd"] = TensorData(torch.rand(4, 100, 40), torch.arange(4))
    for name, part in parts.items():
        small = TASKS[name]._replace(load=lambda data, part=part: (part, part))
        monkeypatch.setitem(TASKS, name, small)


def test_digits_are_split_by_class_and_always_the_same() -> None:
    task = load("digits")
    assert (len(task.train), len(task.test)) == (1437, 360)
    inputs, _ = task.train.batch(np.arange(1437))
    assert inputs.shape == (1437, 64)
    assert inputs.dtype == torch.float32
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)
    assert task.train.labels is not None
    assert task.test.labels is not None
    train, test = task.train.labels.bincount(), task.test.labels.bincount()
    share = 360 / 1797
    assert ((test - share * (train + test)).abs() <= 1).all()
    again = load("digits").test.batch(np.arange(360))[0]
    assert torch.equal(again, task.test.batch(np.arange(360))[0])


def test_stratified_choice_is_shuffled_within_classes() -> None:
    labels = np.repeat([0, 1], 100)
    chosen = stratified_choice(labels, 40)
    assert len(np.unique(chosen)) == 40
    assert (labels[chosen] == 0).sum() == 20
    assert chosen[:20].max() > 50


def test_digits_can_be_learnt() -> None:
    task = load("digits")
    with scoped(0, "model"):
        model = task.model()
    optimizer = task.optimizer(parameter_groups(task, model))
    inputs, targets = task.train.batch(np.arange(len(task.train)))
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(model(inputs), targets).backward()
        optimizer.step()
    inputs, targets = task.test.batch(np.arange(len(task.test)))
    assert (model(inputs).argmax(1) == targets).float().mean() > 0.85


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name, source in TASKS.items() for model in source.models]
)
def test_every_task_makes_a_step_with_every_model(name: str, model: str) -> None:
    task = load(name, model)
    network = task.model()
    optimizer = task.optimizer(parameter_groups(task, network))
    inputs, targets = task.train.batch(np.arange(4))
    loss = task.loss(network(inputs), targets)
    loss.backward()
    optimizer.step()
    assert loss.shape == ()
    assert task.name == name
    assert model in task.description


@pytest.mark.usefixtures("small_data")
def test_published_settings() -> None:
    for name, model in (("mnist", None), ("mnist", "vgg16")):
        task = load(name, model)
        adam = task.optimizer(parameter_groups(task, task.model()))
        assert isinstance(adam, torch.optim.Adam)
        assert adam.defaults["lr"] == 1e-3
        assert adam.defaults["eps"] == 1e-7
        assert adam.defaults["betas"] == (0.9, 0.999)
        assert task.batch_size == 32
        assert task.kernel_decay == 0.0
    task = load("cifar10")
    sgd = task.optimizer(parameter_groups(task, task.model()))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.1, 0.9, 1)
    assert [group["weight_decay"] for group in sgd.param_groups] == [2e-4, 0.0]


def test_optimizers_can_be_printed() -> None:
    for training in TRAINING.values():
        assert "lr=" in repr(training.optimizer)
        assert " at 0x" not in repr(training.optimizer)


def task_with(model: nn.Module, kernel_decay: float) -> Task:
    data = TensorData(torch.zeros(1), torch.zeros(1))
    return Task("t", data, data, lambda: model, registry.ADAM, kernel_decay=kernel_decay)


def test_kernels_decay_and_nothing_else_does() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    decayed, others = parameter_groups(task_with(model, 2e-4), model)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert decayed["weight_decay"] == 2e-4
    assert others["weight_decay"] == 0.0
    assert len(others["params"]) == 4


def test_decay_is_the_gradient_of_keras_l2() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    groups = parameter_groups(task_with(model, 2e-4), model)
    optimizer = torch.optim.SGD(groups, lr=1.0)
    (0.0 * model(torch.ones(1, 3)).sum()).backward()
    optimizer.step()
    penalised = before.clone().requires_grad_()
    (1e-4 * penalised.square().sum()).backward()
    torch.testing.assert_close(model.weight.detach(), before - penalised.grad)


def test_without_decay_there_is_one_group_of_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].weight.requires_grad_(False)
    (group,) = parameter_groups(task_with(model, 0.0), model)
    assert [id(p) for p in group["params"]] == [id(p) for p in list(model.parameters())[1:]]


def test_groups_without_members_are_left_out() -> None:
    model = nn.Linear(3, 2, bias=False)
    assert len(parameter_groups(task_with(model, 1e-4), model)) == 1


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        load("minst")
    with pytest.raises(UserError, match="did you mean 'lenet5'"):
        load("mnist", model="lenet")
    with pytest.raises(UserError, match=r"for task 'digits'.*choose from mlp"):
        load("digits", model="densenet121")


STREAMS = [name for name, source in TASKS.items() if source.stream is not None]


def test_plain_tasks_have_no_stream_and_take_no_options() -> None:
    assert load("digits").stream is None
    for name in ("digits:drift=1", "digits:"):
        with pytest.raises(UserError, match=f"'digits' takes no options, but got '{name}'"):
            load(name)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", STREAMS)
def test_streams_take_options(name: str) -> None:
    task = load(f"{name}:at=2/4,rates=1/2")
    assert task.stream is not None
    assert task.name == f"{name}:at=2/4,rates=1/2"
    stream = task.stream(3, 1, 0)
    assert stream.sizes == [1, 2, 1]
    assert stream.drifts(0, 10) == [2, 4]
    with pytest.raises(UserError, match=rf"option of task {name}: 'driff'; did you mean 'drift'"):
        load(f"{name}:driff=0.1")
    with pytest.raises(UserError, match=f"task {name}: drift must be a number between 0 and 1"):
        load(f"{name}:drift=2")


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", STREAMS)
def test_streams_train_by_plain_sgd_on_batches_of_ten(name: str) -> None:
    task = load(name)
    assert task.batch_size == 10
    sgd = task.optimizer(parameter_groups(task, task.model()))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"]) == (0.1, 0)


def test_options_reach_the_stream() -> None:
    def stream(name: str) -> Stream:
        factory = load(name).stream
        assert factory is not None
        return factory(2, 10, 0)

    swapped = stream("digits-stream:kind=swap,at=3")
    labels = (swapped.test(2).labels, swapped.test(3).labels)
    assert labels[0] is not None
    assert 0.7 < (labels[0] == labels[1]).float().mean() < 0.9
    assert swapped.rounds == 143
    assert stream("separator").rounds is None
    assert stream("graphical:local=true,drift=1").drifts(0, 9) == []
    easy = stream("graphical:q-low=0.4,q-high=0.45,rho-low=0.4,rho-high=0.45")
    assert easy.oracle(0, 0) < 0.05  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"task graphical: q_low is 0.4, above q_high"):
        load("graphical:q_low=0.4")


def test_generated_tasks_have_samples_to_look_at() -> None:
    for name in ("graphical", "separator"):
        task = load(name)
        assert len(task.train) == len(task.test) == 2000
        assert not torch.equal(task.train.batch(np.arange(9))[0], task.test.batch(np.arange(9))[0])
        with pytest.raises(UserError, match="makes its own samples; leave out the data folder"):
            load(name, data="anywhere")


def test_streams_can_be_learnt() -> None:
    """One worker with large batches: well above chance after 100 rounds."""
    for name in ("graphical:drift=0", "separator:noise=0,drift=0", "digits-stream"):
        task = load(name)
        assert task.stream is not None
        stream = task.stream(1, 14, 0) if name == "digits-stream" else task.stream(1, 100, 0)
        with scoped(0, "model"):
            model = task.model()
        optimizer = task.optimizer(parameter_groups(task, model))
        for round in range(100):
            inputs, targets = stream.batch(0, round)
            optimizer.zero_grad()
            task.loss(model(inputs), targets).backward()
            optimizer.step()
        test = stream.test(99)
        inputs, targets = test.batch(np.arange(len(test)))
        assert task.correct(model(inputs), targets).float().mean() > 0.75


def test_find_looks_at_the_name_alone() -> None:
    for name, source in TASKS.items():
        assert find(name) is find(f"{name}:at=5,what=ever") is source
    with pytest.raises(UserError, match="did you mean 'graphical'"):
        find("grafical:drift=0")


def test_digits_take_no_folder() -> None:
    with pytest.raises(UserError, match="comes with scikit-learn"):
        load("digits", data="anywhere")


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"scikit-learn .* 'tacit\[data\]'"):
        load("digits")
