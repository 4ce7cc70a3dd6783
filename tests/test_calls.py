from __future__ import annotations

import pytest

from tacit.calls import call
from tacit.errors import UserError


def half(number: int, twice: bool = False) -> float:
    if number < 0:
        raise UserError("number is negative")
    return number if twice else number / 2


def test_options_are_passed_on() -> None:
    assert call("half", half, {"number": 5}) == 2.5
    assert call("half", half, {"number": 5, "twice": True}) == 5


def test_unknown_options_name_those_there_are() -> None:
    with pytest.raises(UserError, match="option of half: 'numbr'; did you mean 'number'"):
        call("half", half, {"numbr": 5})
    with pytest.raises(UserError, match="option of half: 'zzz'; choose from number, twice"):
        call("half", half, {"zzz": 5})


def test_what_is_needed_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"^half needs number; write it after the name"):
        call("half", half, {"twice": True})


def test_a_value_of_the_wrong_type_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^half: a value is of the wrong type \("):
        call("half", half, {"number": "five"})


def test_refused_values_say_whose() -> None:
    with pytest.raises(UserError, match=r"^the half: number is negative$"):
        call("the half", half, {"number": -1})
