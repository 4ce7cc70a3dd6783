"""Everybody with everybody, without a server: each worker mixes the models that it holds."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit import rng
from tacit.aggregators import Aggregator
from tacit.errors import UserError
from tacit.fleet import Correspondence, Fleet, Kind
from tacit.setting import Setting
from tacit.topologies.base import Topology

Reception = Literal["first", "worst", "all"]


class Peers(Topology):
    """Every worker sends its model to all others, and goes on from what its rule makes of those it
    holds, its own among them. No two workers need have the same model.

    ``f``: how many workers may say anything, or nothing. ``reception``: whose models one holds.

    - ``first``: it does not wait for more than n - f, since f may be silent. Where each process
      hosts one worker, those are the first to arrive; elsewhere, and where liars are simulated,
      they are drawn at random.
    - ``worst``: of these n - f as many as can be are liars', and the honest ones are drawn at
      random (the asynchronous worst case of Farhadkhani et al., ICML 2023).
    - ``all``: all n. A worker that says nothing has NaN as its model.
    """

    def __init__(self, f: int, reception: Reception = "first") -> None:
        if reception not in get_args(Reception):
            raise UserError(
                f"reception is one of {', '.join(get_args(Reception))}, not {reception!r}"
            )
        if isinstance(f, bool) or not isinstance(f, int) or f < 0:
            raise UserError(f"f is a number of workers, 0 or more, not {f!r}")
        self.f, self.reception = f, reception

    def start(self, setting: Setting) -> None:
        """Raises UserError unless more than half of the workers are honest."""
        super().start(setting)
        self._correspondence = Correspondence()
        if setting.workers < 2 * self.f + 1:
            raise UserError(
                f"{self.f} of {setting.workers} workers may lie; more than half must be honest, "
                f"so take at least {2 * self.f + 1} workers, or lower f"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of any step, as all workers do at once: what was on its way is
        nothing to them."""
        super().load_state_dict(state)
        self._correspondence = Correspondence()

    @property
    def senders(self) -> int:
        """How many models a worker waits for, its own included."""
        return self.setting.workers - (0 if self.reception == "all" else self.f)

    def participants(self, round_number: int) -> Tensor:
        del round_number
        return torch.ones(self.setting.workers, dtype=torch.bool)

    def mix(
        self, fleet: Fleet, rows: Tensor, rule: Aggregator, step: int, kind: Kind = "model"
    ) -> Tensor:
        """What the hosted workers go on from, ``(L, n)``; ``rows``: their models ``(L, n)``."""
        # liars answer what they overhear, so they are never late: there, too, senders are drawn
        if self.reception == "first" and fleet.voice is None:
            first = fleet.gather_first(rows, kind, self.senders - 1, self._correspondence)
            if first is not None:
                here, models = first
                own_place = here.index(fleet.hosted.start)
                return rule.each(models, [np.arange(len(here))], [own_place], [np.array(here)])
        every = fleet.gather_rows(rows, kind)
        honest = (
            np.ones(fleet.size, np.bool_) if fleet.voice is None else fleet.voice.honest.numpy()
        )
        victims = [worker for worker in fleet.hosted if honest[worker]]
        silent = fleet.voice is not None and fleet.voice.silent
        held = [self._held(worker, honest, silent, kind, step) for worker in victims]
        own = [
            int(np.searchsorted(indices, worker))
            for worker, indices in zip(victims, held, strict=True)
        ]
        senders = [indices.copy() for indices in held]
        if fleet.voice is not None and (told := fleet.voice.tell(every, kind, step)) is not None:
            # what liars tell each honest worker comes behind everybody's rows
            every = torch.cat([every, told])
            for worker, indices in zip(victims, held, strict=True):
                indices[~honest[indices]] = fleet.size + worker
        mixed = rows.clone()
        if victims:
            first_row = victims[0] - fleet.hosted.start
            made = mixed[first_row : first_row + len(victims)]
            if fleet.deterministic:  # the bits of what is made for several depend on how many
                for row, indices, place, sent in zip(made, held, own, senders, strict=True):
                    row[:] = rule.each(every, [indices], [place], [sent])[0]
            else:
                made[:] = rule.each(every, held, own, senders)
        return mixed

    def introduce(self, fleet: Fleet, rows: Tensor, kind: Kind) -> None:
        fleet.introduce(rows, kind, self._correspondence)

    def last_word(self, fleet: Fleet, rows: Tensor, kind: Kind) -> None:
        fleet.last_word(rows, kind, self._correspondence)

    def _held(
        self, worker: int, honest: npt.NDArray[np.bool_], silent: bool, kind: Kind, step: int
    ) -> npt.NDArray[np.int64]:
        """The workers whose models this one holds at a step, in order."""
        others = np.delete(np.arange(len(honest)), worker)
        wanted = self.senders - 1
        if silent and self.reception == "first":  # those who say nothing never come first
            speaking = others[honest[others]]
            others = speaking if len(speaking) >= wanted else others
        draw = rng.numpy_stream(self.setting.seed, "peers", kind, worker, step)
        liars = others[~honest[others]][:wanted] if self.reception == "worst" else others[:0]
        rest = np.setdiff1d(others, liars)
        drawn = draw.choice(rest, wanted - len(liars), replace=False)
        return np.sort(np.concatenate([[worker], liars, drawn])).astype(np.int64)
