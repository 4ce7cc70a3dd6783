"""Attacks on the states of a trigger."""

from __future__ import annotations

import pytest
import torch

from tacit.attacks import attack
from tacit.setting import Setting
from tacit.triggers import Linear, Naive, Sketch

from .listed import gaussian, seen


def sent(text: str, rows: torch.Tensor) -> list[float]:
    return attack(text)(seen(rows)).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("estimator", [Naive(), Linear(), Sketch(5, 16)], ids=["n", "l", "s"])
def test_states_move_the_estimate(estimator: Naive | Linear | Sketch) -> None:
    estimator.start(Setting(8, 40))
    states = estimator.local_state(gaussian(6, 40), torch.zeros(40))
    honest = estimator.variance(states.mean(0))
    assert honest > 0

    def estimate(text: str) -> float:
        state = attack(text)(seen(states, kind="monitoring"))
        return estimator.variance(torch.cat([states, state.expand(2, -1)]).mean(0))

    assert estimate("inflate") > 1e5 * honest
    assert estimate("deflate:along=true") < (honest if type(estimator) is Naive else -1e6)
    if type(estimator) is Naive:
        assert estimate("deflate") == pytest.approx(6 / 8 * honest)


def test_states_of_workers_that_stand_still():
    assert sent("inflate", torch.zeros(3, 4)) == [1e6, 0, 0, 0]
    assert sent("deflate", torch.ones(3, 4)) == [0, 0, 0, 0]
    assert sent("deflate:along=true,factor=8", torch.zeros(3, 4)) == [0, 8, 8, 8]
    assert sent("inflate:factor=10", torch.tensor([[1.0, -3.0]])) == [31, -3]
