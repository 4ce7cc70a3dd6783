"""Methods whose messages are shorter than what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from tacit.aggregators import OuterOptimizer
from tacit.averaging import ModelAveraging
from tacit.compression import Compression
from tacit.compressors import BlockTopK, Compressor, PerTensor, SampledTopK, TopK, as_compressor
from tacit.errors import UserError, check_number
from tacit.gradients import GradientExchange
from tacit.memory import EF21, EF21W, ErrorFeedback, VelocityMemory
from tacit.memory.dgc import Scope
from tacit.memory.ef21 import Start
from tacit.recipes.parts import needed, rate, sgd, warmed_up
from tacit.recipes.recipe import Recipe
from tacit.schedule import Densities
from tacit.topologies import Sampled
from tacit.triggers import Every


def compressed(
    compressor: str | Compressor = "qsgd",
    feedback: bool = False,
    download: str | Compressor | None = None,
    per_tensor: bool = False,
    lr: float | None = None,
    warmup: int | str = 0,
) -> Recipe:
    """Synchronous training with compressed gradients: quantised SGD (QSGD, Alistarh et al. 2017),
    naive Top-k ("gradient dropping", Aji and Heafield 2017: ``topk(density=0.001)``), PowerSGD's
    factors, and so on. Any local optimizer.

    ``feedback``: what is not sent is added to the next gradient (EF14, Karimireddy et al. 2019).
    ``download``: through a coordinator, whose answer this one compresses, with feedback.
    ``per_tensor``: every parameter tensor by itself; biases and the like travel whole.
    ``lr``: with plain SGD at this rate, instead of the task's optimizer. ``warmup``: of the
    compressor's density, as in :func:`dgc`.
    """
    chosen = needed(compressor, per_tensor)
    compression = Compression(
        chosen,
        ErrorFeedback() if feedback else None,
        as_compressor(download),
        warmed_up(chosen, warmup),
    )
    exchange = GradientExchange(compression=compression)
    return Recipe("compressed", gradients=exchange, optimizer=sgd(lr))


def dgc(
    density: float = 0.001,
    momentum: float = 0.9,
    nesterov: bool = False,
    clip: float | None = None,
    warmup: int | str = 0,
    values: str = "fp32",
    dense: str = "fp32",
    masking: bool = True,
    weight_decay: float = 0.0,
    sampled: bool = False,
    per_tensor: bool = True,
    clip_power: float = -0.5,
    clip_scope: Scope = "model",
    lr: float | None = None,
    download: str | Compressor | None = None,
) -> Recipe:
    """Deep Gradient Compression (Lin, Han, Mao, Wang, Dally, ICLR 2018): each worker sends the
    largest entries of its accumulated velocity. The local optimizer is SGD without momentum.

    ``density``: the part of the entries that is sent, of each parameter tensor (of the whole vector
    without ``per_tensor``); tensors of one dimension go whole, in ``dense``. ``values``: the code
    of the values; what it rounds off stays with the worker. ``warmup``: a number of epochs with the
    published densities, or a density for each (see ``Densities``). ``sampled``: the authors'
    threshold from a sample; exact Top-k otherwise. ``momentum``, ``nesterov``, ``masking``,
    ``clip``, ``weight_decay``: see ``VelocityMemory``. ``lr``: with SGD at this rate, instead of
    the task's optimizer. ``download``: through a coordinator, as in :func:`compressed`.
    """
    chosen = (SampledTopK if sampled else TopK)(density=density, values=values)
    memory = VelocityMemory(
        momentum, nesterov, masking, clip, clip_power, clip_scope, weight_decay, per_tensor
    )
    compression = Compression(
        PerTensor(chosen, dense) if per_tensor else chosen,
        memory,
        as_compressor(download),
        Densities.parse(density, warmup),
    )
    return Recipe("dgc", gradients=GradientExchange(compression=compression), optimizer=sgd(lr))


def ef21(
    compressor: str | Compressor = "topk(density=0.01)",
    momentum: float | None = None,
    heavy_ball: float = 0.0,
    download: str | Compressor | None = None,
    fraction: float = 1.0,
    start: Start = "whole",
    lr: float | None = None,
    per_tensor: bool = False,
) -> Recipe:
    """EF21 (Richtárik, Sokolov, Fatkhullin 2021): each worker sends how its gradient has changed.

    ``momentum``: EF21-SGDM's weight of a new gradient (Fatkhullin et al. 2023); None: EF21-SGD.
    ``download``: EF21-BC, both directions. ``fraction``: EF21-PP, a sampled part of the workers
    sends at a step. ``heavy_ball``: EF21-HB, the momentum of SGD (with ``lr``). ``start``: the
    first gradients go ``whole``, or EF21 starts from ``zero``. ``lr``: with SGD at this rate,
    instead of the task's optimizer; see ``tacit.memory.theory`` for the rates that are proven.
    ``per_tensor``: every parameter tensor by itself, as in :func:`compressed`.
    """
    memory, chosen = EF21(momentum, start), needed(compressor, per_tensor)
    return _ef21("ef21", memory, chosen, heavy_ball, download, fraction, lr)


def ef21_w(
    compressor: str | Compressor = "topk(density=0.01)",
    smoothness: str | Sequence[float] | None = None,
    estimate: int = 10,
    momentum: float | None = None,
    heavy_ball: float = 0.0,
    download: str | Compressor | None = None,
    fraction: float = 1.0,
    start: Start = "whole",
    lr: float | None = None,
    per_tensor: bool = False,
) -> Recipe:
    """EF21-W (Richtárik, Gasanov, Burlachenko 2024): EF21 whose workers weigh as much as their
    losses are curved. ``smoothness``: the constants L_i, one a worker (``"1/1/4"`` as text);
    without, they are measured in the first ``estimate`` steps (see ``EF21W``). The rest as in
    :func:`ef21`."""
    memory = EF21W(_numbers(smoothness), estimate, momentum, start)
    chosen = needed(compressor, per_tensor)
    return _ef21("ef21_w", memory, chosen, heavy_ball, download, fraction, lr)


def sparseloco(
    period: int = 30,
    k: int = 64,
    block: int = 4096,
    values: str = "int2",
    decay: float = 0.95,
    server_lr: float = 0.4,
) -> Recipe:
    """SparseLoCo (Sarfi et al. 2025): local training for ``period`` steps, then the ``k`` largest
    of each ``block`` entries of what the model has changed, in two bits, with error feedback that
    fades, and a plain outer step. The task's optimizer (published: AdamW) is the inner one. Our
    two-bit code has evenly spaced levels, theirs one with a table."""
    averaging = ModelAveraging(
        Every(period),
        outer=OuterOptimizer(partial(torch.optim.SGD, lr=rate("server_lr", server_lr))),
        compression=Compression(BlockTopK(k, block, values), ErrorFeedback(decay)),
    )
    return Recipe("sparseloco", averaging=averaging)


def _ef21(
    name: str,
    memory: EF21,
    compressor: Compressor,
    heavy_ball: float,
    download: str | Compressor | None,
    fraction: float,
    lr: float | None,
) -> Recipe:
    if check_number("heavy_ball", heavy_ball, "[0, 1)") and lr is None:
        raise UserError("heavy_ball is the momentum of SGD; give its lr too")
    part = check_number("the sampled fraction", fraction, "(0, 1]")
    exchange = GradientExchange(
        compression=Compression(compressor, memory, as_compressor(download)),
        topology=Sampled(part) if part != 1 else None,
    )
    return Recipe(name, gradients=exchange, optimizer=sgd(lr, heavy_ball))


def _numbers(text: str | float | Sequence[float] | None) -> Sequence[float] | None:
    """From text, as on the command line, where that of one worker is a number."""
    if isinstance(text, int | float):
        return [text]
    if not isinstance(text, str):
        return text
    try:
        return [float(part) for part in text.split("/")]
    except ValueError:
        raise UserError(f"smoothness {text!r} is not understood; write numbers, 1/1/4") from None
