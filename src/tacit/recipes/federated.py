"""Federated averaging, with and without an optimizer on the server."""

from __future__ import annotations

from functools import partial

import torch

from tacit.aggregators import Aggregator, OuterOptimizer, WeightedMean, as_aggregator
from tacit.averaging import ModelAveraging
from tacit.compressors import Compressor
from tacit.errors import UserError, check_number
from tacit.optimizers import OptimizerFactory
from tacit.recipes.parts import rate, sgd, with_feedback
from tacit.recipes.recipe import Recipe
from tacit.topologies import Drawn, Sampled
from tacit.triggers import Every, EveryEpochs


def fedavg(
    fraction: float = 1.0,
    epochs: float | None = None,
    lr: float | None = None,
    period: int | None = None,
    aggregator: str | Aggregator | None = None,
) -> Recipe:
    """FedAvg (McMahan et al. 2017): each round, a sampled ``fraction`` of the workers runs
    ``epochs`` (by default 1) local epochs of SGD at ``lr`` (0.01); their models are averaged,
    weighted by their numbers of samples. Where these differ, an epoch is the average worker's: all
    take the same number of steps a round.

    With ``period``, as on streams, which do not wait (Kamp et al. 2018, sigma_{b,C}): everybody
    trains with the task's optimizer, and every ``period`` steps a sampled part goes on from its
    plain mean. Raises UserError for ``epochs`` or ``lr`` beside it.

    ``aggregator``: how the models are combined, such as ``trimmed_mean(f=2)`` against liars.
    """
    rule = as_aggregator(aggregator)
    if period is not None:
        if epochs is not None or lr is not None:
            raise UserError("epochs and lr belong to rounds of epochs; leave them out, or period")
        averaging = ModelAveraging(Every(period), rule, topology=Drawn(fraction))
        return Recipe("fedavg", averaging=averaging)
    epochs, lr = 1.0 if epochs is None else epochs, 0.01 if lr is None else lr
    return _fedopt("fedavg", None, fraction, epochs, lr, rule)


def fedavgm(
    fraction: float = 1.0,
    epochs: float = 1.0,
    lr: float = 0.0316,
    server_lr: float = 0.316,
    momentum: float = 0.9,
) -> Recipe:
    """FedAvgM (Hsu et al. 2019): FedAvg with server momentum. Defaults of the FDA paper."""
    server = sgd(rate("server_lr", server_lr), check_number("momentum", momentum, "[0, 1)"))
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
    rate("server_lr", server_lr)
    server = partial(torch.optim.Adam, lr=server_lr, eps=check_number("eps", eps, "[0, inf)"))
    return _fedopt("fedadam", server, fraction, epochs, lr)


def fedadagrad(
    fraction: float = 1.0,
    epochs: float = 1.0,
    lr: float = 0.01,
    server_lr: float = 1e-2,
    eps: float = 1e-3,
) -> Recipe:
    """FedAdagrad (Reddi et al. 2021): FedAvg with Adagrad on the server."""
    rate("server_lr", server_lr)
    server = partial(torch.optim.Adagrad, lr=server_lr, eps=check_number("eps", eps, "[0, inf)"))
    return _fedopt("fedadagrad", server, fraction, epochs, lr)


def diloco(
    period: int = 50,
    server_lr: float = 0.7,
    momentum: float = 0.9,
    nesterov: bool = True,
    overlap: int = 0,
    compressor: str | Compressor | None = None,
    download: str | Compressor | None = None,
    aggregator: str | Aggregator | None = None,
) -> Recipe:
    """DiLoCo (Douillard et al. 2023): local training for ``period`` steps, then a Nesterov step on
    the averaged pseudo-gradient. The task's optimizer (published: AdamW) is the inner one.
    ``overlap``: the models travel during so many further steps (see ``ModelAveraging``).
    ``compressor``, ``download``: of the pseudo-gradients, with error feedback, see :func:`fda`.
    ``aggregator``: as in :func:`fedavg`.
    """
    rate("server_lr", server_lr)
    if not check_number("momentum", momentum, "[0, 1)") and nesterov:
        raise UserError("nesterov needs a momentum above 0; or say nesterov=false")
    server = partial(torch.optim.SGD, lr=server_lr, momentum=momentum, nesterov=nesterov)
    averaging = ModelAveraging(
        Every(period),
        as_aggregator(aggregator),
        outer=OuterOptimizer(server),
        overlap=overlap,
        compression=with_feedback(compressor, download),
    )
    return Recipe("diloco", averaging=averaging)


def _fedopt(
    name: str,
    server: OptimizerFactory | None,
    fraction: float,
    epochs: float,
    lr: float,
    aggregator: Aggregator | None = None,
) -> Recipe:
    averaging = ModelAveraging(
        EveryEpochs(epochs),
        aggregator or WeightedMean(),
        outer=OuterOptimizer(server) if server is not None else None,
        topology=Sampled(fraction) if fraction != 1 else None,
    )
    return Recipe(name, averaging=averaging, optimizer=sgd(lr))
