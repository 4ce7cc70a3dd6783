"""Partial balancing: a coordinator averages as few models as will do."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tacit import rng
from tacit.aggregators import Aggregator
from tacit.errors import PeerError, UserError
from tacit.fleet import Fleet, Settled, Star
from tacit.setting import Setting
from tacit.sketches.moments import drift_moments
from tacit.topologies.augmentation import Found, strategy
from tacit.topologies.base import Coordinated
from tacit.triggers import Trigger

Weights = Literal["equal", "rates", "samples"]


class Balancing(Coordinated):
    """The coordinator of dynamic averaging (Kamp et al. 2018, Algorithms 1 and 2).

    Those who call send their models. If the trigger accepts the mean of this *balancing set*, its
    members go on from it and the reference stays, which leaves the mean of all models as it is.
    Else the set grows as ``augmentation`` says (``one``, ``nearest``, ``double``, ``hedge``,
    ``all``), until it is balanced or holds everyone: then the mean is the new reference.

    ``counter``: once there have been as many calls as workers since the last full synchronisation,
    the next one is full: partial balancing never moves the reference, from which all drift away.
    ``weights``: of the mean. ``equal``; ``rates``: each worker's samples a step; ``samples``: those
    of the steps since it last took part (Algorithm 2, for unequal sampling rates).
    """

    def __init__(
        self, augmentation: str = "one", counter: bool = True, weights: Weights = "equal"
    ) -> None:
        if not isinstance(counter, bool):
            raise UserError(f"counter is true or false, not {counter!r}")
        if weights not in get_args(Weights):
            raise UserError(f"weights are {', '.join(get_args(Weights))}, not {weights!r}")
        self.augmentation = augmentation
        self.counter = counter
        self.weights = weights
        self._strategy = strategy(augmentation)

    def start(self, setting: Setting) -> None:
        super().start(setting)
        #: Calls since the last full synchronisation.
        self._calls = 0
        #: The step at which each worker last took part, (K,).
        self._took_part = torch.zeros(setting.workers, dtype=torch.int64)
        #: The last known squared distance of each worker's model to the reference, (K,).
        self._distances = np.zeros(setting.workers)

    def meet(
        self,
        fleet: Fleet,
        rows: Tensor,
        reference: Tensor,
        trigger: Trigger,
        aggregator: Aggregator,
        step: int,
    ) -> Settled:
        here = slice(fleet.hosted.start, fleet.hosted.stop)
        d = len(reference)

        def lead(star: Star) -> tuple[list[int], Tensor, bool]:
            return self._balance(star, reference, trigger, aggregator, step)

        calls = trigger.calls(rows[:, :d], reference)
        settled = fleet.coordinate(rows, calls, self._weights(step)[here], lead)
        self._calls = 0 if settled.whole else self._calls + int(settled.callers.sum())
        if settled.whole:
            self._distances[:] = 0.0
        self._took_part[torch.from_numpy(settled.receivers())] = step
        return settled

    def _balance(
        self,
        star: Star,
        reference: Tensor,
        trigger: Trigger,
        aggregator: Aggregator,
        step: int,
    ) -> tuple[list[int], Tensor, bool]:
        everyone = np.flatnonzero(star.present)
        members = np.flatnonzero(star.callers)
        enough = self.counter and self._calls + len(members) >= len(everyone)
        if enough or len(members) == 0 or not self._strategy.balances:
            members = everyone
        draw = rng.numpy_stream(self.setting.seed, "balancing", step)
        mean, wave = aggregator.running(), 0
        new = members
        while len(members) < len(everyone):
            mean.add(self._fetch(star, new, reference, step), star.weights[new])
            if trigger.accepts(mean.value[: len(reference)], reference):
                self._distances[members] = _distances(mean.value[None], reference)
                return members.tolist(), mean.value, False
            outsiders = np.setdiff1d(everyone, members)
            new = self._strategy.add(Found(members, outsiders, self._distances, wave), draw)
            members, wave = np.concatenate([members, new]), wave + 1
        # in worker order, whoever came first
        rows = self._fetch(star, everyone, reference, step)
        return everyone.tolist(), aggregator(rows, star.weights[everyone]), True

    def _fetch(
        self, star: Star, workers: npt.NDArray[np.int64], reference: Tensor, step: int
    ) -> Tensor:
        rows = star.rows(workers.tolist())
        self._distances[workers] = _distances(rows, reference)
        beside = torch.isfinite(rows[:, len(reference) :]).all(dim=1).cpu().numpy()
        unfit = ~(np.isfinite(self._distances[workers]) & beside)
        if unfit.any():
            raise PeerError(
                f"worker {workers[unfit][0]} sent a model that is not finite at step {step}; "
                "lower the learning rate, or look at this worker's data"
            )
        return rows

    def _weights(self, step: int) -> Tensor:
        """``(K,)`` float64."""
        if self.weights == "equal":
            return torch.ones(self.setting.workers, dtype=torch.float64)
        rates = self.setting.sample_rates()
        return rates * (step - self._took_part) if self.weights == "samples" else rates

    # -- state

    def begin_again(self, step: int) -> None:
        self._calls = 0
        self._took_part = torch.full((self.setting.workers,), step)
        self._distances = np.zeros(self.setting.workers)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self._calls, "took part": self._took_part.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._calls = state["calls"]
        self._took_part = state["took part"].clone()

    def coordinator_state(self) -> dict[str, Any]:
        return {"distances": torch.from_numpy(self._distances.copy())}

    def load_coordinator_state(self, state: dict[str, Any]) -> None:
        self._distances = state["distances"].numpy().copy()


def _distances(rows: Tensor, reference: Tensor) -> npt.NDArray[np.float64]:
    """Squared distances of the models in the first columns of ``rows``."""
    moments = drift_moments(rows[:, : len(reference)], reference)
    distances: npt.NDArray[np.float64] = moments[:, 0].cpu().numpy()
    return distances
