"""Looking at a run."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from helpers.tasks import mlp_task, perceptron
from tacit.evaluation import Evaluation, examine


def test_examine_in_parts_is_examining_the_whole() -> None:
    task, module = mlp_task(), perceptron()
    count = len(task.test)
    x, y = task.test.batch(torch.arange(count).numpy())
    output = module(x)
    whole = examine(module, task, task.test, range(count), torch.device("cpu"))
    assert whole[0] == pytest.approx(float(F.cross_entropy(output, y, reduction="sum").detach()))
    assert whole[1] == int((output.argmax(1) == y).sum())
    parts = [
        examine(module, task, task.test, r, torch.device("cpu"))
        for r in (range(7), range(7, count))
    ]
    assert sum(part[0] for part in parts) == pytest.approx(whole[0])
    assert sum(part[1] for part in parts) == whole[1]
    assert examine(module, task, task.test, range(0), torch.device("cpu")) == (0.0, 0)
    assert not module.training


def test_a_line_of_metrics() -> None:
    spent = {"model": 5, "gradient": 0, "monitoring": 2, "control": 0}
    evaluation = Evaluation(3, 0.5, 0.9, 0.1, 0.2, 1, spent, 9, 1.0, 0.1, checks=[(3, 0.5, True)])
    assert evaluation.total_bytes == 7
    line = json.loads(json.dumps(evaluation.as_dict()))
    assert line["bytes"] == spent
    assert line["checks"] == [[3, 0.5, True]]
