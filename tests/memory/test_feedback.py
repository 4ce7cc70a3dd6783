"""Error feedback."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.rig import Rig, noise
from tacit.memory import ErrorFeedback, Memory

D = 40
FIRST = torch.zeros(D)


@settings(max_examples=20, deadline=None)
@given(
    workers=st.integers(1, 4),
    compressor=st.sampled_from(
        ["topk(k=2)", "topk(k=5,values=int8)", "sign", "randomk(k=4)", "qsgd", "block_topk(2,8)"]
    ),
    seed=st.integers(0, 5),
)
def test_nothing_is_lost(workers, compressor, seed):
    """What all have gone by, and what they still have, is the sum of all mean gradients."""
    compressor = compressor.replace("(2,8)", "(k=2,block=8)")
    memory = ErrorFeedback()
    run = Rig(memory, compressor, FIRST, workers, 1.0, "identity")
    gradients = noise(20, workers, D, seed=seed)
    gone = -run.run(gradients, 20)
    left = memory.rows()["errors"].mean(0)
    torch.testing.assert_close(gone + left, gradients.mean(1).sum(0), rtol=1e-4, atol=1e-4)


def test_both_directions_lose_nothing():
    memory = ErrorFeedback()
    run = Rig(memory, "topk(k=4)", FIRST, 3, 1.0, "topk(k=3,values=int8)")
    gradients = noise(30, 3, D)
    gone = -run.run(gradients, 30)
    left = memory.rows()["errors"].mean(0) + run.states()[1][0]["coordinator"]["unsent"]
    torch.testing.assert_close(gone + left, gradients.mean(1).sum(0), rtol=1e-4, atol=1e-4)


def test_the_memory_of_one_worker():
    """p = g + decay e, send the largest of p, e = p less that."""
    memory, errors = ErrorFeedback(decay=0.8), torch.zeros(D)
    run = Rig(memory, "topk(k=4)", FIRST)
    gradients = noise(20, 1, D)
    for gradient in gradients:
        errors = gradient[0] + 0.8 * errors
        sent = torch.zeros(D)
        largest = errors.abs().argsort(descending=True)[:4]
        sent[largest] = errors[largest]
        errors = errors - sent
        torch.testing.assert_close(run.step(gradient), sent)
        torch.testing.assert_close(memory.rows()["errors"][0], errors)


def test_without_decay_to_remember_it_forgets():
    gradients = noise(10, 2, D)
    models = [
        Rig(memory, "topk(k=4)", FIRST, 2).run(gradients, 10)
        for memory in (ErrorFeedback(decay=0.0), Memory())
    ]
    assert torch.equal(*models)


def test_what_travels_whole_leaves_nothing():
    memory = ErrorFeedback()
    run = Rig(memory, "topk(density=1.0)", FIRST, 4)
    gradients = noise(3, 4, D)
    with pytest.warns(UserWarning, match="longer together"):
        run.step(gradients[0])
    torch.testing.assert_close(run.step(gradients[1]), gradients[1].mean(0))
    assert not memory.rows()["errors"].any()


def test_those_who_are_away_keep_their_memory():
    memory = ErrorFeedback()
    run = Rig(memory, "topk(k=4)", FIRST, 3)
    gradients = noise(2, 3, D)
    run.step(gradients[0])
    before = memory.rows()["errors"].clone()
    run.present = torch.tensor([True, False, True])
    gradients[1, 1] = torch.nan
    direction = run.step(gradients[1])
    after = memory.rows()["errors"]
    assert torch.equal(after[1], before[1])
    expected = (before + gradients[1] - after)[[0, 2]].mean(0)  # of the two that are there
    torch.testing.assert_close(direction, expected)
