"""What can go wrong, in words a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
