"""Where the files of a data set lie that is not on the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from tacit.errors import UserError


def folder_of(name: str, data: str | Path | None) -> Path:
    """``data``/``name`` or, without such a subfolder, ``data``; by default TACIT_DATA's folder.

    Raises UserError where no folder is given or the folder does not exist.
    """
    given = data if data is not None else os.environ.get("TACIT_DATA") or None
    if given is None:
        raise UserError(f"{name}: no data folder; give one by --data DIR, or set TACIT_DATA")
    folder = Path(given)
    if not folder.is_dir():
        raise UserError(f"data folder {folder} does not exist; check --data or TACIT_DATA")
    return folder / name if (folder / name).is_dir() else folder


def one_line(error: BaseException) -> str:
    """The first line of what ``error`` says, for a message of one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
