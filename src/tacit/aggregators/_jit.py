"""How the compiled passes are compiled and see the rows. It needs the extra ``speed``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy.typing as npt
from numba import njit
from torch import Tensor

Array = npt.NDArray[Any]
#: Columns of a few rows that are read one after the other, before those of the next rows.
STRIP = 16384


def memory(rows: Tensor) -> Array:
    """The memory from the first number of ``rows`` to the last."""
    n, d = rows.shape
    out: Array = rows.detach().as_strided(((n - 1) * rows.stride(0) + d,), (1,)).numpy()
    return out


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``function`` compiled, with the machine code kept on disk where there is a place for it."""
    try:
        return cast(Callable[..., Any], njit(function, nogil=True, cache=True, **options))
    except RuntimeError:  # neither beside the source nor in the user's cache folder
        return cast(Callable[..., Any], njit(function, nogil=True, **options))
