from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.tasks.libsvm import load_libsvm, read_libsvm

TEXT = "2 1:1.5 3:-2e-1 \n1 # no feature\n\n2 2:0 4:7\n"
ROWS = [[1.5, 0, -0.2, 0], [0, 0, 0, 0], [0, 0, 0, 7]]


@pytest.mark.parametrize("packed", [True, False])
def test_reads_rows_and_maps_labels_to_signs(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "libsvm").mkdir()
    if packed:
        (tmp_path / "libsvm" / "toy.gz").write_bytes(gzip.compress(TEXT.encode()))
    else:
        (tmp_path / "libsvm" / "toy").write_text(TEXT)
    for folder in (tmp_path, tmp_path / "libsvm"):
        matrix, labels = load_libsvm("toy", folder)
        assert matrix.tolist() == ROWS
        assert labels.tolist() == [1, -1, 1]
        assert matrix.dtype == labels.dtype == torch.float64
    wide, labels = load_libsvm("toy", tmp_path, features=6, dtype=torch.float32)
    assert wide.shape == (3, 6)
    assert wide.dtype == labels.dtype == torch.float32


@given(
    st.lists(
        st.tuples(
            st.sampled_from([-1, 1]),
            st.dictionaries(st.integers(1, 9), st.floats(-1e6, 1e6, width=32), max_size=5),
        ),
        max_size=8,
    )
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    rows = [*rows, (1, {2: 0.5}), (-1, {})]
    lines = []
    for label, row in rows:
        lines.append(" ".join([f"{label:+d}", *(f"{j}:{row[j]!r}" for j in sorted(row))]))
    file = tmp_path_factory.mktemp("libsvm") / "any"
    file.write_text("\n".join(lines))
    matrix, labels = read_libsvm(file, features=9)
    expected = np.zeros((len(rows), 9))
    for i, (_, row) in enumerate(rows):
        for j, value in row.items():
            expected[i, j - 1] = value
    np.testing.assert_array_equal(matrix.numpy(), expected)
    assert labels.tolist() == [label for label, _ in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:1\nx 1:1\n", "bad, line 2: label 'x' is not a number"),
        ("1 1:1\n\n0 1:1 2\n", "bad, line 3: '2' is not of the form index:value"),
        ("1 1:1:1\n", "line 1: '1:1:1' is not of the form"),
        ("1 1:x\n", "line 1: '1:x' is not of the form"),
        ("1 a:1\n", "line 1: 'a:1' is not of the form"),
        ("1 qid:3 1:2\n", "line 1: 'qid:3' is not of the form"),
        ("1 1:1\n0 0:1\n", "line 2: index 0 is below 1"),
        ("1 1:1\n0 3:1 2:1\n", "line 2: index 2 does not ascend"),
        ("1 1:1 1:2\n", "line 1: index 1 does not ascend"),
        ("# head\n1 1:1 7:2\n", "line 2: index 7 is above 5, the number of features"),
        ("1 2:nan\n", "line 1: index 2 has a value that is not finite"),
        ("1 2:1\n0 99999999999999999999999:1\n", "line 2: index .* is above 5"),
        ("1 1:1\n1 1:2\n", r"has 1 labels \(1\); it must have two"),
        ("1 1:1\n2 1:2\n3 1:1\n", r"has 3 labels \(1, 2, 3\)"),
        ("nan 1:1\n2 1:2\n", "labels"),
        ("\n# nothing\n", "has no rows"),
        ("1 1:1 é\n", "cannot be read as LIBSVM text"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_libsvm(file, features=5)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_matrices_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "wide"
    file.write_text("1 5:1\n0 999999999999:1\n")
    with pytest.raises(UserError, match="2 rows of 999999999999 features are no dense matrix"):
        read_libsvm(file)
    file.write_text("1\n0\n")
    assert read_libsvm(file)[0].tolist() == [[0.0], [0.0]]


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    whole = gzip.compress(TEXT.encode())
    (tmp_path / "toy.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as LIBSVM text"):
        load_libsvm("toy", tmp_path)
    with pytest.raises(UserError, match=r"no a9a.gz or a9a in .*; there is: toy"):
        load_libsvm("a9a", tmp_path)
