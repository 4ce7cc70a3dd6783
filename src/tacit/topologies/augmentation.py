"""Whom the coordinator asks next when the models it has cannot be balanced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tacit.errors import unknown

Workers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """A set that could not be balanced. ``outsiders``: not empty. ``distances``: ``(K,)``, the last
    known squared distance of each worker's model to the reference. ``wave``: how often the set has
    grown."""

    members: Workers
    outsiders: Workers
    distances: npt.NDArray[np.float64]
    wave: int


class Augmentation(ABC):
    """Chooses new members of a balancing set; at least one."""

    #: Whether those who call may do without the others at all.
    balances: bool = True

    @abstractmethod
    def add(self, found: Found, draw: np.random.Generator) -> Workers:
        """Who joins the members, of the outsiders."""


class One(Augmentation):
    """One worker at random."""

    def add(self, found: Found, draw: np.random.Generator) -> Workers:
        return draw.choice(found.outsiders, 1)


class Nearest(Augmentation):
    """The worker that was last known nearest to the reference (ties: at random): of a model at
    distance r nothing is known but that it pulls the mean towards a point that near."""

    def add(self, found: Found, draw: np.random.Generator) -> Workers:
        known = found.distances[found.outsiders]
        return draw.choice(found.outsiders[known == known.min()], 1)


class Growing(Augmentation):
    """More and more at random, and everyone once half of the workers would be members.

    ``doubling``: 1, then 2, then 4, ... workers. Else twice as many as there are members (1, 3, 9,
    ... members), as in the published code's DynamicHedgeSync, whose comment says the former.
    """

    def __init__(self, doubling: bool) -> None:
        self.doubling = doubling

    def add(self, found: Found, draw: np.random.Generator) -> Workers:
        count = 2**found.wave if self.doubling else 2 * len(found.members)
        everyone = len(found.members) + len(found.outsiders)
        if count >= len(found.outsiders) or len(found.members) + count >= everyone / 2:
            return found.outsiders
        return draw.choice(found.outsiders, count, replace=False)


class All(Augmentation):
    """Everyone, at once: each violation is a full synchronisation (the published DynamicSync)."""

    balances = False

    def add(self, found: Found, draw: np.random.Generator) -> Workers:
        return found.outsiders


#: By their names in the recipe.
AUGMENTATIONS = {
    "one": One(),
    "nearest": Nearest(),
    "double": Growing(doubling=True),
    "hedge": Growing(doubling=False),
    "all": All(),
}


def strategy(name: str) -> Augmentation:
    """The strategy of this name. Raises UserError."""
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
