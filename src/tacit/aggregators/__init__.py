"""How models and gradients are combined."""

from tacit.aggregators.base import Aggregator
from tacit.aggregators.clipping import CenteredClipping, CSPlus, SelfClipping
from tacit.aggregators.coordinatewise import Meamed, Median, Ranked, TrimmedMean
from tacit.aggregators.geometric import GeometricMedian
from tacit.aggregators.krum import Bulyan, Krum, MultiKrum
from tacit.aggregators.mean import Mean, WeightedMean
from tacit.aggregators.nearest import CGE, CTMA, NNA, PeerRule, refuse_peer_rule
from tacit.aggregators.outer import OuterOptimizer
from tacit.aggregators.preaggregators import ARC, NNM, Bucketing, Clipping, PreAggregator
from tacit.aggregators.registry import AGGREGATORS, aggregator, as_aggregator
from tacit.aggregators.robust import Robust
from tacit.aggregators.spectral import CAF, DnC
from tacit.aggregators.subsets import MDA, SMEA

__all__ = [
    "AGGREGATORS",
    "ARC",
    "CAF",
    "CGE",
    "CTMA",
    "MDA",
    "NNA",
    "NNM",
    "SMEA",
    "Aggregator",
    "Bucketing",
    "Bulyan",
    "CSPlus",
    "CenteredClipping",
    "Clipping",
    "DnC",
    "GeometricMedian",
    "Krum",
    "Meamed",
    "Mean",
    "Median",
    "MultiKrum",
    "OuterOptimizer",
    "PeerRule",
    "PreAggregator",
    "Ranked",
    "Robust",
    "SelfClipping",
    "TrimmedMean",
    "WeightedMean",
    "aggregator",
    "as_aggregator",
    "refuse_peer_rule",
]
