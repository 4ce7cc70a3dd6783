"""Looking at a run: what it has reached, and what that has cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tacit.tasks.data import Data
from tacit.tasks.task import Task

#: Test samples in one forward pass.
_BATCH = 500


@dataclass
class Evaluation:
    """The run as seen after ``step`` steps.

    ``accuracy`` and ``loss`` are those of the consensus model on the test data; ``train_loss`` the
    mean batch loss of the workers since the last evaluation. ``synchronisations``: exchanges of a
    whole model or gradient so far. ``bytes``: by kind, sent and received by all workers together.
    ``checks``: (step, estimate, synchronised) of every step since the last evaluation that had an
    estimate or a synchronisation; ``threshold``: what the trigger compares estimates with.
    On a stream, since the last evaluation: ``rounds``: for every step the workers' losses before
    it, summed, their wrong answers, and all charged bytes so far; ``drifts``: the steps that began
    with a new concept. ``conversations``: (step, callers, members, whole) of every average that a
    coordinator arranged since then.
    ``predicted_seconds``: the virtual clock on the run's link;
    ``step_seconds``: a worker's measured computation for one step.
    """

    step: int
    epoch: float
    accuracy: float
    loss: float
    train_loss: float
    synchronisations: int
    bytes: dict[str, int]
    ring_bytes: int
    seconds: float
    step_seconds: float
    predicted_seconds: float | None = None
    threshold: float | None = None
    checks: list[tuple[int, float | None, bool]] = field(default_factory=list)
    rounds: list[tuple[float, int, int]] = field(default_factory=list)
    drifts: list[int] = field(default_factory=list)
    conversations: list[tuple[int, int, int, bool]] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """Charged bytes of all kinds."""
        return sum(self.bytes.values())

    def as_dict(self) -> dict[str, Any]:
        """For a line of ``metrics.jsonl``."""
        return asdict(self)


@torch.no_grad()
def examine(
    module: nn.Module, task: Task, test: Data, samples: range, device: torch.device
) -> tuple[float, float]:
    """The summed loss, and the number of correct answers, on these of the test samples. An answer
    may be correct in part (see ``Task.correct``)."""
    loss, correct = 0.0, 0.0
    module.eval()
    for start in range(samples.start, samples.stop, _BATCH):
        chunk = np.arange(start, min(start + _BATCH, samples.stop))
        x, y = (t.to(device) for t in test.batch(chunk))
        output = module(x)
        loss += float(task.loss(output, y)) * len(chunk)
        correct += float(task.correct(output, y).sum(dtype=torch.float64))
    return loss, correct
