"""Names with options, as on the command line: ``fda:theta=1,compressor=topk(density=0.05)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from tacit.errors import UserError, unknown

Value = bool | int | float | str
Made = TypeVar("Made")


def parse_call(text: str) -> tuple[str, dict[str, Value]]:
    """``"fda:theta=1,estimator=sketch"`` to its name and options. An option that is a call itself
    has its options in parentheses, ``compressor=topk(density=0.05,values=int8)``, which this
    function reads too."""
    text = text.strip()
    name, _, rest = text.partition(":")
    if "(" in name:
        name, _, rest = text.partition("(")
        if not rest.endswith(")"):
            raise UserError(f"{text!r} has no closing parenthesis")
        rest = rest[:-1]
    options: dict[str, Value] = {}
    for item in filter(None, _split(rest)):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{item!r} in {text!r} is not of the form option=value")
        options[key.strip().replace("-", "_")] = parse_value(value.strip())
    return name.strip(), options


def _split(text: str) -> list[str]:
    """At the commas that are in no parentheses."""
    items, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    if depth:
        raise UserError(f"the parentheses in {text!r} do not match")
    return items


def parse_value(text: str) -> Value:
    """A number or a truth value where the text is one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def call(what: str, function: Callable[..., Made], options: Mapping[str, Value]) -> Made:
    """``function(**options)``. Raises UserError, which names ``what``, for an option that the
    function does not have, for a switch that is neither true nor false, and for a value that it
    refuses."""
    known = inspect.signature(function).parameters
    for name in options:
        if name not in known:
            raise unknown(f"option of {what}:", name, known)
    for name, value in options.items():
        # any text and any number but 0 would turn it on
        if isinstance(known[name].default, bool) and not isinstance(value, bool):
            raise UserError(f"{what}: {name} is true or false, not {value!r}")
    missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
    if missing and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        raise UserError(f"{what} needs {missing[0]}; write it after the name, as :{missing[0]}=...")
    try:
        return function(**options)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except TypeError as error:
        text = " ".join(str(error).split())
        raise UserError(f"{what}: a value is of the wrong type ({text})") from None
