"""Tacit: distributed deep learning that speaks only when it must."""

from tacit.attached import Attached, attach
from tacit.evaluation import Evaluation
from tacit.fleet import Link, LocalFleet, ProcessGroupFleet
from tacit.recipes import (
    RECIPES,
    Recipe,
    byz_ef21,
    compressed,
    continuous,
    dgc,
    diloco,
    dynamic_averaging,
    ef21,
    ef21_w,
    fda,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    learn,
    local_sgd,
    monna,
    no_sync,
    periodic,
    rosdhb,
    serial,
    sparseloco,
    synchronous,
)
from tacit.simulate import Simulation

__version__ = "0.1.0"

__all__ = [
    "RECIPES",
    "Attached",
    "Evaluation",
    "Link",
    "LocalFleet",
    "ProcessGroupFleet",
    "Recipe",
    "Simulation",
    "attach",
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
