"""Workers that do not say what they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from tacit.fleet.ledger import Kind

if TYPE_CHECKING:
    from tacit.fleet.fleet import Fleet


class Voice(Protocol):
    """What is really sent of what workers should send; see ``tacit.attacks.Liars``.

    ``honest``: ``(K,)`` bool, who says what it should. ``silent``: the others' models and gradients
    do not come at all; what is there in their place is NaN.
    """

    honest: Tensor

    @property
    def silent(self) -> bool: ...

    def say(self, fleet: Fleet, rows: Tensor, kind: Kind) -> Tensor:
        """What the hosted workers send instead of ``rows`` ``(L, n)``, which are not changed.
        Every process calls this at the same time."""
        ...

    def tell(self, every: Tensor, kind: Kind, step: int) -> Tensor | None:
        """Where liars tell each honest worker something else: ``(H, n)``, what they tell each;
        ``every``: what all workers sent, ``(K, n)``. None: all hear the same."""
        ...
