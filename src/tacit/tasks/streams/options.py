"""Reading the options that streams share."""

from __future__ import annotations

from tacit.calls import Value
from tacit.errors import UserError


def number(name: str, value: Value, low: float, high: float) -> float:
    """``value`` as a number from ``low`` to ``high``. Raises UserError."""
    if isinstance(value, bool | str) or not low <= value <= high:
        raise UserError(f"{name} must be a number between {low:g} and {high:g}, got {value!r}")
    return float(value)


def flag(name: str, value: Value) -> bool:
    """``value`` as a truth value. Raises UserError."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, got {value!r}")
    return value


def whole_numbers(name: str, value: Value) -> tuple[int, ...]:
    """``"1/2/4"`` as positive whole numbers; none for an empty text. Raises UserError."""
    parts = [part for part in str(value).split("/") if value != ""]
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(
            f"{name} must be positive whole numbers with a stroke between them, such as 1/2/4; "
            f"got {value!r}"
        )
    return tuple(int(part) for part in parts)


def parse_rates(value: Value) -> tuple[int, ...]:
    """The relative sampling rates of workers 0, 1, ...; see ``batch_sizes``. Raises UserError."""
    return whole_numbers("rates", value) or (1,)


def batch_sizes(workers: int, batch_size: int, rates: tuple[int, ...]) -> list[int]:
    """Samples of each worker in a round: worker k gets batch_size times rates[k mod len(rates)].

    Raises UserError for fewer than one worker or sample.
    """
    if workers < 1:
        raise UserError(f"number of workers is {workers}; it must be at least 1")
    if batch_size < 1:
        raise UserError(f"batch size is {batch_size}; it must be at least 1")
    return [batch_size * rates[worker % len(rates)] for worker in range(workers)]
