"""Whether a sketch runs compiled or plain."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from tacit.compiled import compiled as loaded
from tacit.errors import UserError


def compiled(kernel: bool | None, rows: Tensor) -> ModuleType | None:
    """The module ``kernel`` if it is to read the ``(L, d)`` tensor ``rows``, else None.

    ``kernel``: None takes it where it can, False never. True insists: ``MissingExtra`` without
    numba, ``UserError`` for rows it cannot read.
    """
    if kernel is False:
        return None
    readable = (
        rows.device.type == "cpu"
        and rows.dtype == torch.float32
        and (rows.shape[1] == 1 or rows.stride(1) == 1)
        and (rows.shape[0] <= 1 or rows.stride(0) >= rows.shape[1])
    )
    if not readable:
        if kernel:
            raise UserError(
                f"the compiled sketch reads float32 CPU rows with unit stride, not {rows.dtype} "
                f"on {rows.device} with strides {rows.stride()}; pass kernel=None"
            )
        return None
    return loaded("tacit.sketches.kernel", kernel)
