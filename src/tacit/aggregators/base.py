"""How models or gradients are combined: the aggregator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit.errors import TrainingDiverged
from tacit.fleet import Fleet, Kind, Pending, Ready
from tacit.setting import Setting

Indices = npt.NDArray[np.int64]


class Aggregator(ABC):
    """Combines one row of each participating worker into one vector.

    Called with rows ``(n, d)``, and weights ``(n,)`` or None, it gives ``(d,)``. Over a fleet,
    :meth:`combine` gathers the rows first; an aggregator that is a sum need not.
    """

    #: Whether it needs everybody's row by itself; a sum does not.
    gathers = True
    #: Whether it is known to turn with the rows: it depends on them through their inner products
    #: alone, looks at no coordinate by itself, and draws nothing that follows from them.
    turns = False

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        del setting

    def check(self, n: int) -> None:
        """Raise UserError unless it accepts n rows."""
        del n

    @abstractmethod
    def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        """``(n, d) -> (d,)``."""

    def each(
        self,
        rows: Tensor,
        held: Sequence[Indices],
        own: Sequence[int],
        senders: Sequence[Indices] | None = None,
    ) -> Tensor:
        """What each of v workers without a server makes of the rows it holds: ``(v, d)``.

        ``rows``: ``(m, d)``; ``held[i]``: which of them worker i holds, with repetitions if it got
        the same twice; ``own[i]``: the place in ``held[i]`` of its own; ``senders[i]``: the workers
        that sent what it holds, for errors; None: ``held[i]``.

        Here each by itself. Raises TrainingDiverged, which says who sent NaN or inf, where what one
        makes is not finite.
        """
        del own
        made = []
        for indices, sent in zip(held, held if senders is None else senders, strict=True):
            some = rows[torch.from_numpy(indices).to(rows.device)]
            made.append(self(some))
            if not math.isfinite(float(made[-1].sum())) and not made[-1].isfinite().all():
                raise _spoilt(sent[(~some.isfinite().all(dim=1)).cpu().numpy()])
        return torch.stack(made)

    def weights(self, participants: Tensor) -> Tensor:
        """The workers' weights, ``(K,)`` float64; 0 for those that take no part."""
        return participants.to(torch.float64)

    def running(self) -> Running:
        """The combination of rows that come a few at a time."""
        return Running(self)

    def combine(self, fleet: Fleet, rows: Tensor, kind: Kind, participants: Tensor) -> Tensor:
        """The combination of the participants' rows, in every process.

        ``rows``: the hosted workers', ``(L, d)``. ``participants``: ``(K,)`` bool.
        """
        return self.combine_later(fleet, rows, kind, participants).wait()

    def combine_later(
        self, fleet: Fleet, rows: Tensor, kind: Kind, participants: Tensor, overlap: int = 0
    ) -> Pending:
        """Start :meth:`combine`, whose result is needed ``overlap`` steps later.

        Here it is there at once; an aggregator that can travel beside the computation overrides
        this. Rows of workers that are away are left out.
        """
        del overlap
        gathered, present = fleet.gather_present(rows, kind)
        counted = participants & present
        if not counted.all():
            gathered = gathered[counted.to(rows.device)]
        return Ready(self(gathered))


def called(what: str, numbers: Indices) -> str:
    """``worker 3``, or ``workers 3, 27``; the first eight of many, of equal ones one."""
    numbers = np.unique(numbers)
    names = ", ".join(map(str, numbers[:8].tolist())) + (", ..." if len(numbers) > 8 else "")
    return f"{what}{'s' * (len(numbers) > 1)} {names}"


def _spoilt(guilty: Indices) -> TrainingDiverged:
    """The error of a combination that is not finite, though it is no robust one."""
    if len(guilty):
        who = f"{called('worker', guilty)} sent NaN or inf"
    else:
        who = "the numbers are too large"
    return TrainingDiverged(
        f"what a worker makes of its peers' rows is not finite: {who}; lower the learning rate, "
        "look at their data, or take a robust aggregator"
    )


class Running:
    """A combination of rows that come a few at a time; here from all of them, every time."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._rows: list[Tensor] = []
        self._weights: list[Tensor] = []

    def add(self, rows: Tensor, weights: Tensor) -> None:
        """``rows``: ``(n, d)``; ``weights``: ``(n,)``."""
        self._rows.append(rows)
        self._weights.append(weights)

    @property
    def value(self) -> Tensor:
        """The combination of what has come, ``(d,)``."""
        return self._aggregator(torch.cat(self._rows), torch.cat(self._weights))
