"""EF21: workers send how their gradients have changed."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from tacit.compressors import Arrived
from tacit.errors import UserError
from tacit.fleet import Fleet
from tacit.memory.base import Memory
from tacit.replicas import Models
from tacit.setting import Setting

Start = Literal["whole", "zero"]


class EF21(Memory):
    """EF21 (Richtárik, Sokolov, Fatkhullin, NeurIPS 2021): worker i keeps ``h_i``, what the others
    believe its gradient to be, and sends ``C(g_i - h_i)``; all add what arrives, and step with
    ``h = mean h_i``.

    ``momentum``: EF21-SGDM (Fatkhullin et al., NeurIPS 2023), for stochastic gradients: instead of
    ``g_i`` its moving average ``v_i = (1 - momentum) v_i + momentum g_i``. None: plain EF21, which
    with stochastic gradients is EF21-SGD.
    ``start``: the first gradients are sent ``whole``, as published, which is charged; or ``zero``:
    ``h_i`` starts there. A worker that does not take part keeps its ``h_i``: EF21-PP.
    """

    counts_absent = True
    sends_again = True  # they begin at what has arrived

    def __init__(self, momentum: float | None = None, start: Start = "whole") -> None:
        if momentum is not None and not 0 < momentum <= 1:
            raise UserError(
                f"the momentum of EF21-SGDM is the weight of the new gradient, in (0, 1], not "
                f"{momentum:g}"
            )
        if start not in ("whole", "zero"):
            raise UserError(f"EF21 starts whole or zero, not {start!r}")
        self.momentum, self.begins = momentum, start

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        super().start(fleet, models, setting)
        self.whole = self.begins == "whole"
        self._believed = self._zeros()
        #: Of all workers together: in double precision, as it is a sum of very many messages.
        self._direction = torch.zeros_like(models.parameters[0], dtype=torch.float64)
        #: With momentum: the moving averages, and whether a worker has one yet, ``(L, 1)``.
        self._averaged = self._zeros() if self.momentum is not None else self._believed[:, :0]
        self._begun = self._believed.new_zeros(len(self._believed), 1)

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        if self.momentum is not None:
            weight = self.momentum if self._begun[row] else 1.0
            vector = self._averaged[row].lerp_(vector, weight)
            self._begun[row] = 1
        return self.scaled(row, vector) - self._believed[row]

    def scaled(self, row: int, vector: Tensor) -> Tensor:
        """The gradient as the messages are about it."""
        del row
        return vector

    def sent(self, row: int, outgoing: Tensor, arrived: Arrived | None) -> None:
        if arrived is None:
            self._believed[row] += outgoing
        else:
            arrived.add_to(self._believed[row])

    def direction(self, combined: Tensor) -> Tensor:
        self.whole = False
        self._direction += combined
        return self._direction.to(combined.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"direction": self._direction, "whole": self.whole}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._direction.copy_(state["direction"])
        self.whole = state["whole"]

    def take_over(self, means: dict[str, Tensor]) -> None:
        super().take_over(means)
        self._believed[:] = self._direction  # whatever the workers' weights were

    def rows(self) -> dict[str, Tensor]:
        return {"believed": self._believed, "averaged": self._averaged, "begun": self._begun}
