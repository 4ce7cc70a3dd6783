"""How models and gradients are combined."""

from tacit.aggregators.base import Aggregator
from tacit.aggregators.mean import Mean, WeightedMean
from tacit.aggregators.outer import OuterOptimizer

__all__ = ["Aggregator", "Mean", "OuterOptimizer", "WeightedMean"]
