"""Methods that talk when it is worth it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from tacit.aggregators import Aggregator, as_aggregator
from tacit.averaging import ModelAveraging
from tacit.compressors import Compressor
from tacit.errors import unknown
from tacit.fitting import Travels
from tacit.recipes.parts import with_feedback
from tacit.recipes.recipe import Recipe
from tacit.topologies import Balancing
from tacit.topologies.balancing import Weights
from tacit.triggers import (
    Estimator,
    Exact,
    Linear,
    LocalCondition,
    ModelVariance,
    Naive,
    Sketch,
)


def fda(
    theta: float | None = None,
    estimator: Literal["linear", "sketch", "naive", "exact"] = "linear",
    every: int = 1,
    lag: int = 0,
    overlap: int = 0,
    rows: int = 5,
    columns: int = 250,
    epsilon: float | None = None,
    buffers: Travels = "local",
    optimizer_state: Travels = "local",
    aggregator: str | Aggregator | None = None,
    decision: str | Aggregator | None = None,
    compressor: str | Compressor | None = None,
    download: str | Compressor | None = None,
) -> Recipe:
    """Federated Dynamic Averaging: average the models when their variance passes ``theta``.

    ``linear`` and ``sketch`` are the paper's LinearFDA and SketchFDA; ``rows``, ``columns`` and
    ``epsilon`` belong to the sketch. ``every``: steps between checks. Published: decide at the step
    that was checked, and wait for the models; with ``lag`` the check, with ``overlap`` the models
    travel during so many further steps (see ``ModelAveraging``). Without ``theta``, a first guess
    (see ``ModelVariance``) that is worth tuning. Theologitis et al., EDBT 2025, Algorithm 1.

    ``compressor``: of the models' changes, such as ``topk(density=0.05,values=int8)``; what is not
    sent is added to the next change (error feedback). ``download``: messages go to a coordinator,
    whose answer this one compresses, likewise; without, they go from everybody to everybody.

    Against liars: ``aggregator`` combines the models, such as ``nnm(f=2,then=trimmed_mean)``, and
    ``decision`` the states that a check is about, such as ``trimmed_mean(f=2)`` (see
    ``ModelVariance``).
    """
    estimators: dict[str, Callable[[], Estimator]] = {
        "linear": Linear,
        "sketch": partial(Sketch, rows, columns, epsilon),
        "naive": Naive,
        "exact": Exact,
    }
    if estimator not in estimators:
        raise unknown("estimator", estimator, estimators)
    trigger = ModelVariance(theta, estimators[estimator](), every, as_aggregator(decision))
    averaging = ModelAveraging(
        trigger,
        as_aggregator(aggregator),
        buffers=buffers,
        optimizer_state=optimizer_state,
        lag=lag,
        overlap=overlap,
        compression=with_feedback(compressor, download),
    )
    return Recipe("fda", averaging=averaging)


def dynamic_averaging(
    delta: float,
    every: int = 10,
    augmentation: str = "one",
    counter: bool = True,
    weights: Weights = "equal",
    buffers: Travels = "local",
) -> Recipe:
    """Dynamic model averaging (Kamp et al. 2018): a worker calls a coordinator when its model is
    further than ``delta`` from the last common one, ``||w - r||^2 > delta``; the coordinator
    averages as few models as bring their mean within it.

    ``every``: steps between checks, the paper's b. ``augmentation``: whom the coordinator asks
    next: ``one`` at random, the ``nearest``, ``double``, ``hedge`` (the published code's), ``all``.
    ``counter``: everyone, after as many calls as there are workers. ``weights``: ``equal``, or for
    unequal sampling rates ``rates`` or ``samples`` (see ``Balancing``). Algorithms 1 and 2.
    """
    topology = Balancing(augmentation, counter, weights)
    averaging = ModelAveraging(LocalCondition(delta, every), topology=topology, buffers=buffers)
    return Recipe("dynamic_averaging", averaging=averaging)
