"""What a message brings: a whole vector, or some entries of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from tacit.codecs import add_at


@dataclass(frozen=True)
class Arrived:
    """A vector of ``n`` float32 numbers. ``positions``: int64, distinct, of the only entries that
    may not be zero, and ``values`` those; None: ``values`` is the vector. Using it costs as much as
    there are entries, not numbers. Not to be written to."""

    n: int
    values: Tensor
    positions: Tensor | None = None

    @classmethod
    def of(cls, n: int, values: npt.NDArray[Any], positions: npt.NDArray[Any]) -> Arrived:
        """Entries in NumPy's arrays."""
        return cls(n, torch.from_numpy(values), torch.from_numpy(positions))

    def dense(self) -> Tensor:
        """The vector, ``(n,)``."""
        if self.positions is None:
            return self.values
        out = self.values.new_zeros(self.n)
        out[self.positions] = self.values
        return out

    def add_to(self, target: Tensor, weight: float = 1.0) -> None:
        """``target += weight vector``, in place; ``target`` ``(n,)`` on any device."""
        if self.positions is None:
            target.add_(self.values.to(target), alpha=weight)
            return
        values = self.values if weight == 1.0 else self.values * weight
        if target.device.type == values.device.type == "cpu" and target.dtype == torch.float32:
            add_at(target, self.positions.numpy(), values.numpy())
        else:
            target.index_add_(0, self.positions.to(target.device), values.to(target))

    def clear_in(self, target: Tensor) -> None:
        """Set the entries of ``target`` to zero that are not zero here."""
        if self.positions is None:
            target.masked_fill_((self.values != 0).to(target.device), 0.0)
        else:
            target[self.positions[self.values != 0].to(target.device)] = 0.0
