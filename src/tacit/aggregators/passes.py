"""Passes over the rows: distances, weighted sums, and the middle of every column.

Each runs compiled where it can (``kernel``), else in plain torch, in blocks of columns, so that
beside the input and the output only blocks are held. Small results are NumPy arrays in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit.aggregators._compiled import compiled
from tacit.aggregators.network import Plan

Array = npt.NDArray[Any]
# Numbers in a block: on a CPU what its cache holds, else what keeps a device busy.
_BLOCK = {"cpu": 1 << 18}
_BLOCK_ELSEWHERE = 1 << 23


def spans(rows: Tensor) -> Iterator[slice]:
    """The blocks of columns."""
    n, d = rows.shape
    step = max(256, _BLOCK.get(rows.device.type, _BLOCK_ELSEWHERE) // max(n, 1))
    for begin in range(0, d, step):
        yield slice(begin, min(begin + step, d))


def squared_distances(rows: Tensor, kernel: bool | None = None) -> Array:
    """``(n, d) -> (n, n)``. Not finite for rows that hold NaN or inf, or where squares overflow in
    the rows' precision."""
    module = compiled(kernel, rows)
    if module is not None:
        out: Array = module.squared_distances(rows)
        return out
    n = len(rows)
    total = rows.new_zeros((n, n), dtype=torch.float64)
    for span in spans(rows):
        block = rows[:, span]
        for i in range(n - 1):
            difference = block[i + 1 :] - block[i]
            total[i, i + 1 :] += difference.square_().sum(1, dtype=torch.float64)
    return _numpy(total + total.T)


def squared_to(rows: Tensor, point: Tensor, kernel: bool | None = None) -> Array:
    """Squared distances from ``point (d,)``: ``(n, d) -> (n,)``. Not finite as above."""
    module = compiled(kernel, rows)
    if module is not None:
        out: Array = module.squared_to(rows, point)
        return out
    total = rows.new_zeros(len(rows), dtype=torch.float64)
    for span in spans(rows):
        total += (rows[:, span] - point[span]).square_().sum(1, dtype=torch.float64)
    return _numpy(total)


def wide_squared_to(rows: Tensor, some: Array, point: Tensor) -> Array:
    """The same of the rows ``some (k,)`` alone, in float64: ``(k,)``."""
    index = torch.from_numpy(some).to(rows.device)
    total = rows.new_zeros(len(some), dtype=torch.float64)
    for span in spans(rows):
        total += (rows[:, span][index].double() - point[span].double()).square_().sum(1)
    return _numpy(total)


def empty(rows: Tensor, n: int) -> Tensor:
    """``(n, d)``, as the rows ``(., d)`` are. NumPy asks for large pages where the system has them
    and torch does not: of a large output, most of the time may go into the small ones."""
    if rows.device.type != "cpu":
        return rows.new_empty(n, rows.shape[1])
    return torch.from_numpy(np.empty((n, rows.shape[1]), rows[:0].numpy().dtype))


def weighted_sum(rows: Tensor, weights: Array, kernel: bool | None = None) -> Tensor:
    """``sum_i weights_i rows_i``, summed in float64: ``(d,)`` as the rows are. Rows of weight 0 are
    not read."""
    module = compiled(kernel, rows)
    out = rows.new_empty(rows.shape[1])
    if module is not None:
        module.weighted_sum(rows, weights, out)
        return out
    for span in spans(rows):
        total = rows.new_zeros(span.stop - span.start, dtype=torch.float64)
        for i in np.flatnonzero(weights).tolist():
            total.add_(rows[i, span].double(), alpha=float(weights[i]))
        out[span] = total
    return out


def narrow_sum(rows: Tensor, weights: Array, out: Tensor, kernel: bool | None = None) -> None:
    """The same, summed in the rows' own precision, into ``out (d,)``."""
    module = compiled(kernel, rows)
    if module is not None:
        module.narrow_sum(rows, weights, out)
        return
    out.zero_()
    for i in np.flatnonzero(weights).tolist():
        out.add_(rows[i], alpha=float(weights[i]))


def weighted_sums(rows: Tensor, weights: Array) -> Tensor:
    """Several weighted sums at once, in float64: ``(v, n)`` weights give ``(v, d)``. Rows that
    nobody weighs are not read."""
    chosen = torch.from_numpy(np.flatnonzero(weights.any(axis=0))).to(rows.device)
    factors = torch.from_numpy(weights).to(rows.device)[:, chosen]
    out = rows.new_empty(len(weights), rows.shape[1])
    for span in spans(rows):
        out[:, span] = factors @ rows[:, span][chosen].double()
    return out


def middle_means(
    rows: Tensor, plan: Plan, out: Tensor, chosen: Array | None = None, kernel: bool | None = None
) -> None:
    """What ``plan`` says of each column of ``rows[chosen]`` (None: of all), into ``out (d,)``. NaN
    counts as +inf."""
    chosen = np.arange(len(rows)) if chosen is None else chosen
    module = compiled(kernel, rows)
    if module is not None:
        module.middle_means(rows, chosen, plan, out)
        return
    index = torch.from_numpy(chosen).to(rows.device)
    for span in spans(rows):
        block = rows[:, span][index]
        block[block.isnan()] = torch.inf
        out[span] = _middle(list(block), plan)


def _middle(tile: list[Tensor], plan: Plan) -> Tensor:
    spare = torch.empty_like(tile[0])
    for i, j in zip(plan.first.tolist(), plan.second.tolist(), strict=True):
        torch.minimum(tile[i], tile[j], out=spare)
        torch.maximum(tile[i], tile[j], out=tile[j])
        tile[i], spare = spare, tile[i]
    total = torch.zeros_like(tile[0], dtype=torch.float64)
    for kept in tile[plan.low : plan.high]:
        total += kept
    middle = tile[(plan.n - 1) // 2].double() + tile[plan.n // 2].double()
    for j in range(plan.begin, plan.end):
        lower, upper = tile[j], tile[j + plan.count]
        near = middle <= lower.double() + upper.double()
        total += torch.where(near, lower, upper)
    return total / plan.count


def _numpy(tensor: Tensor) -> Array:
    out: Array = tensor.cpu().numpy()
    return out
