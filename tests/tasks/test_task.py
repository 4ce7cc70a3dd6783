from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from tacit.tasks.task import argmax_correct, binary_correct, binary_loss

LOGITS = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
TARGETS = torch.tensor([1, 1, 0, 0])


@pytest.mark.parametrize("outputs", [LOGITS, LOGITS[:, 0]])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_binary_loss_and_answers(outputs: torch.Tensor, dtype: torch.dtype) -> None:
    targets = TARGETS.to(dtype)
    expected = torch.log1p(torch.exp(torch.tensor([-2.0, 1.0, 0.5, -3.0]))).mean()
    torch.testing.assert_close(binary_loss(outputs, targets), expected)
    assert binary_correct(outputs, targets).tolist() == [True, False, False, True]


def test_one_sample() -> None:
    for outputs in (torch.tensor([0.3]), torch.tensor([[0.3]])):
        assert binary_correct(outputs, torch.tensor([1])).tolist() == [True]
        assert binary_loss(outputs, torch.tensor([1])).shape == ()


def test_binary_loss_of_many_models_at_once() -> None:
    outputs, targets = torch.randn(3, 4, 1), torch.randint(2, (3, 4))
    alone = torch.stack([binary_loss(o, t) for o, t in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(vmap(binary_loss)(outputs, targets), alone)
    slopes = vmap(grad(binary_loss))(outputs, targets)
    plain = (torch.sigmoid(outputs[..., 0]) - targets) / 4
    torch.testing.assert_close(slopes[..., 0], plain)


def test_the_likeliest_class() -> None:
    outputs = torch.eye(3)[[0, 2, 1]]
    assert argmax_correct(outputs, torch.tensor([0, 1, 1])).tolist() == [True, False, True]


def test_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(RuntimeError):
        binary_loss(torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64))
    assert F.cross_entropy(torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64)) > 2
