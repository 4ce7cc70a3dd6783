from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.report.units import human_bytes, human_seconds, short, times


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1539, "1.54 kB"),
        (76_960_000, "77 MB"),
        (999_600, "1 MB"),
        (230_880_000_000, "231 GB"),
        (5e18, "5,000 PB"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert human_bytes(count) == text


@given(st.integers(1, 10**15))
def test_bytes_keep_three_digits(count: int) -> None:
    number, unit = human_bytes(count).split()
    size = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}[unit]
    assert float(number) * size == pytest.approx(count, rel=5.1e-3)
    assert float(number) < 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (0.9999, "1 s"),
        (45.2, "45.2 s"),
        (59.96, "1 min"),
        (107, "1 min 47 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (273_600, "3 d 4 h"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_times_and_accuracies() -> None:
    assert [times(r) for r in (1.04, 9.94, 9.96, 41.2, 1234.5)] == [
        "1.0",
        "9.9",
        "10",
        "41",
        "1,234",
    ]
    assert [short(a) for a in (0.9, 0.955, 0.95284, 1.0)] == ["0.90", "0.955", "0.9528", "1.00"]
