"""EF21: workers send how their gradients have changed."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from tacit.compressors import Arrived
from tacit.errors import UserError, check_number
from tacit.fleet import Fleet
from tacit.memory.base import Memory, pieces
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
        if momentum is not None:
            what = "the momentum of EF21-SGDM, which is the weight of the new gradient,"
            check_number(what, momentum, "(0, 1]")
        if start not in ("whole", "zero"):
            raise UserError(f"EF21 starts whole or zero, not {start!r}")
        self.momentum, self.begins = momentum, start

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        super().start(fleet, models, setting)
        self.whole = self.begins == "whole"
        self._believed = self._zeros()
        # A fresh vector costs more than what is written to it. ``outgoing`` of all rows is in use
        # at a time.
        self._outgoing = torch.empty_like(self._believed)
        self._result = torch.empty_like(models.parameters[0])
        #: What all step with, ``(d,)``: in double precision, as it is a sum of very many messages.
        self.total = torch.zeros_like(models.parameters[0], dtype=torch.float64)
        #: With momentum: the moving averages, and whether a worker has one yet, ``(L, 1)``.
        self._averaged = self._zeros() if self.momentum is not None else self._believed[:, :0]
        self._begun = self._believed.new_zeros(len(self._believed), 1)

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        if self.momentum is not None:
            weight = self.momentum if self._begun[row] else 1.0
            vector = self._averaged[row].lerp_(vector, weight)
            self._begun[row] = 1
        outgoing, scale = self._outgoing[row], self.scale(row)
        if scale == 1:
            return torch.sub(vector, self._believed[row], out=outgoing)
        return torch.div(vector, scale, out=outgoing).sub_(self._believed[row])

    def scale(self, row: int) -> float:
        """What a gradient is divided by before it is sent."""
        del row
        return 1.0

    def sent(self, row: int, outgoing: Tensor, arrived: Arrived | None) -> None:
        if arrived is None:
            self._believed[row] += outgoing
        else:
            arrived.add_to(self._believed[row])

    def direction(self, combined: Tensor) -> Tensor:
        self.whole = False
        vectors = (self.total, combined, self._result)
        for total, change, step in zip(*map(pieces, vectors), strict=True):
            step.copy_(total.add_(change))
        return self._result

    def begin_again(self) -> None:
        self._believed.zero_()
        self.total.zero_()
        self.whole = self.begins == "whole"

    def state_dict(self) -> dict[str, Any]:
        return {"direction": self.total, "whole": self.whole}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total.copy_(state["direction"])
        self.whole = state["whole"]

    def take_over(self, means: dict[str, Tensor]) -> None:
        super().take_over(means)
        self._believed[:] = self.total  # whatever the workers' weights were

    def rows(self) -> dict[str, Tensor]:
        return {"believed": self._believed, "averaged": self._averaged, "begun": self._begun}
