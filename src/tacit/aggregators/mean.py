"""The mean and the weighted mean."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tacit.aggregators.base import Aggregator, Running
from tacit.fleet import Fleet, Kind, Pending
from tacit.fleet.fleet import weighted_sum
from tacit.setting import Setting


class Mean(Aggregator):
    """The plain mean: an all-reduce."""

    def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        weights = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights
        return weighted_sum(rows, weights / weights.sum())

    def running(self) -> Running:
        return _RunningMean(self)

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
