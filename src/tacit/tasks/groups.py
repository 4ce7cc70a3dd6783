"""Data whose samples belong to groups, such as speakers, and the split by group."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.tasks.data import TensorData


class GroupedData(TensorData):
    """``TensorData`` with the group of every sample: ``groups`` (n,), int64."""

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        groups: Tensor,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(inputs, targets, transform)
        if groups.shape != (len(targets),):
            raise UserError(
                f"groups have shape {tuple(groups.shape)} for {len(targets)} samples; "
                "give one group per sample"
            )
        self.groups = groups.to(torch.int64)

    def to(self, device: torch.device | str) -> GroupedData:
        """The same samples on ``device``; groups stay where they are."""
        inputs, targets = self.inputs.to(device), self.targets.to(device)
        return GroupedData(inputs, targets, self.groups, self.transform)


def by_group(groups: np.ndarray, workers: int, seed: int = 0) -> list[np.ndarray]:
    """Whole groups to each worker, in ascending order; every part keeps the stored order.

    groups:  (n,), the group of each sample; G of them are distinct.
    workers: a divisor of G (each worker holds G / workers groups), or a multiple (each group is cut
             into workers / G contiguous parts of the sizes of ``numpy.array_split``).
    Returns ``workers`` int64 arrays of sample numbers, none empty, that hold every sample once.
    Raises UserError for another number of workers.
    """
    names, number = np.unique(groups, return_inverse=True)
    if workers < 1:
        raise UserError(f"number of workers is {workers}; it must be at least 1")
    if workers > len(groups):
        raise UserError(
            f"more workers than samples ({workers} and {len(groups)}); use fewer workers"
        )
    if len(names) % workers == 0:
        holder = number // (len(names) // workers)
        return [np.flatnonzero(holder == worker) for worker in range(workers)]
    if workers % len(names) == 0:
        cuts = workers // len(names)
        members = [np.flatnonzero(number == group) for group in range(len(names))]
        smallest = min(len(one) for one in members)
        if smallest < cuts:
            raise UserError(
                f"a group has {smallest} samples, too few for {cuts} workers; use fewer workers"
            )
        return [part for one in members for part in np.array_split(one, cuts)]
    raise UserError(
        f"{len(names)} groups cannot be dealt evenly to {workers} workers; "
        f"use {len(names)} workers, or a divisor or multiple of that"
    )
