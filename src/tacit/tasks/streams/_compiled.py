"""Whether a stream's samples are made compiled or plain."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tacit.errors import MissingExtra


def compiled(module: str, kernel: bool | None) -> ModuleType | None:
    """``tacit.tasks.streams.<module>``, which needs numba, or None for the plain version.

    ``kernel``: None takes it where it can, False never. True insists: ``MissingExtra`` without
    numba.
    """
    # The kernels read 16 bits out of words of 64.
    if kernel is False or sys.byteorder != "little":
        return None
    try:
        return importlib.import_module(f"tacit.tasks.streams.{module}")
    except ImportError as error:
        if kernel:
            raise MissingExtra("numba", "speed") from error
        return None
