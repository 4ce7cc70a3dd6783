"""Mimic: who is copied, and what is remembered."""

from __future__ import annotations

import pytest
import torch

from tacit.attacks import Mimic
from tacit.errors import UserError
from tacit.fleet import KINDS
from tacit.setting import Setting

from .listed import gaussian, seen

ROWS = gaussian(3, 4)


def drifting(step: int) -> torch.Tensor:
    """Worker 4 stands out on one side of a direction, worker 2 less on the other."""
    rows = gaussian(6, 20, f"step {step}", torch.float64)
    rows[:, 3] += torch.tensor([0.0, 0.0, -6.0, 0.0, 9.0, 0.0], dtype=torch.float64)
    return rows


def test_mimic_learns_who_stands_out():
    made = Mimic(learn=True, warmup=30)
    copied = []
    for step in range(60):
        rows = drifting(step)
        found = made(seen(rows, step=step))
        copied += [i for i, row in enumerate(rows) if torch.equal(row, found)]
    assert len(copied) == 60
    assert len(set(copied[15:])) == 1
    assert copied[-1] in (2, 4)
    learnt = made.state_dict()["model"]
    assert float(learnt["direction"][3].abs()) > 0.95
    means = torch.stack([drifting(step).mean(0) for step in range(60)])
    torch.testing.assert_close(learnt["mean"], means.mean(0))


def test_mimic_goes_on_where_it_was():
    whole, first = Mimic(learn=True, warmup=5), Mimic(learn=True, warmup=5)
    for step in range(3):
        expected = whole(seen(drifting(step)))
        assert torch.equal(first(seen(drifting(step))), expected)
    second = Mimic(learn=True, warmup=5)
    second.load_state_dict(first.state_dict())
    first(seen(drifting(99)))  # which changes nothing for the second
    for step in range(3, 9):
        assert torch.equal(second(seen(drifting(step))), whole(seen(drifting(step))))
    other, same = second.state_dict()["model"], whole.state_dict()["model"]
    assert other["calls"] == same["calls"] == 9
    assert torch.equal(other["direction"], same["direction"])
    assert torch.equal(other["mean"], same["mean"])


def test_mimic_learns_each_kind_by_itself_and_forgets_at_a_start():
    made = Mimic(learn=True)
    for kind, d in zip(KINDS, (3, 4, 5, 6, 7), strict=True):
        assert made(seen(gaussian(4, d), kind=kind)).shape == (d,)
    assert set(made.state_dict()) == set(KINDS)
    made.start(Setting(6, 3))
    assert made.state_dict() == {}


def test_mimic_of_nobody():
    with pytest.raises(UserError, match="no honest worker 3 among 3"):
        Mimic(3)(seen(ROWS))
