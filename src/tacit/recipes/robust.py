"""Methods for workers of whom some may say anything."""

from __future__ import annotations

from tacit.aggregators import Aggregator, as_aggregator
from tacit.averaging import ModelAveraging
from tacit.compression import Compression
from tacit.compressors import Compressor, RandomK, as_compressor
from tacit.errors import UserError
from tacit.gradients import GradientExchange
from tacit.memory import EF21, Averages, Increments
from tacit.memory.ef21 import Start
from tacit.recipes.parts import needed, polyak, sgd
from tacit.recipes.recipe import Recipe
from tacit.topologies import Peers
from tacit.topologies.peers import Reception
from tacit.triggers import Every


def monna(
    f: int,
    momentum: float = 0.99,
    lr: float = 0.1,
    reception: Reception = "first",
    rule: str | Aggregator = "nna",
) -> Recipe:
    """MoNNA (Farhadkhani et al., ICML 2023): no server; each worker steps along its own Polyak
    momentum, sends its model to all others, waits for all but ``f`` of them, and goes on from the
    mean of all but ``f`` of those it holds, the nearest to its own.

    ``f``: how many workers may say anything, or nothing. ``momentum``: beta of
    ``m <- beta m + (1 - beta) g``, ``w <- w - lr m``, with m = 0 at first. ``reception``: see
    ``Peers``. ``rule``: what mixes the models held, ``nna`` as published, or another aggregator,
    such as ``trimmed_mean`` (MoCWTM; BRIDGE without momentum), ``geometric_median`` or
    ``self_clipping(tau=2,rounds=3)``; it has the same f unless it says its own.
    """
    peers = Peers(f, reception)
    averaging = ModelAveraging(Every(1), aggregator=as_aggregator(rule, f), topology=peers)
    return Recipe("monna", averaging=averaging, optimizer=polyak(lr, momentum))


def learn(
    f: int, lr: float = 0.1, reception: Reception = "first", rule: str | Aggregator = "trimmed_mean"
) -> Recipe:
    """LEARN (El-Mhamdi et al., "Collaborative Learning in the Jungle", NeurIPS 2021): no server;
    gradients are exchanged and mixed before plain SGD steps, models after them. The published
    method also lets the batch grow by a sample a step, which is the user's here. ``rule``: of both.
    The rest as in :func:`monna`."""
    gradients = GradientExchange(as_aggregator(rule, f), topology=Peers(f, reception))
    models = ModelAveraging(
        Every(1), aggregator=as_aggregator(rule, f), topology=Peers(f, reception)
    )
    return Recipe("learn", gradients=gradients, averaging=models, optimizer=polyak(lr, 0.0))


def byz_ef21(
    f: int,
    aggregator: str | Aggregator = "nnm(then=trimmed_mean)",
    compressor: str | Compressor = "topk(density=0.01)",
    momentum: float | None = None,
    download: str | Compressor | None = None,
    start: Start = "whole",
    lr: float | None = None,
    per_tensor: bool = False,
) -> Recipe:
    """Byz-EF21 (Rammal et al., AISTATS 2024): each worker sends
    how its gradient has changed, as in :func:`ef21`; receivers keep what every worker's gradient is
    believed to be, and step with what a robust rule makes of these.

    ``f``: how many workers may say anything; a message that cannot be read is one of these.
    ``aggregator``: the rule, with the same f unless it says its own. ``momentum``, which the
    published method, of full local gradients, has not, and the rest as in :func:`ef21`. Where the
    combination is made, in every process or with ``download`` beside worker 0, there is a vector
    for each worker.
    """
    compression = Compression(
        needed(compressor, per_tensor),
        EF21(momentum, start),
        as_compressor(download),
        heard=Increments(),
    )
    exchange = GradientExchange(_rule(aggregator, f), compression)
    return Recipe("byz_ef21", gradients=exchange, optimizer=sgd(lr))


def rosdhb(
    f: int,
    aggregator: str | Aggregator = "nnm(then=trimmed_mean)",
    density: float = 0.1,
    momentum: float = 0.9,
    download: str | Compressor | None = None,
    lr: float | None = None,
) -> Recipe:
    """RoSDHB (Gupta, Honsell, Xu, Gupta, Neglia, AISTATS 2026): at each step all workers send the
    same random entries of their gradients, times 1/``density``; receivers keep a Polyak momentum of
    what each worker sends, and step with what a robust rule makes of these. With the same entries
    of all, compression makes no differences between workers that liars could hide in.

    ``f``, ``aggregator``: as in :func:`byz_ef21`. ``momentum``: beta of
    ``m <- beta m + (1 - beta) g``, m = 0 at first; the local optimizer should have none.
    ``download``: through a coordinator, as in :func:`compressed`; ``identity`` is the published
    server.
    ``lr``: with SGD at this rate, instead of the task's optimizer.
    """
    compression = Compression(
        RandomK(density, scaled=True), download=as_compressor(download), heard=Averages(momentum)
    )
    exchange = GradientExchange(_rule(aggregator, f), compression)
    return Recipe("rosdhb", gradients=exchange, optimizer=sgd(lr))


def _rule(aggregator: str | Aggregator, f: int) -> Aggregator:
    rule = as_aggregator(aggregator, f)
    if rule is None:
        raise UserError("this method needs an aggregator, such as trimmed_mean")
    return rule
