"""A costly result that several tests look at, computed once by all test processes together."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def once(factory: pytest.TempPathFactory, name: str, compute: Callable[[], Any]) -> Any:
    """``compute()``, by the first process of the test run that asks; the others read its result."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the one folder that all test processes share
    done, claim = folder / f"{name}.pkl", folder / f"{name}.claimed"
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        value, failure = pickle.loads(_wait_for(done).read_bytes())
        if failure is not None:
            raise RuntimeError(f"{name} failed in another test process: {failure}") from None
        return value
    try:
        value = compute()
    except BaseException as error:
        _write(done, (None, repr(error)))
        raise
    _write(done, (value, None))
    return value


def _write(path: Path, value: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(value))
    partial.rename(path)


def _wait_for(path: Path, timeout: float = 300.0) -> Path:
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no other test process wrote {path.name}")
        time.sleep(0.05)
    return path
