"""The objective for the median, the trimmed mean and their like: every column is sorted once.

Among H sorted values and f copies of b, the value of rank j is b clamped to the honest values of
ranks j - f and j.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.aggregators import Ranked
from tacit.aggregators.network import merge_exchange
from tacit.aggregators.passes import spans
from tacit.attacks.lies import Lies


class Ordered:
    """See ``damage.damage``. No rule of coordinates has a pivot: all who hear the same do the same.

    Deviations from the honest mean are sorted, not values, so that a large common part costs no
    digits. They take as much memory as the honest rows.
    """

    def __init__(self, lies: Lies, rule: Ranked) -> None:
        self.lies, n = lies, lies.sight.n
        self.ranks, honest = rule.ranks(n), lies.sight.honest
        self.direction = lies.direction.to(honest.dtype)
        self.sorted = torch.empty_like(honest, memory_format=torch.contiguous_format)
        network = merge_exchange(len(honest))
        for span in spans(honest):
            self.sorted[:, span] = _sorted(_apart(lies, span), network)

    def __call__(self, z: float) -> float:
        lies, total = self.lies, 0.0
        for span in spans(self.sorted):
            lie = self.direction[span] * z
            if lies.pushes is None:
                total += self._square(lie, span)
                continue
            apart = _apart(lies, span)
            for i, push in enumerate(lies.pushes.tolist()):
                total += self._square(apart[i] + push * lie, span) / len(apart)
        return total

    def _square(self, lie: Tensor, span: slice) -> float:
        """Of the mean of the ranks, in these columns."""
        liars, honest = self.lies.sight.liars, len(self.sorted)
        total, clamped = torch.zeros_like(lie), torch.empty_like(lie)
        for rank in self.ranks:
            low = self.sorted[rank - liars, span] if rank >= liars else None
            high = self.sorted[rank, span] if rank < honest else None
            if low is None and high is None:
                total += lie
            else:
                total += torch.clamp(lie, low, high, out=clamped)
        total /= len(self.ranks)
        return float(total.square_().sum(dtype=torch.float64))


def _apart(lies: Lies, span: slice) -> Tensor:
    honest = lies.sight.honest
    return (honest[:, span] - lies.mean[span]).to(honest.dtype)


def _sorted(block: Tensor, network: list[tuple[int, int]]) -> Tensor:
    """Every column in ascending order; the block is overwritten."""
    spare = torch.empty_like(block[0])
    for i, j in network:
        torch.minimum(block[i], block[j], out=spare)
        torch.maximum(block[i], block[j], out=block[j])
        block[i] = spare
    return block
