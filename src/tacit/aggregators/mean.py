"""The mean and the weighted mean."""

from __future__ import annotations

import math
from typing import Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators.base import Aggregator, Running
from tacit.aggregators.passes import narrow_sum
from tacit.errors import TrainingDiverged
from tacit.fleet import Fleet, Kind, Pending
from tacit.fleet.sums import weighted_sum
from tacit.setting import Setting

#: Columns from which on a compiled sum pays.
_LONG = 1 << 16
_NAMES = {"model": "models", "gradient": "gradients", "monitoring": "monitoring states"}


class Mean(Aggregator):
    """The plain mean: an all-reduce."""

    gathers = False
    turns = True

    def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is None and _compilable(rows):
            out = rows.new_empty(rows.shape[1])
            narrow_sum(rows, np.full(len(rows), 1 / len(rows)), out)
            return out
        weights = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights
        return weighted_sum(rows, weights / weights.sum())

    def running(self) -> Running:
        return _RunningMean(self)

    def combine(self, fleet: Fleet, rows: Tensor, kind: Kind, participants: Tensor) -> Tensor:
        """Raises TrainingDiverged, which says who sent NaN or inf, where somebody did: one is
        enough to spoil a mean."""
        mean = super().combine(fleet, rows, kind, participants)
        # a device would have to be waited for at every step; there the loss tells
        looks = mean.device.type == "cpu" or kind != "gradient"
        if looks and not math.isfinite(float(mean.sum())):
            blame(fleet, rows, kind)
        return mean

    def combine_later(
        self, fleet: Fleet, rows: Tensor, kind: Kind, participants: Tensor, overlap: int = 0
    ) -> Pending:
        weights = None if participants.all() else participants.to(torch.float64)
        return fleet.mean_later(rows, kind, weights, overlap)


class WeightedMean(Mean):
    """The mean weighted by each worker's number of samples (McMahan et al. 2017, FedAvg).

    ``by``: ``samples`` that it has, or ``rates``, those of a step.
    """

    def __init__(self, by: Literal["samples", "rates"] = "samples") -> None:
        self.by = by
        self.samples = torch.empty(0)

    def start(self, setting: Setting) -> None:
        rates = self.by == "rates"
        self.samples = setting.sample_rates() if rates else setting.sample_counts()

    def weights(self, participants: Tensor) -> Tensor:
        return self.samples * participants

    def combine_later(
        self, fleet: Fleet, rows: Tensor, kind: Kind, participants: Tensor, overlap: int = 0
    ) -> Pending:
        return fleet.mean_later(rows, kind, self.weights(participants), overlap)


def _compilable(rows: Tensor) -> bool:
    """Whether one compiled pass is sooner than :func:`weighted_sum`, which makes one for each row,
    but on all threads; the sums are in the same order."""
    long = rows.shape[1] >= _LONG and torch.get_num_threads() == 1
    return long and rows.dtype in (torch.float32, torch.float64) and not rows.requires_grad


def blame(fleet: Fleet, rows: Tensor, kind: Kind) -> NoReturn:
    """Raise TrainingDiverged for a mean that is not finite, and say who sent what made it so. All
    come here, since all have the same mean."""
    said = fleet.said(rows, kind)
    guilty: list[int] = []
    if fleet.busy == fleet.size:  # else those who are away would not know what is asked
        finite = said.isfinite().all(dim=1, keepdim=True).float()
        guilty = (fleet.overhear(finite)[:, 0] == 0).nonzero().flatten().tolist()
    if guilty:
        who = f"worker{'s' * (len(guilty) > 1)} {', '.join(map(str, guilty))} sent NaN or inf"
    else:
        who = "some worker sent NaN or inf, or numbers too large"
    what, step = _NAMES.get(kind, kind), fleet.ledger.step
    raise TrainingDiverged(
        f"the mean of the {what} is not finite at step {step}: {who}; lower the learning rate, "
        "look at their data, or take a robust aggregator"
    )


class _RunningMean(Running):
    """Keeps the sum."""

    _sum: Tensor | None = None
    _weight = 0.0

    def add(self, rows: Tensor, weights: Tensor) -> None:
        added = weights.to(rows) @ rows
        self._sum = added if self._sum is None else self._sum.add_(added)
        self._weight += float(weights.sum())
        self._value: Tensor | None = None

    @property
    def value(self) -> Tensor:
        if self._value is None:
            assert self._sum is not None, "add() comes first"
            self._value = self._sum / self._weight
        return self._value
