"""Error feedback: what was not sent is added to what is to be sent next."""

from __future__ import annotations

from torch import Tensor

from tacit.compressors import Arrived
from tacit.errors import check_number
from tacit.fleet import Fleet
from tacit.memory.base import Memory
from tacit.replicas import Models
from tacit.setting import Setting


class ErrorFeedback(Memory):
    """EF14 (Seide et al. 2014; Karimireddy et al., ICML 2019), in the units of what is sent, so
    that a learning rate may change: ``p = g + decay e``, send ``C(p)``, ``e = p - C(p)``.

    ``decay``: below 1 the memory fades (published: 1; SparseLoCo, Sarfi et al. 2025: 0.95).
    """

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = check_number("the memory's decay", decay, "[0, 1]")

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        super().start(fleet, models, setting)
        self._errors = self._zeros()

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        return self._errors[row].mul_(self.decay).add_(vector)

    def sent(self, row: int, outgoing: Tensor, arrived: Arrived | None) -> None:
        # ``outgoing`` is the memory itself
        if arrived is None:
            self._errors[row].zero_()
        else:
            arrived.add_to(self._errors[row], -1.0)

    def rows(self) -> dict[str, Tensor]:
        return {"errors": self._errors}
