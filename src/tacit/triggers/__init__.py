"""When workers talk."""

from tacit.triggers.base import Trigger
from tacit.triggers.estimators import Estimator, Exact, Linear, Naive, Sketch
from tacit.triggers.local_condition import LocalCondition
from tacit.triggers.schedule import Every, EveryEpochs, Never
from tacit.triggers.variance import ModelVariance

__all__ = [
    "Estimator",
    "Every",
    "EveryEpochs",
    "Exact",
    "Linear",
    "LocalCondition",
    "ModelVariance",
    "Naive",
    "Never",
    "Sketch",
    "Trigger",
]
