from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tacit.errors import UserError, check_number, inside


@pytest.mark.parametrize(
    ("number", "interval", "said"),
    [
        (0, "[0, 1)", True),
        (1, "[0, 1)", False),
        (0, "(0, 1]", False),
        (1.0, "(0, 1]", True),
        (np.float32(0.5), "(0, 1]", True),
        (np.int64(1), "(0, 1]", True),
        (-1e300, "(-inf, inf)", True),
        (math.inf, "(0, inf)", False),
        (math.nan, "(-inf, inf)", False),
        (True, "(0, 1]", False),
        (np.bool_(True), "(0, 1]", False),
        ("0.5", "(0, 1]", False),
        (None, "(0, 1]", False),
        (torch.tensor(0.5), "(0, 1]", False),
    ],
)
def test_what_is_inside(number, interval, said):
    assert inside(number, interval) is said
    if said:
        assert check_number("it", number, interval) is number
    else:
        with pytest.raises(UserError, match=r"^it must be .*, not "):
            check_number("it", number, interval)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ("[0, 1)", "in [0, 1)"),
        ("(0, inf)", "above 0 and finite"),
        ("[0, inf)", "0 or more and finite"),
        ("(-inf, inf)", "a finite number"),
    ],
)
def test_the_interval_in_words(interval, words):
    with pytest.raises(UserError) as caught:
        check_number("lr", "x", interval)
    assert str(caught.value) == f"lr must be {words}, not 'x'"
