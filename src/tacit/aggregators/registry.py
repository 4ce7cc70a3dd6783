"""The aggregators by name, as on the command line: ``nnm:f=2,then=trimmed_mean``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from tacit.aggregators.base import Aggregator
from tacit.aggregators.clipping import CenteredClipping, CSPlus, SelfClipping
from tacit.aggregators.coordinatewise import Meamed, Median, TrimmedMean
from tacit.aggregators.geometric import GeometricMedian
from tacit.aggregators.krum import Bulyan, Krum, MultiKrum
from tacit.aggregators.mean import Mean, WeightedMean
from tacit.aggregators.nearest import CGE, CTMA, NNA
from tacit.aggregators.preaggregators import ARC, NNM, Bucketing, Clipping
from tacit.aggregators.spectral import CAF, DnC
from tacit.aggregators.subsets import MDA, SMEA
from tacit.calls import Value, call, parse_call
from tacit.errors import unknown

AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "arc": ARC,
    "bucketing": Bucketing,
    "bulyan": Bulyan,
    "caf": CAF,
    "centered_clipping": CenteredClipping,
    "cge": CGE,
    "clipping": Clipping,
    "cs_plus": CSPlus,
    "ctma": CTMA,
    "dnc": DnC,
    "geometric_median": GeometricMedian,
    "krum": Krum,
    "mda": MDA,
    "meamed": Meamed,
    "mean": Mean,
    "median": Median,
    "multi_krum": MultiKrum,
    "nna": NNA,
    "nnm": NNM,
    "self_clipping": SelfClipping,
    "smea": SMEA,
    "trimmed_mean": TrimmedMean,
    "weighted_mean": WeightedMean,
}

#: Options that are aggregators themselves.
_INNER = ("then", "first")


def aggregator(text: str) -> Aggregator:
    """A new aggregator from its name and options. Raises UserError for an unknown name or option,
    and for a value that is refused.

    The rule within ``nnm(f=2,then=trimmed_mean)`` has the f of the outer one unless it says its
    own.
    """
    return _made(*parse_call(text))


def _made(name: str, options: dict[str, Value]) -> Aggregator:
    if name not in AGGREGATORS:
        raise unknown("aggregator", name, AGGREGATORS)
    function, f = AGGREGATORS[name], options.get("f")
    rest, known = dict(options), inspect.signature(function).parameters
    inner = {o: _inner(str(rest.pop(o)), f) for o in _INNER if o in rest and o in known}
    return call(f"aggregator {name}", functools.partial(function, **inner), rest)


def _inner(text: str, f: Value | None) -> Aggregator:
    name, options = parse_call(text)
    takes = inspect.signature(AGGREGATORS[name]).parameters if name in AGGREGATORS else {}
    if f is not None and "f" in takes:
        options.setdefault("f", f)
    return _made(name, options)


def as_aggregator(what: str | Aggregator | None, f: int | None = None) -> Aggregator | None:
    """An aggregator, from its text or as it is. ``f``: of one whose text does not say it."""
    return _inner(what, f) if isinstance(what, str) else what
