"""Whether a pass over the rows runs compiled or plain."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from tacit.compiled import compiled as loaded
from tacit.errors import UserError


def compiled(kernel: bool | None, rows: Tensor) -> ModuleType | None:
    """The module ``kernel`` if it is to read the ``(n, d)`` tensor ``rows``, else None.

    ``kernel``: None takes it where it can, False never. True insists: ``MissingExtra`` without
    numba, ``UserError`` for rows it cannot read.
    """
    if kernel is False:
        return None
    readable = (
        rows.device.type == "cpu"
        and rows.shape[1] > 0
        and (rows.shape[1] == 1 or rows.stride(1) == 1)
        and (rows.shape[0] <= 1 or rows.stride(0) >= rows.shape[1])
    )
    if not readable:
        if kernel:
            raise UserError(
                f"the compiled rules read CPU rows with unit stride, not rows on {rows.device} "
                f"with strides {rows.stride()}; set kernel=None"
            )
        return None
    return loaded("tacit.aggregators.kernel", kernel)
