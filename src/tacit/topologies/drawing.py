"""FedAvg among workers that never rest: some are drawn and averaged."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tacit.aggregators import Aggregator
from tacit.errors import UserError
from tacit.fleet import Fleet, Settled, Star
from tacit.topologies.base import Coordinated
from tacit.topologies.sampling import check_fraction, draw_workers, drawn_workers
from tacit.triggers import Trigger

Receivers = Literal["drawn", "everyone"]


class Drawn(Coordinated):
    """``ceil(fraction * K)`` workers, drawn uniformly at each step that is due, are averaged; the
    others go on by themselves. ``to``: who gets the result, the ``drawn`` workers or ``everyone``.

    Source: the baseline sigma_{b,C} of Kamp et al., ECML PKDD 2018.
    """

    def __init__(self, fraction: float, to: Receivers = "drawn") -> None:
        if to not in get_args(Receivers):
            raise UserError(f"the mean goes to {' or '.join(get_args(Receivers))}, not {to!r}")
        self.fraction = check_fraction(fraction)
        self.to = to

    @property
    def senders(self) -> int:
        return drawn_workers(self.setting, self.fraction)

    def meet(
        self,
        fleet: Fleet,
        rows: Tensor,
        reference: Tensor,
        trigger: Trigger,
        aggregator: Aggregator,
        step: int,
    ) -> Settled:
        drawn = np.sort(draw_workers(self.setting, self.fraction, "drawn", step))
        calls = torch.tensor([worker in drawn for worker in fleet.hosted])

        def lead(star: Star) -> tuple[list[int], Tensor, bool]:
            members = np.flatnonzero(star.callers)
            if len(members) == 0:  # all who were drawn are away
                members = np.flatnonzero(star.present)
            mean = aggregator(star.rows(members.tolist()), star.weights[members])
            whole = self.to == "everyone" or len(members) == fleet.size
            return members.tolist(), mean, whole

        return fleet.coordinate(rows, calls, torch.ones(len(rows)), lead)
