"""Before the first exchange: do all workers run the same thing?"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from tacit.errors import PeerError
from tacit.fleet import Fleet

#: Raised whenever messages change so that older workers would misread them.
PROTOCOL = 2


def agree(fleet: Fleet, mine: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare descriptions; everybody's, in worker order.

    Keys that begin with ``own`` may differ. Raises PeerError, in every process, that names the
    first difference, its worker and worker 0's value.
    """
    message = json.dumps(mine, sort_keys=True).encode()
    every = [_read(text, k) for k, text in enumerate(fleet.gather_bytes([message], "control"))]
    first = dict(_leaves(every[0]))
    for worker, description in enumerate(every[1:], start=1):
        other = dict(_leaves(description))
        for key in [*first, *(key for key in other if key not in first)]:
            if first.get(key) != other.get(key) and not key.startswith("own"):
                raise PeerError(
                    f"worker {worker} cannot join: it has {_say(key, other)}, worker 0 has "
                    f"{_say(key, first)}; start all workers with the same program and options"
                )
    return every


def describe(part: Any) -> Any:
    """A recipe, or a part of one, as plain data: its class and its public options."""
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, functools.partial):
        return {"": describe(part.func), **{k: describe(v) for k, v in part.keywords.items()}}
    if isinstance(part, list | tuple):
        return [describe(value) for value in part]
    if isinstance(part, dict):
        return {str(key): describe(value) for key, value in part.items()}
    if type(part).__module__.startswith("tacit.") and hasattr(part, "__dict__"):
        options = {k: describe(v) for k, v in vars(part).items() if not k.startswith("_")}
        return {"": type(part).__name__, **options}
    return getattr(part, "__qualname__", type(part).__qualname__)


def _read(text: bytes, worker: int) -> dict[str, Any]:
    try:
        description = json.loads(text)
        if isinstance(description, dict):
            return description
    except ValueError:
        pass
    raise PeerError(f"worker {worker} introduced itself with something that is no description")


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path and key else path or key)
    else:
        yield path, tree


def _say(key: str, leaves: dict[str, Any]) -> str:
    return f"{key} = {leaves[key]!r}" if key in leaves else f"no {key}"
