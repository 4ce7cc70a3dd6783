from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> str:
    """The folder that TACIT_DATA names; a test that asks for it is skipped without one."""
    folder = os.environ.get("TACIT_DATA")
    if not folder:
        pytest.skip("set TACIT_DATA to a folder that holds mnist/ and cifar10/")
    return folder


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_cache_outside_the_tests(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode the real images once per test run, and neither read nor write the user's cache."""
    monkeypatch.setenv("TACIT_CACHE", str(session_cache))
