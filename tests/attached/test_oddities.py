from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from helpers import oddities
from helpers.spawn import run_processes
from tacit import checkpoint


@pytest.mark.parametrize("views", [True, False])
def test_parameters_that_get_other_tensors_are_followed(views):
    (begin, before, first), (_, _, second) = run_processes(oddities.moved, 2, views)
    assert torch.equal(first, second)
    assert (before - begin).norm() > 0.1
    assert (first - before).norm() < (before - begin).norm()


@pytest.mark.parametrize("keyword", [True, False])
def test_gradients_of_a_closure_are_exchanged(keyword):
    first, second = run_processes(oddities.closure, 2, keyword)
    assert torch.equal(first, second)


def test_who_comes_early_keeps_its_own_gradient():
    assert run_processes(oddities.early, 2) == [True, True]


def test_a_model_that_nobody_trained_stays_as_it_was():
    for begin, end in run_processes(oddities.nothing_learned, 2):
        assert torch.equal(begin, end)


def test_the_order_of_parameter_groups_does_not_matter():
    first, second = run_processes(oddities.another_order, 2)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("unfrozen", "finish(), and attach again"),
        ("group", "finish(), and attach again"),
        ("scaled", "say attach(..., scaler=scaler)"),
        ("half", "move the model before attach"),
        ("fine", "nothing"),
    ],
)
def test_what_would_diverge_silently_is_refused(case, message):
    (said,) = run_processes(oddities.misuse, 1, case)
    assert message in said


def test_double_precision_buffers_and_a_shared_scaler():
    (first, steps), (second, _) = run_processes(oddities.doubles, 2)
    assert first == second == [0.1, 0.1]
    assert steps == [0, 0]


def test_a_schedule_with_numbers_as_keys_survives_a_checkpoint(tmp_path):
    def schedule() -> MultiStepLR:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return MultiStepLR(optimizer, [3])

    one, other = schedule(), schedule()
    one.optimizer.step()
    one.step()
    checkpoint.save(tmp_path / "c", one.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "c"))
    for _ in range(2):
        other.optimizer.step()
        other.step()
    assert other.get_last_lr() == pytest.approx([0.1])
