"""Messages that travel beside the computation, and how they are saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tacit.fleet import Pending, Ready


@dataclass(frozen=True)
class Late:
    """A message that is used at a later step than it was sent."""

    due: int
    message: Pending


#: No message is due at step 0. States have the same tensors whether one is on its way or not.
_NONE = 0


def settled_state(late: Late | None, columns: int) -> dict[str, Any]:
    if late is None:
        return {"due": _NONE, "value": torch.zeros(columns)}
    return {"due": late.due, "value": late.message.wait()}


def late_of(state: dict[str, Any], device: torch.device) -> Late | None:
    if state["due"] == _NONE:
        return None
    return Late(state["due"], Ready(state["value"].to(device)))
