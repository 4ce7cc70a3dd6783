from __future__ import annotations

import pytest

import tacit
from tacit.calls import call, parse_call, parse_value
from tacit.compressors import TopK, compressor
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


@pytest.mark.parametrize("value", ["no", "off", "x", 0, 1, 2, 1.0])
def test_a_switch_is_true_or_false(value) -> None:
    with pytest.raises(UserError, match=rf"^half: twice is true or false, not {value!r}$"):
        call("half", half, {"number": 5, "twice": value})


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("compressed:feedback=no", "feedback"),
        ("dgc:masking=off", "masking"),
        ("dgc:per_tensor=0", "per_tensor"),
        ("ef21:per_tensor=x", "per_tensor"),
    ],
)
def test_no_text_turns_a_switch_on(text, option) -> None:
    name, options = parse_call(text)
    with pytest.raises(UserError, match=f"{option} is true or false, not"):
        call(f"recipe {name}", tacit.RECIPES[name], options)
    with pytest.raises(UserError, match="compressor lowrank: warm is true or false, not 'no'"):
        compressor("lowrank(warm=no)")


# -- what a text says


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("fda", "fda", {}),
        ("fda:", "fda", {}),
        (" fda : theta = 1.5 , every=2", "fda", {"theta": 1.5, "every": 2}),
        ("fda:optimizer-state=average", "fda", {"optimizer_state": "average"}),
        ("topk(density=0.05,values=int8)", "topk", {"density": 0.05, "values": "int8"}),
        ("topk()", "topk", {}),
        (
            "fda:theta=1,compressor=topk(density=0.05,values=int8)",
            "fda",
            {"theta": 1, "compressor": "topk(density=0.05,values=int8)"},
        ),
        (
            "ef21:compressor=a(b=c(d=1,e=2),f=3),lr=0.1",
            "ef21",
            {"compressor": "a(b=c(d=1,e=2),f=3)", "lr": 0.1},
        ),
        ("compressed:compressor=qsgd(),feedback=TRUE", "compressed",
         {"compressor": "qsgd()", "feedback": True}),
    ],
)  # fmt: skip
def test_a_call_is_a_name_and_options(text, name, options) -> None:
    assert parse_call(text) == (name, options)
    assert parse_call(text)[1] == options


def test_options_that_are_calls_reach_what_they_are_about() -> None:
    name, options = parse_call(
        "fda:theta=1,compressor=topk(density=0.05,values=int8),download=qsgd"
    )
    recipe = call(f"recipe {name}", tacit.RECIPES[name], options)
    compression = recipe.averaging.compression
    assert isinstance(compression.compressor, TopK)
    assert compression.compressor.part.density == 0.05
    assert type(compression.download.compressor).__name__ == "QSGD"
    text = options["compressor"]
    assert compressor(text).code == compression.compressor.code != compressor("topk(k=1)").code


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fda:theta=1,compressor=topk(density=0.05", "parentheses in .* do not match"),
        ("fda:compressor=topk(k=2)),theta=1", "parentheses in .* do not match"),
        ("fda:compressor=topk)k=2(,theta=1", "parentheses in .* do not match"),
        ("topk(density=0.05", "no closing parenthesis"),
        ("topk(density=0.05)x", "no closing parenthesis"),
        ("topk(density=0.05))", "parentheses in .* do not match"),
        ("fda:theta", "'theta' in 'fda:theta' is not of the form option=value"),
        ("fda:compressor=topk(k=2),theta", "'theta' in .* is not of the form option=value"),
    ],
)
def test_what_is_no_call_is_one_clear_line(text, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_call(text)
    assert "\n" not in str(caught.value)


def test_an_error_inside_a_nested_call_names_the_option_and_the_compressor() -> None:
    _, options = parse_call("fda:theta=1,compressor=topk(desity=0.05)")
    with pytest.raises(UserError, match=r"^recipe fda: .*option of compressor topk: 'desity'"):
        call("recipe fda", tacit.RECIPES["fda"], options)
    with pytest.raises(UserError, match="unknown compressor 'topq'; did you mean 'topk'"):
        call("recipe fda", tacit.RECIPES["fda"], {"theta": 1.0, "compressor": "topq(k=1)"})


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("false", False), ("3", 3), ("1e-3", 1e-3), ("a/b", "a/b")]
)
def test_values(text, value) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
