"""What can go wrong, in words a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Real


class UserError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and what to do."""


class MissingExtra(UserError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; run: pip install 'tacit[{extra}]'")


class TrainingDiverged(UserError):
    """A loss or a model is no longer finite."""


class PeerError(RuntimeError):
    """A worker's message is malformed, or a peer disagrees. The message names the sender."""


class PeerLost(PeerError):
    """A peer is gone, or did not answer in time."""


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry, with the nearest known name."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
    return UserError(f"unknown {what} {name!r}; {hint}")


def inside(number: object, interval: str) -> bool:
    """Whether this is a number, and in the interval, such as ``"(0, 1]"``. Truth values, texts and
    NaN are not, and infinity is in none that is open there."""
    if isinstance(number, bool) or not isinstance(number, Real):
        return False
    low, high = map(float, interval[1:-1].split(","))
    value = float(number)
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def check_number(what: str, number: float, interval: str) -> float:
    """Raises UserError, which names ``what``, for anything but a number in the interval, such as
    ``"[0, 1)"``; ``"(0, inf)"`` is every finite one above 0."""
    if inside(number, interval):
        return number
    words = {
        "(-inf, inf)": "a finite number",
        "(0, inf)": "above 0 and finite",
        "[0, inf)": "0 or more and finite",
    }
    must = words.get(interval, f"in {interval}")
    raise UserError(f"{what} must be {must}, not {number!r}")
