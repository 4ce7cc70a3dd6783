"""One short function for each published method: parts, put together.

Every recipe is new each time it is called and belongs to one run. ``gradients`` happens between the
backward pass and the local optimizer step, ``averaging`` after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from tacit.aggregators import OuterOptimizer, WeightedMean
from tacit.averaging import ModelAveraging, Travels
from tacit.errors import UserError, unknown
from tacit.gradients import GradientExchange
from tacit.optimizers import OptimizerFactory
from tacit.topologies import Balancing, Drawn, Sampled
from tacit.topologies.balancing import Weights
from tacit.triggers import (
    Estimator,
    Every,
    EveryEpochs,
    Exact,
    Linear,
    LocalCondition,
    ModelVariance,
    Naive,
    Never,
    Sketch,
)


@dataclass
class Recipe:
    """A method: what it exchanges, and where in the step.

    ``optimizer``: the local optimizer, where it is part of the method; else the task's is used.
    """

    name: str
    gradients: GradientExchange | None = None
    averaging: ModelAveraging | None = None
    optimizer: OptimizerFactory | None = None


def synchronous(exchange: Literal["gradients", "models"] = "gradients") -> Recipe:
    """Synchronous training: average every step.

    ``gradients``: what DistributedDataParallel computes. ``models``: average the models after each
    local step and leave optimizer states local, which is the FDA paper's "Synchronous".
    """
    if exchange == "models":
        return Recipe("synchronous", averaging=ModelAveraging(Every(1)))
    if exchange == "gradients":
        return Recipe("synchronous", gradients=GradientExchange())
    raise unknown("exchange", exchange, ["gradients", "models"])


def local_sgd(period: int = 16, overlap: int = 0, buffers: Travels = "local") -> Recipe:
    """Local SGD (Stich 2019): average the models every ``period`` steps. Any local optimizer.

    ``overlap``: the models travel during so many further steps (see ``ModelAveraging``).
    """
    averaging = ModelAveraging(Every(period), buffers=buffers, overlap=overlap)
    return Recipe("local_sgd", averaging=averaging)


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
) -> Recipe:
    """Federated Dynamic Averaging: average the models when their variance passes ``theta``.

    ``linear`` and ``sketch`` are the paper's LinearFDA and SketchFDA; ``rows``, ``columns`` and
    ``epsilon`` belong to the sketch. ``every``: steps between checks. Published: decide at the step
    that was checked, and wait for the models; with ``lag`` the check, with ``overlap`` the models
    travel during so many further steps (see ``ModelAveraging``). Without ``theta``, a first guess
    (see ``ModelVariance``) that is worth tuning. Theologitis et al., EDBT 2025, Algorithm 1.
    """
    estimators: dict[str, Callable[[], Estimator]] = {
        "linear": Linear,
        "sketch": partial(Sketch, rows, columns, epsilon),
        "naive": Naive,
        "exact": Exact,
    }
    if estimator not in estimators:
        raise unknown("estimator", estimator, estimators)
    trigger = ModelVariance(theta, estimators[estimator](), every)
    averaging = ModelAveraging(
        trigger, buffers=buffers, optimizer_state=optimizer_state, lag=lag, overlap=overlap
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


def periodic(period: int = 10) -> Recipe:
    """Periodic averaging on streams (Kamp et al. 2018, sigma_b): average every ``period`` rounds.
    Local SGD by its other name."""
    return Recipe("periodic", averaging=ModelAveraging(Every(period)))


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


def fedavg(
    fraction: float = 1.0,
    epochs: float | None = None,
    lr: float | None = None,
    period: int | None = None,
) -> Recipe:
    """FedAvg (McMahan et al. 2017): each round, a sampled ``fraction`` of the workers runs
    ``epochs`` (by default 1) local epochs of SGD at ``lr`` (0.01); their models are averaged,
    weighted by their numbers of samples. Where these differ, an epoch is the average worker's: all
    take the same number of steps a round.

    With ``period``, as on streams, which do not wait (Kamp et al. 2018, sigma_{b,C}): everybody
    trains with the task's optimizer, and every ``period`` steps a sampled part goes on from its
    plain mean. Raises UserError for ``epochs`` or ``lr`` beside it.
    """
    if period is not None:
        if epochs is not None or lr is not None:
            raise UserError("epochs and lr belong to rounds of epochs; leave them out, or period")
        averaging = ModelAveraging(Every(period), topology=Drawn(fraction))
        return Recipe("fedavg", averaging=averaging)
    epochs, lr = 1.0 if epochs is None else epochs, 0.01 if lr is None else lr
    return _fedopt("fedavg", None, fraction, epochs, lr)


def fedavgm(
    fraction: float = 1.0,
    epochs: float = 1.0,
    lr: float = 0.0316,
    server_lr: float = 0.316,
    momentum: float = 0.9,
) -> Recipe:
    """FedAvgM (Hsu et al. 2019): FedAvg with server momentum. Defaults of the FDA paper."""
    server = partial(torch.optim.SGD, lr=server_lr, momentum=momentum)
    return _fedopt("fedavgm", server, fraction, epochs, lr)


def fedadam(
    fraction: float = 1.0,
    epochs: float = 1.0,
    lr: float = 0.01,
    server_lr: float = 1e-3,
    eps: float = 1e-7,
) -> Recipe:
    """FedAdam (Reddi et al. 2021): FedAvg with Adam on the server. Defaults of the FDA paper.

    The server's is torch's Adam, with bias correction; Reddi et al., Algorithm 2, have none.
    """
    server = partial(torch.optim.Adam, lr=server_lr, eps=eps)
    return _fedopt("fedadam", server, fraction, epochs, lr)


def fedadagrad(
    fraction: float = 1.0,
    epochs: float = 1.0,
    lr: float = 0.01,
    server_lr: float = 1e-2,
    eps: float = 1e-3,
) -> Recipe:
    """FedAdagrad (Reddi et al. 2021): FedAvg with Adagrad on the server."""
    server = partial(torch.optim.Adagrad, lr=server_lr, eps=eps)
    return _fedopt("fedadagrad", server, fraction, epochs, lr)


def diloco(
    period: int = 50,
    server_lr: float = 0.7,
    momentum: float = 0.9,
    nesterov: bool = True,
    overlap: int = 0,
) -> Recipe:
    """DiLoCo (Douillard et al. 2023): local training for ``period`` steps, then a Nesterov step on
    the averaged pseudo-gradient. The task's optimizer (published: AdamW) is the inner one.
    ``overlap``: the models travel during so many further steps (see ``ModelAveraging``).
    """
    server = partial(torch.optim.SGD, lr=server_lr, momentum=momentum, nesterov=nesterov)
    averaging = ModelAveraging(Every(period), outer=OuterOptimizer(server), overlap=overlap)
    return Recipe("diloco", averaging=averaging)


def _fedopt(
    name: str, server: OptimizerFactory | None, fraction: float, epochs: float, lr: float
) -> Recipe:
    averaging = ModelAveraging(
        EveryEpochs(epochs),
        aggregator=WeightedMean(),
        outer=OuterOptimizer(server) if server is not None else None,
        topology=Sampled(fraction) if fraction != 1 else None,
    )
    return Recipe(name, averaging=averaging, optimizer=partial(torch.optim.SGD, lr=lr))


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
        continuous,
        periodic,
        no_sync,
        serial,
    )
}
