"""ByzFL 0.0.11, to compare with. Its rules need torch, numpy and scipy; what only its own benchmark
needs (torchvision, matplotlib, seaborn) is replaced by empty modules while it is imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

VERSION = "0.0.11"
HOW = (
    f"ByzFL {VERSION} is not installed: run `make byzfl` "
    f"(pip install --no-deps byzfl=={VERSION} scipy), or --quick for what needs no comparison"
)
_STAND_INS = {
    "torchvision": ["transforms", "datasets", "models"],
    "matplotlib": ["pyplot", "colors"],
    "seaborn": [],
}


def byzfl() -> ModuleType | None:
    """The package, or None where this version is not installed."""
    try:
        if metadata.version("byzfl") != VERSION:
            return None
        with _stand_ins():
            return importlib.import_module("byzfl")
    except (metadata.PackageNotFoundError, ModuleNotFoundError):
        return None


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    added = []
    for package, parts in _STAND_INS.items():
        if importlib.util.find_spec(package) is None:
            added += [package, *(f"{package}.{part}" for part in parts)]
    for name in added:
        sys.modules[name] = _Empty(name)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


class _Empty(ModuleType):
    """A module that has everything, and nothing in it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or _Nothing()


class _Nothing:
    def __getattr__(self, name: str) -> Any:
        return _Nothing()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Nothing()
