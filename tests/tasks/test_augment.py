from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tacit
from helpers.tasks import ADAM, conv_task, mlp_task
from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.simulate import Simulation
from tacit.tasks.augment import crop_and_flip
from tacit.tasks.data import TensorData
from tacit.tasks.feed import Feed, feed_of
from tacit.tasks.registry import TASKS, load

SEED, K = 3, 6
SHIFT = partial(crop_and_flip, padding=1)


def images(n: int = 5, c: int = 3, h: int = 4, w: int = 6) -> Tensor:
    """All pixels differ, none is 0."""
    return torch.arange(1.0, n * c * h * w + 1).view(n, c, h, w)


def feed(hosted: range = range(K), **changes: Any) -> Feed:
    task = conv_task(**{"augment": SHIFT, **changes})
    return feed_of(task, None, "iid", K, hosted, task.batch_size, SEED, "shuffle")[0]


# -- the transformation


def crops(image: Tensor, padding: int) -> list[Tensor]:
    """Every crop of a padded image (c, h, w), and of its mirror image."""
    _, h, w = image.shape
    found = []
    for one in (image, image.flip(2)):
        padded = F.pad(one, (padding,) * 4)
        sides = range(2 * padding + 1)
        found += [padded[:, top : top + h, left : left + w] for top in sides for left in sides]
    return found


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4), padding=st.integers(0, 4), seed=st.integers(0, 99)
)
def test_each_output_is_a_crop_of_the_padded_image_or_of_its_mirror_image(
    shape: tuple[int, int, int, int], padding: int, seed: int
) -> None:
    before = images(*shape)
    kept = before.clone()
    after = crop_and_flip(before, np.random.default_rng(seed), padding)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    for image, changed in zip(before, after, strict=True):
        assert any(torch.equal(changed, crop) for crop in crops(image, padding))
    assert torch.equal(before, kept)


def test_every_crop_and_both_directions_are_equally_likely() -> None:
    n, padding = 9000, 1
    one = images(1, 1, 3, 3)
    after = crop_and_flip(one.expand(n, -1, -1, -1), np.random.default_rng(0), padding)
    counts = [int((after == crop).flatten(1).all(1).sum()) for crop in crops(one[0], padding)]
    assert len(counts) == 18
    assert sum(counts) == n
    # 17 degrees of freedom: above 50 with probability 4e-5
    assert sum((count - n / 18) ** 2 / (n / 18) for count in counts) < 50


def test_without_padding_images_are_only_mirrored() -> None:
    before = images(20)
    after = crop_and_flip(before, np.random.default_rng(0), padding=0)
    mirrored = (after == before.flip(3)).flatten(1).all(1)
    assert 0 < mirrored.sum() < 20
    assert torch.equal(after[~mirrored], before[~mirrored])


def test_inputs_that_are_no_images_and_negative_padding() -> None:
    with pytest.raises(UserError, match=r"takes images \(n, c, h, w\), got .* \(4, 6\)"):
        crop_and_flip(torch.zeros(4, 6), np.random.default_rng(0))
    with pytest.raises(UserError, match="padding of crop_and_flip is -1"):
        crop_and_flip(images(), np.random.default_rng(0), padding=-1)


# -- in a worker's batches


def test_a_batch_is_its_samples_changed_by_the_stream_of_worker_and_draw() -> None:
    changed, plain = feed(), feed(augment=None)
    for worker, draw in ((0, 0), (4, 7)):
        inputs, targets = changed.take([worker], [draw])
        before, expected = plain.take([worker], [draw])
        rng = numpy_stream(SEED, "augment", worker, draw)
        assert torch.equal(inputs, crop_and_flip(before, rng, 1))
        assert not torch.equal(inputs, before)
        assert torch.equal(targets, expected)
        assert torch.equal(changed.take([worker], [draw])[0], inputs)


def test_workers_and_draws_have_random_numbers_of_their_own() -> None:
    def number(inputs: Tensor, rng: np.random.Generator) -> Tensor:
        return torch.full((len(inputs),), rng.random(), dtype=torch.float64)

    numbered = feed(augment=number)
    numbers = [numbered.take(range(K), [draw] * K)[0].tolist() for draw in range(5)]
    assert all(batch[::4] == batch[3::4] for batch in numbers)
    assert len({one for batch in numbers for one in batch}) == 5 * K


@pytest.mark.parametrize("hosted", [range(1), range(2, 5), range(5, 6)])
def test_a_batch_does_not_depend_on_who_is_hosted_beside_the_worker(hosted: range) -> None:
    draws = [4, 0, 9, 2, 7, 1]
    everybody = feed().take(range(K), draws)
    some = feed(hosted).take(range(len(hosted)), [draws[worker] for worker in hosted])
    for all_of_them, mine in zip(everybody, some, strict=True):
        assert torch.equal(all_of_them.view(K, 4, *mine.shape[1:])[hosted].flatten(0, 1), mine)


def simulation() -> Simulation:
    task = conv_task(optimizer=ADAM, augment=SHIFT)
    return Simulation(task, tacit.fda(0.02), tacit.LocalFleet(3), seed=1)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit() -> None:
    whole, first, second = simulation(), simulation(), simulation()
    for _ in range(4):
        first.step()
    states = {worker: first.worker_state(worker) for worker in range(3)}
    second.load_state(*pickle.loads(pickle.dumps((first.shared_state(), states))))
    for _ in range(9):
        whole.step()
    for _ in range(5):
        second.step()
    assert torch.equal(second.replicas.parameters, whole.replicas.parameters)


def test_training_data_are_changed_and_test_data_are_not() -> None:
    seen = []

    def note(inputs: Tensor, rng: np.random.Generator) -> Tensor:
        seen.append(len(inputs))
        return inputs

    run = Simulation(conv_task(augment=note), tacit.fda(0.02), tacit.LocalFleet(3))
    run.step()
    assert seen == [4, 4, 4]
    run.evaluate()
    assert seen == [4, 4, 4]


def test_a_batched_pass_takes_the_same_batches_as_a_loop() -> None:
    """Inputs of noise, added by the worker's own random numbers."""

    def noisy(inputs: Tensor, rng: np.random.Generator) -> Tensor:
        return inputs + torch.from_numpy(rng.normal(size=inputs.shape)).float()

    task = mlp_task(augment=noisy)
    runs = [
        Simulation(task, tacit.local_sgd(9), tacit.LocalFleet(3), execution=way)
        for way in ("loop", "batched")
    ]
    for run in runs:
        for _ in range(3):
            run.step()
    torch.testing.assert_close(runs[0].replicas.parameters, runs[1].replicas.parameters)


# -- of the built-in tasks


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 replaced by a few random images."""
    part = TensorData(torch.rand(8, 3, 32, 32), torch.arange(8))
    monkeypatch.setitem(TASKS, "cifar10", TASKS["cifar10"]._replace(load=lambda data: (part, part)))


@pytest.mark.usefixtures("photographs")
def test_cifar10_is_augmented_for_residual_networks_or_where_asked() -> None:
    for model in ("resnet20", "resnet110"):
        assert load("cifar10", model).augment is crop_and_flip
        assert load("cifar10:augment=false", model).augment is None
    assert load("cifar10").augment is None
    asked = load("cifar10:augment=true", "densenet121")
    assert asked.augment is crop_and_flip
    assert asked.name == "cifar10:augment=true"
    with pytest.raises(UserError, match="task cifar10: augment is true or false, not 2"):
        load("cifar10:augment=2")
    with pytest.raises(UserError, match="option of task cifar10: 'augmet'; did you mean 'augment'"):
        load("cifar10:augmet=true")


def test_other_tasks_are_not_augmented() -> None:
    assert [name for name, source in TASKS.items() if source.augment is not None] == ["cifar10"]
    assert load("digits").augment is None
    with pytest.raises(UserError, match="'digits' takes no options"):
        load("digits:augment=true")


def test_streams_are_not_augmented() -> None:
    task = conv_task(augment=SHIFT, stream=load("graphical").stream)
    with pytest.raises(UserError, match="tiny-conv is a stream, which is not augmented"):
        Simulation(task, tacit.local_sgd(), tacit.LocalFleet(2))
