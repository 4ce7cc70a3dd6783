"""When workers talk."""

from tacit.triggers.base import Trigger
from tacit.triggers.estimators import Estimator, Exact, Linear, Naive, Sketch
from tacit.triggers.schedule import Every, EveryEpochs
from tacit.triggers.variance import ModelVariance

__all__ = [
    "Estimator",
    "Every",
    "EveryEpochs",
    "Exact",
    "Linear",
    "ModelVariance",
    "Naive",
    "Sketch",
    "Trigger",
]
