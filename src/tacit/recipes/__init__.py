"""One short function for each published method: parts, put together.

Every recipe is new each time it is called and belongs to one run. ``gradients`` happens between the
backward pass and the local optimizer step, ``averaging`` after it.
"""

from __future__ import annotations

from collections.abc import Callable

from tacit.recipes.compressed import compressed, dgc, ef21, ef21_w, sparseloco
from tacit.recipes.dynamic import dynamic_averaging, fda
from tacit.recipes.federated import diloco, fedadagrad, fedadam, fedavg, fedavgm
from tacit.recipes.plain import continuous, local_sgd, no_sync, periodic, serial, synchronous
from tacit.recipes.recipe import Recipe
from tacit.recipes.robust import byz_ef21, learn, monna, rosdhb

#: Every recipe by its name on the command line.
RECIPES: dict[str, Callable[..., Recipe]] = {
    f.__name__: f
    for f in (
        synchronous,
        local_sgd,
        fda,
        dynamic_averaging,
        fedavg,
        fedavgm,
        fedadam,
        fedadagrad,
        diloco,
        sparseloco,
        compressed,
        dgc,
        ef21,
        ef21_w,
        monna,
        learn,
        byz_ef21,
        rosdhb,
        continuous,
        periodic,
        no_sync,
        serial,
    )
}

__all__ = [
    "RECIPES",
    "Recipe",
    "byz_ef21",
    "compressed",
    "continuous",
    "dgc",
    "diloco",
    "dynamic_averaging",
    "ef21",
    "ef21_w",
    "fda",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "learn",
    "local_sgd",
    "monna",
    "no_sync",
    "periodic",
    "rosdhb",
    "serial",
    "sparseloco",
    "synchronous",
]
