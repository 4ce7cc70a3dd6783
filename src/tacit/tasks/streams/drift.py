"""When the concept of a stream changes."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np

from tacit.calls import Value
from tacit.rng import Name, numpy_stream
from tacit.tasks.streams.options import number, whole_numbers

COINS = 1024  # rounds whose coins are thrown together: spreads the cost of opening a random stream


@dataclass(frozen=True)
class When:
    """``at``: the rounds that begin with a drift, ascending and >= 1. If there are none, every
    round after round 0 begins with a drift with this ``probability``."""

    probability: float = 0.0
    at: tuple[int, ...] = ()

    @classmethod
    def parse(cls, drift: Value, at: Value) -> When:
        """The options ``drift`` (a probability) and ``at`` (such as "500/1000"). Raises
        UserError."""
        rounds = whole_numbers("at", at)
        return cls(number("drift", drift, 0.0, 1.0), tuple(sorted(set(rounds))))


class Drifts:
    """The drifts of one stream, or with a ``name`` of its own, of one worker.

    The coin of a round is a function of (seed, name, round) alone. Concepts are numbered from 0 in
    the order of their time; round 0 has concept 0.
    """

    def __init__(self, when: When, seed: int, *name: Name) -> None:
        self._probability = when.probability
        self._seed, self._name = seed, name
        self._rounds = list(when.at)
        # The drifts of all rounds below this one are in the list.
        self._known = math.inf if when.at or when.probability == 0.0 else 0

    def concept(self, round: int) -> int:
        """The number of the concept of this round: how many drifts there were up to it."""
        self._throw(round + 1)
        return bisect.bisect_right(self._rounds, round)

    def between(self, start: int, stop: int) -> list[int]:
        """The rounds t, start <= t < stop, that begin with a drift, ascending."""
        self._throw(stop)
        rounds = self._rounds
        return rounds[bisect.bisect_left(rounds, start) : bisect.bisect_left(rounds, stop)]

    def _throw(self, stop: int) -> None:
        while self._known < stop:
            first = int(self._known)
            rng = numpy_stream(self._seed, "stream", "drift", *self._name, first // COINS)
            fallen = np.flatnonzero(rng.random(COINS) < self._probability) + first
            self._rounds += [int(one) for one in fallen if one > 0]
            self._known = first + COINS
