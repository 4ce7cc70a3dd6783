"""The simplest methods: every step, every few, or never."""

from __future__ import annotations

from typing import Literal

from tacit.aggregators import Aggregator, WeightedMean, as_aggregator
from tacit.averaging import ModelAveraging
from tacit.compressors import Compressor
from tacit.errors import unknown
from tacit.fitting import Travels
from tacit.gradients import GradientExchange
from tacit.recipes.parts import with_feedback
from tacit.recipes.recipe import Recipe
from tacit.triggers import Every, Never


def synchronous(
    exchange: Literal["gradients", "models"] = "gradients",
    aggregator: str | Aggregator | None = None,
) -> Recipe:
    """Synchronous training: average every step.

    ``gradients``: what DistributedDataParallel computes. ``models``: average the models after each
    local step and leave optimizer states local, which is the FDA paper's "Synchronous".
    ``aggregator``: how they are combined, such as ``trimmed_mean(f=2)`` against liars; by default
    the mean.
    """
    rule = as_aggregator(aggregator)
    if exchange == "models":
        return Recipe("synchronous", averaging=ModelAveraging(Every(1), rule))
    if exchange == "gradients":
        return Recipe("synchronous", gradients=GradientExchange(rule))
    raise unknown("exchange", exchange, ["gradients", "models"])


def local_sgd(
    period: int = 16,
    overlap: int = 0,
    buffers: Travels = "local",
    compressor: str | Compressor | None = None,
    download: str | Compressor | None = None,
    aggregator: str | Aggregator | None = None,
) -> Recipe:
    """Local SGD (Stich 2019): average the models every ``period`` steps. Any local optimizer.

    ``overlap``: the models travel during so many further steps (see ``ModelAveraging``).
    ``compressor``, ``download``: of the models' changes, with error feedback, see :func:`fda`.
    ``aggregator``: as in :func:`synchronous`.
    """
    averaging = ModelAveraging(
        Every(period),
        as_aggregator(aggregator),
        buffers=buffers,
        overlap=overlap,
        compression=with_feedback(compressor, download),
    )
    return Recipe("local_sgd", averaging=averaging)


def periodic(
    period: int = 10,
    compressor: str | Compressor | None = None,
    download: str | Compressor | None = None,
) -> Recipe:
    """Periodic averaging on streams (Kamp et al. 2018, sigma_b): average every ``period`` rounds.
    Local SGD by its other name. ``compressor``, ``download``: as there."""
    compression = with_feedback(compressor, download)
    return Recipe("periodic", averaging=ModelAveraging(Every(period), compression=compression))


def continuous() -> Recipe:
    """Continuous averaging (Kamp et al. 2018, sigma_1): average the models after every round."""
    return Recipe("continuous", averaging=ModelAveraging(Every(1)))


def no_sync() -> Recipe:
    """Every worker learns alone."""
    return Recipe("no_sync", averaging=ModelAveraging(Never()))


def serial() -> Recipe:
    """One learner that gets all workers' samples: a step with their mean gradient, which costs
    nothing here. What no method can do better than."""
    return Recipe("serial", gradients=GradientExchange(WeightedMean("rates"), charged=False))
