"""The smallest model that still learns something: for examples and quick tests."""

from __future__ import annotations

from torch import nn

from tacit.tasks.models.initialise import glorot_uniform


def mlp(inputs: int = 64, hidden: int = 64, classes: int = 10) -> nn.Sequential:
    """Linear, relu, linear: (b, inputs) -> logits (b, classes). 4,810 parameters by default."""
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    glorot_uniform(model)
    return model
