"""Sums of rows whose bits depend on nothing but the rows."""

from __future__ import annotations

import torch
from torch import Tensor

#: Columns summed (and, by the deterministic reduction, gathered) at a time.
CHUNK = 1 << 20
#: Rows up to this long are summed in one call.
_SMALL = 1 << 13


def weighted_sum(rows: Tensor, share: Tensor) -> Tensor:
    """``sum_k share_k rows_k``: ``(n, d) -> (d,)``. Rows of share 0 are not read.

    Equal rows give equal bits, wherever they lie in memory.
    """
    chosen = share > 0
    if not chosen.all():
        rows, share = rows[chosen.to(rows.device)], share[chosen]
    pieces = [_sum_piece(piece, share) for piece in torch.split(rows, CHUNK, dim=1)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _sum_piece(rows: Tensor, share: Tensor) -> Tensor:
    if rows.shape[1] <= _SMALL:
        # one call instead of n; a fresh copy, so that the sum does not depend on alignment
        return share.to(rows) @ rows.clone(memory_format=torch.contiguous_format)
    total = rows.new_zeros(rows.shape[1])
    for row, weight in zip(rows, share.tolist(), strict=True):
        total.add_(row, alpha=weight)
    return total
