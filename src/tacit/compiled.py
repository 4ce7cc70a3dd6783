"""Whether something runs compiled (numba, the extra ``speed``) or plain."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tacit.errors import MissingExtra


def compiled(module: str, kernel: bool | None) -> ModuleType | None:
    """The module of this name, which needs numba, or None for the plain version.

    ``kernel``: None takes it where it can, False never. True insists: ``MissingExtra`` without
    numba.
    """
    if kernel is False:
        return None
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if kernel:
            raise MissingExtra("numba", "speed") from error
        return None


def compiled_words(module: str, kernel: bool | None) -> ModuleType | None:
    """:func:`compiled` for kernels that see words of 64 bits where the format has fewer: they are
    for little-endian machines alone."""
    return compiled(module, kernel) if sys.byteorder == "little" else None
