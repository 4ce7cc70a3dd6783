"""Binary classification sets in LIBSVM's text format (Chang, Lin), as dense tensors.

A line is ``label index:value index:value ...``, indices ascending from 1; what is absent is 0. All
after a ``#`` is a comment.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.tasks.files import folder_of, one_line

#: Values of a matrix, so that a wrong index does not ask for all memory.
LARGEST = 2**31


def load_libsvm(
    name: str,
    data: str | Path | None = None,
    features: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Rows (m, d) and labels (m,) of -1 and +1 of the set ``name``: ``libsvm/name.gz`` or
    ``libsvm/name`` in the folder ``data`` (by default TACIT_DATA's). See ``read_libsvm``."""
    folder = folder_of("libsvm", data)
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return read_libsvm(file, features, dtype)
    known = ", ".join(sorted(file.name.removesuffix(".gz") for file in folder.glob("*.gz")))
    raise UserError(f"no {name}.gz or {name} in {folder}; there is: {known or 'nothing'}")


def read_libsvm(
    file: Path, features: int | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Rows (m, d) and labels (m,) of -1 and +1: the larger of the two in the file becomes +1.

    features: d; by default the largest index in the file (a test set may lack the last features).
    Raises UserError for a bad line (with its number), and where there are not two labels.
    """
    labels: list[float] = []
    lines: list[int] = []  # the number of each row's line
    counts: list[int] = []
    indices: list[int] = []
    values: list[float] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        tokens = line.partition("#")[0].split()
        if not tokens:
            continue
        try:
            labels.append(float(tokens[0]))
            for token in tokens[1:]:
                index, value = token.split(":")
                indices.append(int(index))
                values.append(float(value))
        except ValueError:
            raise _bad(file, number, tokens) from None
        lines.append(number)
        counts.append(len(tokens) - 1)
    if not labels:
        raise UserError(f"{file} has no rows; is this a LIBSVM file?")
    rows = np.repeat(np.arange(len(labels)), counts)
    columns, entries = _array(indices) - 1, np.array(values, np.float64)
    width = int(columns.max(initial=0)) + 1 if features is None else features
    wrong = _wrong(rows, columns, entries, width)
    for what, places in wrong.items():
        if len(places):
            row, column = rows[places[0]], columns[places[0]] + 1
            raise UserError(f"{file}, line {lines[row]}: index {column} {what}")
    if not 1 <= width <= LARGEST // len(labels):
        raise UserError(
            f"{file}: {len(labels)} rows of {width} features are no dense matrix of 1 to "
            f"{LARGEST} values"
        )
    matrix = np.zeros((len(labels), width))
    matrix[rows, columns] = entries
    return torch.from_numpy(matrix).to(dtype), _signs(np.array(labels), file).to(dtype)


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("ascii")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as LIBSVM text ({one_line(error)})") from None


def _bad(file: Path, number: int, tokens: list[str]) -> UserError:
    """What is wrong with a line that could not be read."""
    try:
        float(tokens[0])
    except ValueError:
        return UserError(f"{file}, line {number}: label {tokens[0]!r} is not a number")
    for token in tokens[1:]:
        index, _, value = token.partition(":")
        try:
            int(index), float(value)
        except ValueError:
            return UserError(f"{file}, line {number}: {token!r} is not of the form index:value")
    raise AssertionError("a line was refused that has no error")


def _array(indices: list[int]) -> np.ndarray:
    try:
        return np.array(indices, np.int64)
    except OverflowError:  # cut what does not fit: it is out of range in any case
        return np.array([min(max(index, 0), 2**62) for index in indices], np.int64)


def _wrong(
    rows: np.ndarray, columns: np.ndarray, entries: np.ndarray, width: int
) -> dict[str, np.ndarray]:
    """For each kind of error, the entries that have it."""
    first = np.diff(rows, prepend=-1) > 0
    return {
        "is below 1": np.flatnonzero(columns < 0),
        "does not ascend": np.flatnonzero(~first & (np.diff(columns, prepend=-1) <= 0)),
        f"is above {width}, the number of features": np.flatnonzero(columns >= width),
        "has a value that is not finite": np.flatnonzero(~np.isfinite(entries)),
    }


def _signs(labels: np.ndarray, file: Path) -> Tensor:
    classes = np.unique(labels)
    if len(classes) != 2 or not np.isfinite(classes).all():
        shown = ", ".join(f"{one:g}" for one in classes[:5])
        raise UserError(f"{file} has {len(classes)} labels ({shown}); it must have two")
    return torch.from_numpy(np.where(labels == classes[1], 1.0, -1.0))
