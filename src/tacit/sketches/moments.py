"""The two moments that the linear variance estimator sends: ``||u||^2`` and ``<xi, u>``.

Source: the linear variant of Theologitis et al., "Communication-Efficient Distributed Deep
Learning via Federated Dynamic Averaging", EDBT 2025. Both moments come from one pass over memory;
sums are float32 over short pieces and float64 across pieces, so that the result agrees with
float64 to about 1e-6 even where all entries are equal and rounding errors add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.sketches._compiled import compiled

# Elements read at a time by the plain version: few enough to stay in cache from one operation to
# the next, enough to hide the cost of a call. A GPU wants few, large launches.
_CPU_CHUNK = 1 << 17
_GPU_CHUNK = 1 << 22


def moments(u: Tensor, xi: Tensor | None = None, *, kernel: bool | None = None) -> Tensor:
    """Squared norm of each row of ``u``, and its inner product with ``xi`` if that is given.

    ``u``: ``(L, d)``, rows may be strided; ``xi``: ``(d,)``. Returns ``(L, 1)`` or ``(L, 2)``
    float64 on the device of ``u``. ``kernel``: None for the compiled pass where it applies, False
    for plain torch. Raises ``UserError`` on a wrong shape or device.
    """
    return _moments(u, None, xi, kernel)


def drift_moments(
    params: Tensor, reference: Tensor, xi: Tensor | None = None, *, kernel: bool | None = None
) -> Tensor:
    """The moments of ``params - reference``, without ever storing that ``(L, d)`` drift.

    ``params``: ``(L, d)``, rows may be strided; ``reference`` and ``xi``: ``(d,)``. Otherwise as
    ``moments``.
    """
    return _moments(params, reference, xi, kernel)


def _moments(
    rows: Tensor, reference: Tensor | None, xi: Tensor | None, kernel: bool | None
) -> Tensor:
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UserError(f"moments take rows of shape (L, d), not {tuple(rows.shape)}")
    reference = _like_a_row("reference", reference, rows)
    xi = _like_a_row("xi", xi, rows)
    module = compiled(kernel, rows)
    if module is not None:
        result: Tensor = module.moments(rows, reference, xi)
        return result
    return _plain(rows.detach(), reference, xi)


def _like_a_row(name: str, vector: Tensor | None, rows: Tensor) -> Tensor | None:
    if vector is None:
        return None
    if vector.shape != rows.shape[1:] or vector.device != rows.device:
        raise UserError(
            f"{name} must have shape ({rows.shape[1]},) on {rows.device}, "
            f"not {tuple(vector.shape)} on {vector.device}"
        )
    return vector.detach().to(rows.dtype).contiguous()


def _plain(rows: Tensor, reference: Tensor | None, xi: Tensor | None) -> Tensor:
    count, d = rows.shape
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    chunk = min(d, _CPU_CHUNK if rows.device.type == "cpu" else _GPU_CHUNK)
    drift = torch.empty(chunk, dtype=dtype, device=rows.device)
    product = torch.empty_like(drift)
    sums = []
    for begin in range(0, d, chunk):
        piece = slice(begin, min(begin + chunk, d))
        n = piece.stop - begin
        for k in range(count):
            u = rows[k, piece].to(dtype)
            if reference is not None:
                u = torch.sub(u, reference[piece], out=drift[:n])
            # Multiply, then sum: `torch.sum` adds pairwise, `torch.dot` does not and is off by
            # 1e-5 where all entries have the same size, as after one step of Adam.
            sums.append(torch.mul(u, u, out=product[:n]).sum())
            if xi is not None:
                sums.append(torch.mul(u, xi[piece], out=product[:n]).sum())
    if not sums:
        return rows.new_zeros((0, 1 if xi is None else 2), dtype=torch.float64)
    return torch.stack(sums).double().view(-1, count, 1 if xi is None else 2).sum(0)
