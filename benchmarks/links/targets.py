"""After how many steps a method reaches the target: its trajectory, on no link at all.

What a method computes does not depend on the link. So its models are kept every few steps of a
run over loopback, tested afterwards, and only then is the number of steps timed that it needs.
"""

from __future__ import annotations

import numpy as np
import torch

from links.cells import Case, run_cell
from links.models import build, images, unflatten
from links.network import PROFILES

#: A model this far below the target on a tenth of the test set is not tested on all of it.
_MARGIN = 0.015


class Tester:
    """Test accuracy of flat models of one architecture."""

    def __init__(self, model: str, source: str) -> None:
        self.module = build(model, 0)
        _, self.test = images(source)

    def accuracy(self, vector: np.ndarray, every: int = 1) -> float:
        """Of the model ``vector``, shape (d,), on every ``every``-th test sample."""
        unflatten(torch.from_numpy(np.array(vector)), self.module)
        chosen = np.arange(0, len(self.test), every)
        right = 0
        with torch.no_grad():
            for part in np.array_split(chosen, -(-len(chosen) // 500)):
                x, y = self.test.batch(part)
                right += int((self.module(x).argmax(1) == y).sum())
        return right / len(chosen)

    def reaches(self, vector: np.ndarray, target: float) -> bool:
        quick = self.accuracy(vector, every=10)
        return quick >= target - _MARGIN and self.accuracy(vector) >= target


def steps_to_target(
    case: Case, tester: Tester, target: float, limit: int, every: int
) -> int | None:
    """The first of steps ``every``, 2 ``every``, ... up to ``limit`` at which the mean of the
    ranks' models reaches ``target``; None where none does."""
    snapshots = range(every, limit + 1, every)
    outcome = run_cell(case, PROFILES["loopback"], limit, snapshots)
    assert outcome.models is not None
    for step, vector in zip(snapshots, outcome.models, strict=True):
        if tester.reaches(vector, target):
            return step
    return None
