"""How compiled passes are compiled (numba). It needs the extra ``speed``, so kernels alone import
it, and :mod:`tacit.compiled` finds out whether they can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``function`` compiled, without the GIL, with the machine code kept on disk where there is a
    place for it. ``options``: numba's."""
    try:
        return cast(Callable[..., Any], njit(function, nogil=True, cache=True, **options))
    except RuntimeError:  # neither beside the source nor in the user's cache folder
        return cast(Callable[..., Any], njit(function, nogil=True, **options))
