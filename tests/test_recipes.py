"""Every recipe against the same method written out in plain PyTorch, for a few steps."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tacit
from helpers import by_hand
from helpers.by_hand import above, blocks, mixed, top, trimmed
from helpers.tasks import mlp_task
from tacit.errors import UserError
from tacit.recipes import RECIPES, Recipe
from tacit.rng import numpy_stream, torch_stream
from tacit.sketches.hashing import BlockHash

K, STEPS, SEED = 3, 8, 2
ADAMW = torch.optim.AdamW


class Plain:
    """K separate models, optimizers and data, and nothing of this library but its batches."""

    count, steps = K, STEPS

    def __init__(self, simulation: tacit.Simulation, optimizer: Callable) -> None:
        self.task = simulation.task
        self.batches = simulation.training.feed.shards
        self.samples = [len(shard.indices) for shard in self.batches]
        start = simulation.replicas.parameters[0].clone()
        self.models = [self.task.model() for _ in range(K)]
        for model in self.models:
            nn.utils.vector_to_parameters(start.clone(), model.parameters())
        self.optimizers = [optimizer(model.parameters()) for model in self.models]
        self.draws = [0] * K

    def backward(self, k: int) -> None:
        x, y = self.task.train.batch(self.batches[k].at(self.draws[k]))
        self.draws[k] += 1
        self.optimizers[k].zero_grad()
        self.task.loss(self.models[k](x), y).backward()

    def train(self, workers=range(K)) -> None:
        for k in workers:
            self.backward(k)
            self.optimizers[k].step()

    def gradient(self, k: int) -> Tensor:
        self.backward(k)
        return torch.cat([p.grad.flatten() for p in self.models[k].parameters()]).double()

    def apply(self, direction: Tensor) -> None:
        """One step of all optimizers in this direction."""
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            parameters = list(model.parameters())
            pieces = direction.float().split([p.numel() for p in parameters])
            for p, piece in zip(parameters, pieces, strict=True):
                p.grad = piece.view_as(p).clone()
            optimizer.step()

    def get(self, k: int) -> Tensor:
        return nn.utils.parameters_to_vector(self.models[k].parameters()).detach().double()

    def put(self, vector: Tensor) -> None:
        for model in self.models:
            nn.utils.vector_to_parameters(vector.float(), model.parameters())


# -- the methods, as their papers write them. Each takes the K workers and gives the sync steps.


def synchronous(plain: Plain) -> list[int]:
    for _ in range(STEPS):
        for k in range(K):
            plain.backward(k)
        for together in zip(*(model.parameters() for model in plain.models), strict=True):
            mean = sum(p.grad for p in together) / K
            for p in together:
                p.grad = mean.clone()
        for optimizer in plain.optimizers:
            optimizer.step()
    return list(range(1, STEPS + 1))


def local_sgd(plain: Plain, period: int) -> list[int]:
    synchronised = []
    for step in range(1, STEPS + 1):
        plain.train()
        if step % period == 0:
            plain.put(sum(plain.get(k) for k in range(K)) / K)
            synchronised.append(step)
    return synchronised


def fda(plain: Plain, theta: float, estimate: Callable[[list[Tensor], Tensor], float]) -> list[int]:
    """Algorithm 1; ``estimate`` of the drifts and the last global movement."""
    reference, movement, synchronised = plain.get(0), torch.zeros(0), []
    for step in range(1, STEPS + 1):
        plain.train()
        drifts = [plain.get(k) - reference for k in range(K)]
        if estimate(drifts, movement) > theta:
            mean = sum(plain.get(k) for k in range(K)) / K
            reference, movement = mean, mean - reference
            plain.put(mean)
            synchronised.append(step)
    return synchronised


def mean_square(drifts: list[Tensor]) -> float:
    return sum(float(u @ u) for u in drifts) / K


def exact(drifts: list[Tensor], movement: Tensor) -> float:
    mean = sum(drifts) / K
    return sum(float((u - mean) @ (u - mean)) for u in drifts) / K


def naive(drifts: list[Tensor], movement: Tensor) -> float:
    return mean_square(drifts)


def linear(drifts: list[Tensor], movement: Tensor) -> float:
    if not len(movement):
        movement = torch.randn(len(drifts[0]), generator=torch_stream(SEED, "xi")).double()
    xi = movement / movement.norm()
    return mean_square(drifts) - (sum(float(xi @ u) for u in drifts) / K) ** 2


def sketch(drifts: list[Tensor], movement: Tensor) -> float:
    rows, columns = 3, 16
    d = len(drifts[0])
    hashing = BlockHash(d, rows, columns, SEED)
    buckets, signs = hashing.buckets(np.arange(d)), hashing.signs(np.arange(d))
    mean, energies = (sum(drifts) / K).numpy(), []
    for row in range(rows):
        table = np.zeros(columns)
        for i in range(d):
            table[buckets[row, i]] += signs[row, i] * mean[i]
        energies.append(float(table @ table))
    return mean_square(drifts) - sorted(energies)[1] / (1 + 1 / math.sqrt(columns))


def fedopt(plain: Plain, period: int, fraction: float, server: Callable) -> list[int]:
    """Reddi et al., Algorithm 2; ``server`` maps the global model and the pseudo-gradient."""
    model, synchronised, number = plain.get(0), [], 0
    for step in range(1, STEPS + 1):
        workers = sampled(number, fraction)
        plain.train(workers)
        if step % period == 0:
            total = sum(plain.samples[k] for k in workers)
            mean = sum(plain.samples[k] / total * plain.get(k) for k in workers)
            model = server(model, model - mean)
            plain.put(model)
            synchronised.append(step)
            number += 1
    return synchronised


def dynamic(plain: Plain, delta: float, every: int) -> list[int]:
    """Kamp et al., Algorithm 1, one worker at random at a time, with the violation counter."""
    reference, violations, synchronised = plain.get(0), 0, []
    for step in range(1, STEPS + 1):
        plain.train()
        if step % every:
            continue
        models = [plain.get(k) for k in range(K)]
        members = [k for k in range(K) if float((models[k] - reference).square().sum()) > delta]
        if not members:
            continue
        violations += len(members)
        if violations >= K:
            members = list(range(K))
        draw = numpy_stream(SEED, "balancing", step)
        while True:
            mean = sum(models[k] for k in members) / len(members)
            if len(members) == K or float((mean - reference).square().sum()) <= delta:
                break
            members.append(int(draw.choice([k for k in range(K) if k not in members], 1)[0]))
        for k in members:
            nn.utils.vector_to_parameters(mean.float(), plain.models[k].parameters())
        if len(members) == K:
            reference, violations = mean, 0
            synchronised.append(step)
    return synchronised


def drawn(plain: Plain, period: int, count: int) -> list[int]:
    """FedAvg among workers that never rest (Kamp et al., sigma_{b,C})."""
    for step in range(period, STEPS + 1, period):
        for _ in range(period):
            plain.train()
        members = numpy_stream(SEED, "drawn", step).choice(K, count, replace=False).tolist()
        mean = sum(plain.get(k) for k in members) / count
        for k in members:
            nn.utils.vector_to_parameters(mean.float(), plain.models[k].parameters())
    return []


def alone(plain: Plain) -> list[int]:
    for _ in range(STEPS):
        plain.train()
    return []


def sampled(number: int, fraction: float) -> list[int]:
    if fraction == 1:
        return list(range(K))
    draw = numpy_stream(SEED, "participants", number)
    return sorted(draw.choice(K, math.ceil(fraction * K), replace=False).tolist())


class Momentum:
    def __init__(self, lr: float, momentum: float, nesterov: bool = False) -> None:
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.velocity: float | Tensor = 0.0

    def __call__(self, model: Tensor, gradient: Tensor) -> Tensor:
        self.velocity = self.momentum * self.velocity + gradient
        if self.nesterov:
            return model - self.lr * (gradient + self.momentum * self.velocity)
        return model - self.lr * self.velocity


class Adam:
    def __init__(self, lr: float, eps: float) -> None:
        self.lr, self.eps, self.m, self.v, self.t = lr, eps, 0.0, 0.0, 0

    def __call__(self, model: Tensor, gradient: Tensor) -> Tensor:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return model - self.lr * m / (v.sqrt() + self.eps)


class Adagrad:
    def __init__(self, lr: float, eps: float) -> None:
        self.lr, self.eps, self.v = lr, eps, 0.0

    def __call__(self, model: Tensor, gradient: Tensor) -> Tensor:
        self.v = self.v + gradient**2
        return model - self.lr * gradient / (self.v.sqrt() + self.eps)


def replace(model: Tensor, gradient: Tensor) -> Tensor:
    return model - gradient


def some_workers(step: int) -> list[int]:
    return sampled(step, 0.5)


def some_entries(step: int) -> Tensor:
    """The fifth of the 53 that all workers send."""
    draw = numpy_stream(SEED, "compressor", "gradient", "step", step, "positions")
    mask = torch.zeros(53).double()
    mask[draw.choice(53, 11, replace=False, shuffle=False)] = 1
    return mask


def all_of_them(step: int, what: str, worker: int) -> list[int]:
    return list(range(K))


def one_other(step: int, what: str, worker: int) -> list[int]:
    """Itself and one of the two others, at random."""
    others = [k for k in range(K) if k != worker]
    draw = numpy_stream(SEED, "peers", what, worker, step)
    return sorted([worker, int(draw.choice(others, 1, replace=False)[0])])


def middle(vectors: list[Tensor], own: int) -> Tensor:
    """The median of each coordinate; of two vectors the mean."""
    return torch.quantile(torch.stack(vectors), 0.5, dim=0)


def every(period: int) -> Callable[[int, list[Tensor], Tensor], bool]:
    return lambda step, drifts, movement: step % period == 0


def further_than(theta: float) -> Callable[[int, list[Tensor], Tensor], bool]:
    return lambda step, drifts, movement: linear(drifts, movement) > theta


def warming(first: float, steps: int, last: float) -> Callable[[Tensor], Tensor]:
    """Top-k of K workers, of another density in the first steps."""
    calls = itertools.count()
    return lambda vector: top(first if next(calls) < K * steps else last)(vector)


#: As below, of methods with compressed messages.
COMPRESSED: dict[str, tuple[Callable[[], Recipe], Callable[[Plain], list[int]], float | None]] = {
    "compressed": (
        lambda: tacit.compressed("topk(density=0.2)"),
        lambda plain: by_hand.compressed(plain, top(0.2)),
        None,
    ),
    "compressed identity": (
        lambda: tacit.compressed("identity", lr=0.2),
        synchronous,
        0.2,
    ),
    "compressed feedback": (
        lambda: tacit.compressed("topk(density=0.1)", feedback=True),
        lambda plain: by_hand.compressed(plain, top(0.1), feedback=True),
        None,
    ),
    "compressed feedback tensors": (
        lambda: tacit.compressed("topk(density=0.2)", feedback=True, per_tensor=True),
        lambda plain: by_hand.compressed(plain, top(0.2), feedback=True, per_tensor=True),
        None,
    ),
    "compressed feedback both ways": (
        lambda: tacit.compressed("topk(density=0.3)", True, "topk(density=0.4)", lr=0.2),
        lambda plain: by_hand.compressed(plain, top(0.3), True, top(0.4)),
        0.2,
    ),
    "compressed warm-up": (
        lambda: tacit.compressed("topk(density=0.1)", warmup=1),
        lambda plain: by_hand.compressed(plain, warming(0.25, 6, 0.1)),
        None,
    ),
    "compressed warm-up tensors": (
        lambda: tacit.compressed("topk(density=0.1)", True, per_tensor=True, warmup="0.4"),
        lambda plain: by_hand.compressed(
            plain, by_hand.each_tensor(plain, warming(0.4, 6 * 2, 0.1)), True
        ),
        None,
    ),
    "dgc": (
        lambda: tacit.dgc(density=0.1, lr=0.1),
        lambda plain: by_hand.dgc(plain, lambda step: 0.1),
        0.1,
    ),
    "dgc nesterov": (
        lambda: tacit.dgc(density=0.1, momentum=0.8, nesterov=True, weight_decay=0.05, lr=0.1),
        lambda plain: by_hand.dgc(plain, lambda step: 0.1, 0.8, nesterov=True, decay=0.05),
        0.1,
    ),
    "dgc decay": (
        lambda: tacit.dgc(density=0.2, weight_decay=0.1, masking=False, lr=0.1),
        lambda plain: by_hand.dgc(plain, lambda step: 0.2, masking=False, decay=0.1),
        0.1,
    ),
    # an epoch is 5.08 steps
    "dgc warm-up": (
        lambda: tacit.dgc(density=0.1, warmup="0.3", lr=0.1),
        lambda plain: by_hand.dgc(plain, lambda step: 0.3 if step <= 6 else 0.1),
        0.1,
    ),
    "dgc dense warm-up": (
        lambda: tacit.dgc(density=0.1, warmup="1.0", lr=0.1),
        lambda plain: by_hand.dgc(plain, lambda step: 1 if step <= 6 else 0.1),
        0.1,
    ),
    "dgc clip": (
        lambda: tacit.dgc(density=0.1, clip=0.5, lr=0.2),
        lambda plain: by_hand.dgc(plain, lambda step: 0.1, clip=0.5 / math.sqrt(K)),
        0.2,
    ),
    "dgc vector": (
        lambda: tacit.dgc(density=0.1, per_tensor=False, lr=0.1),
        lambda plain: by_hand.dgc(plain, lambda step: 0.1, per_tensor=False),
        0.1,
    ),
    "dgc through a coordinator": (
        lambda: tacit.dgc(density=0.1, lr=0.1, download="identity"),
        lambda plain: by_hand.dgc(plain, lambda step: 0.1),
        0.1,
    ),
    "ef21 tensors": (
        lambda: tacit.ef21("topk(density=0.1)", per_tensor=True),
        lambda plain: by_hand.ef21(plain, by_hand.each_tensor(plain, top(0.1))),
        None,
    ),
    "ef21_w tensors": (
        lambda: tacit.ef21_w("threshold(t=0.12)", "1/2/5", lr=0.2, per_tensor=True),
        lambda plain: by_hand.ef21(
            plain, by_hand.each_tensor(plain, above(0.12)), weights=[1 / 8, 2 / 8, 5 / 8]
        ),
        0.2,
    ),
    "ef21": (
        lambda: tacit.ef21("topk(density=0.1)"),
        lambda plain: by_hand.ef21(plain, top(0.1)),
        None,
    ),
    "ef21 zero": (
        lambda: tacit.ef21("topk(density=0.2)", start="zero", lr=0.2),
        lambda plain: by_hand.ef21(plain, top(0.2), zero=True),
        0.2,
    ),
    "ef21 momentum": (
        lambda: tacit.ef21("topk(density=0.1)", momentum=0.3, lr=0.2),
        lambda plain: by_hand.ef21(plain, top(0.1), momentum=0.3),
        0.2,
    ),
    "ef21 heavy ball": (
        lambda: tacit.ef21("topk(density=0.1)", heavy_ball=0.5, lr=0.1),
        lambda plain: by_hand.ef21(plain, top(0.1), heavy_ball=0.5),
        0.1,
    ),
    "ef21 both ways": (
        lambda: tacit.ef21("topk(density=0.3)", download="topk(density=0.2)", lr=0.2),
        lambda plain: by_hand.ef21(plain, top(0.3), back=top(0.2)),
        0.2,
    ),
    "ef21 part": (
        lambda: tacit.ef21("topk(density=0.1)", fraction=0.5, lr=0.2),
        lambda plain: by_hand.ef21(plain, top(0.1), present=some_workers),
        0.2,
    ),
    "ef21 part both ways": (
        lambda: tacit.ef21(
            "topk(density=0.1)", 0.5, download="topk(density=0.2)", fraction=0.5, lr=0.2
        ),
        lambda plain: by_hand.ef21(plain, top(0.1), 0.5, back=top(0.2), present=some_workers),
        0.2,
    ),
    # with Top-k it would be EF21, whatever the weights are
    "ef21_w": (
        lambda: tacit.ef21_w("threshold(t=0.12)", "1/2/5", lr=0.2),
        lambda plain: by_hand.ef21(plain, above(0.12), weights=[1 / 8, 2 / 8, 5 / 8]),
        0.2,
    ),
    "ef21_w estimated": (
        lambda: tacit.ef21_w("threshold(t=0.12)", estimate=4, lr=0.2),
        lambda plain: by_hand.ef21(plain, above(0.12), estimate=4),
        0.2,
    ),
    "ef21_w part": (
        lambda: tacit.ef21_w("threshold(t=0.12)", "1/2/5", momentum=0.6, fraction=0.5, lr=0.2),
        lambda plain: by_hand.ef21(
            plain, above(0.12), 0.6, present=some_workers, weights=[1 / 8, 2 / 8, 5 / 8]
        ),
        0.2,
    ),
    "byz_ef21": (
        lambda: tacit.byz_ef21(1, compressor="topk(density=0.1)"),
        lambda plain: by_hand.byz_ef21(plain, top(0.1), mixed(1, trimmed(1))),
        None,
    ),
    "byz_ef21 zero": (
        lambda: tacit.byz_ef21(1, "trimmed_mean", "topk(density=0.2)", start="zero", lr=0.2),
        lambda plain: by_hand.byz_ef21(plain, top(0.2), trimmed(1), zero=True),
        0.2,
    ),
    "byz_ef21 momentum": (
        lambda: tacit.byz_ef21(1, "median", "topk(density=0.2)", momentum=0.3, lr=0.2),
        lambda plain: by_hand.byz_ef21(plain, top(0.2), trimmed(1), momentum=0.3),
        0.2,
    ),
    "byz_ef21 both ways": (
        lambda: tacit.byz_ef21(
            1, "trimmed_mean", "topk(density=0.3)", download="topk(density=0.2)", lr=0.2
        ),
        lambda plain: by_hand.byz_ef21(plain, top(0.3), trimmed(1), back=top(0.2)),
        0.2,
    ),
    "byz_ef21 tensors": (
        lambda: tacit.byz_ef21(1, "trimmed_mean", "topk(density=0.1)", per_tensor=True),
        lambda plain: by_hand.byz_ef21(plain, by_hand.each_tensor(plain, top(0.1)), trimmed(1)),
        None,
    ),
    "rosdhb": (
        lambda: tacit.rosdhb(1, density=0.2, lr=0.5),
        lambda plain: by_hand.rosdhb(plain, some_entries, mixed(1, trimmed(1)), 0.9),
        0.5,
    ),
    "rosdhb both ways": (
        lambda: tacit.rosdhb(1, "trimmed_mean", 0.2, 0.8, download="topk(density=0.3)", lr=0.5),
        lambda plain: by_hand.rosdhb(plain, some_entries, trimmed(1), 0.8, back=top(0.3)),
        0.5,
    ),
    "local_sgd compressed": (
        lambda: tacit.local_sgd(2, compressor="topk(density=0.1)"),
        lambda plain: by_hand.averaged(plain, every(2), top(0.1)),
        None,
    ),
    "local_sgd compressed both ways": (
        lambda: tacit.local_sgd(2, compressor="topk(density=0.3)", download="topk(density=0.2)"),
        lambda plain: by_hand.averaged(plain, every(2), top(0.3), back=top(0.2)),
        None,
    ),
    "periodic compressed both ways": (
        lambda: tacit.periodic(2, "topk(density=0.3)", "topk(density=0.2)"),
        lambda plain: by_hand.averaged(plain, every(2), top(0.3), back=top(0.2)),
        None,
    ),
    "diloco compressed both ways": (
        lambda: tacit.diloco(
            2, 0.7, 0.0, False, compressor="topk(density=0.3)", download="topk(density=0.2)"
        ),
        lambda plain: by_hand.averaged(plain, every(2), top(0.3), back=top(0.2), server_lr=0.7),
        None,
    ),
    "fda compressed": (
        lambda: tacit.fda(0.002, compressor="topk(density=0.2)"),
        lambda plain: by_hand.averaged(plain, further_than(0.002), top(0.2)),
        None,
    ),
    "fda compressed both ways": (
        lambda: tacit.fda(0.002, compressor="topk(density=0.2)", download="topk(density=0.4)"),
        lambda plain: by_hand.averaged(plain, further_than(0.002), top(0.2), back=top(0.4)),
        None,
    ),
    "sparseloco": (
        lambda: tacit.sparseloco(2, k=4, block=16, values="fp32", decay=0.9, server_lr=0.4),
        lambda plain: by_hand.averaged(plain, every(2), blocks(4, 16), 0.9, server_lr=0.4),
        None,
    ),
}


#: name: (recipe, the method by hand, the rate of local SGD where it is part of the method)
METHODS: dict[str, tuple[Callable[[], Recipe], Callable[[Plain], list[int]], float | None]] = {
    "synchronous": (lambda: tacit.synchronous(), synchronous, None),
    "synchronous models": (
        lambda: tacit.synchronous("models"),
        lambda plain: local_sgd(plain, 1),
        None,
    ),
    "local_sgd": (lambda: tacit.local_sgd(3), lambda plain: local_sgd(plain, 3), None),
    "fda": (lambda: tacit.fda(0.002), lambda plain: fda(plain, 0.002, linear), None),
    "fda exact": (
        lambda: tacit.fda(0.002, "exact"),
        lambda plain: fda(plain, 0.002, exact),
        None,
    ),
    "fda naive": (
        lambda: tacit.fda(0.005, "naive"),
        lambda plain: fda(plain, 0.005, naive),
        None,
    ),
    "fda sketch": (
        lambda: tacit.fda(0.002, "sketch", rows=3, columns=16),
        lambda plain: fda(plain, 0.002, sketch),
        None,
    ),
    "dynamic_averaging": (
        lambda: tacit.dynamic_averaging(0.012, every=2),
        lambda plain: dynamic(plain, 0.012, 2),
        None,
    ),
    "dynamic_averaging often": (
        lambda: tacit.dynamic_averaging(0.005, every=1),
        lambda plain: dynamic(plain, 0.005, 1),
        None,
    ),
    "continuous": (lambda: tacit.continuous(), lambda plain: local_sgd(plain, 1), None),
    "periodic": (lambda: tacit.periodic(3), lambda plain: local_sgd(plain, 3), None),
    "no_sync": (lambda: tacit.no_sync(), alone, None),
    "serial": (lambda: tacit.serial(), synchronous, None),
    "fedavg period": (
        lambda: tacit.fedavg(fraction=0.5, period=2),
        lambda plain: drawn(plain, 2, 2),
        None,
    ),
    # an epoch is 61 / (3 * 4) = 5.08 steps
    "fedavg": (
        lambda: tacit.fedavg(fraction=0.5, epochs=0.4, lr=0.2),
        lambda plain: fedopt(plain, 2, 0.5, replace),
        0.2,
    ),
    "fedavg everyone": (
        lambda: tacit.fedavg(epochs=0.6, lr=0.2),
        lambda plain: fedopt(plain, 3, 1, replace),
        0.2,
    ),
    "fedavgm": (
        lambda: tacit.fedavgm(epochs=0.4, lr=0.2, server_lr=0.5, momentum=0.8),
        lambda plain: fedopt(plain, 2, 1, Momentum(0.5, 0.8)),
        0.2,
    ),
    "fedadam": (
        lambda: tacit.fedadam(fraction=0.3, epochs=0.4, lr=0.2, server_lr=0.05, eps=1e-3),
        lambda plain: fedopt(plain, 2, 0.3, Adam(0.05, 1e-3)),
        0.2,
    ),
    "fedadagrad": (
        lambda: tacit.fedadagrad(epochs=0.4, lr=0.2, server_lr=0.1, eps=1e-3),
        lambda plain: fedopt(plain, 2, 1, Adagrad(0.1, 1e-3)),
        0.2,
    ),
    "monna": (
        lambda: tacit.monna(1, lr=2.0, reception="all"),
        lambda plain: by_hand.monna(plain, 2.0, 0.99, all_of_them, by_hand.nearest(1)),
        2.0,
    ),
    # without liars the worst case is any; no robust rule makes anything of two vectors
    "monna worst": (
        lambda: tacit.monna(1, 0.5, 0.2, "worst", "mean"),
        lambda plain: by_hand.monna(plain, 0.2, 0.5, one_other, middle),
        0.2,
    ),
    "monna without momentum": (
        lambda: tacit.monna(1, 0.0, 0.2, "all", "trimmed_mean"),
        lambda plain: by_hand.monna(plain, 0.2, 0.0, all_of_them, middle),
        0.2,
    ),
    "learn": (
        lambda: tacit.learn(1, lr=0.2, reception="all"),
        lambda plain: by_hand.learn(plain, 0.2, all_of_them, middle),
        0.2,
    ),
    "learn first": (
        lambda: tacit.learn(1, 0.2, "first", "mean"),
        lambda plain: by_hand.learn(plain, 0.2, one_other, middle),
        0.2,
    ),
    **COMPRESSED,
}


def both(
    recipe: Recipe, method: Callable[[Plain], list[int]], optimizer: Callable
) -> tuple[tacit.Simulation, list[int], Plain, list[int]]:
    simulation = tacit.Simulation(
        mlp_task(optimizer=optimizer),
        recipe,
        tacit.LocalFleet(K),
        seed=SEED,
        partition="dirichlet:1",  # unequal numbers of samples
    )
    plain = Plain(simulation, optimizer)
    fired = [step for step in range(1, STEPS + 1) if simulation.step()]
    return simulation, fired, plain, method(plain)


@pytest.mark.parametrize("name", METHODS)
def test_against_plain_pytorch(name):
    recipe, method, lr = METHODS[name]
    local = lr or 0.05

    def optimizer(parameters):
        return torch.optim.SGD(parameters, lr=local, momentum=0.0 if lr else 0.5)

    simulation, fired, plain, expected = both(recipe(), method, optimizer)
    assert fired == ([] if name == "serial" else expected)  # it stands for no exchange
    if name.startswith("fda"):
        assert 0 < len(fired) < STEPS
    workers = torch.stack([plain.get(k) for k in range(K)]).float()
    torch.testing.assert_close(simulation.replicas.parameters, workers, rtol=1e-4, atol=1e-5)
    assert len(set(plain.samples)) == K
    # a gradient exchange keeps the models synchronised at every step
    assert simulation.synchronisations == len(fired)
    exchange = simulation.recipe.gradients or simulation.recipe.averaging
    if name in COMPRESSED:  # and not sent dense, which would be another method
        assert exchange.compression.given_up == 0


def test_diloco():
    """AdamW inside, Nesterov outside (Douillard et al. 2023, Algorithm 1)."""

    def optimizer(parameters):
        return ADAMW(parameters, lr=0.01, weight_decay=0.1)

    def method(plain: Plain) -> list[int]:
        plain.samples = [1] * K  # a plain mean
        return fedopt(plain, 3, 1, Momentum(0.7, 0.9, nesterov=True))

    simulation, fired, plain, expected = both(tacit.diloco(period=3), method, optimizer)
    assert fired == expected == [3, 6]
    workers = torch.stack([plain.get(k) for k in range(K)]).float()
    torch.testing.assert_close(simulation.replicas.parameters, workers, rtol=1e-4, atol=1e-5)


def test_every_recipe_is_compared():
    assert set(RECIPES) == {name.split(" ")[0] for name in METHODS} | {"diloco"}


def test_a_recipe_brings_its_local_optimizer():
    simulation = tacit.Simulation(
        mlp_task(optimizer=ADAMW), tacit.fedavg(lr=0.25), tacit.LocalFleet(2), optimizer=ADAMW
    )
    (optimizer,) = simulation.optimizer.optimizers
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_published_defaults():
    """Defaults of the FDA paper's baselines, and of DiLoCo."""
    averaging = tacit.fedadam().averaging
    averaging.outer.start(torch.zeros(3))
    (group,) = averaging.outer._optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.999), 1e-7)
    averaging = tacit.fedavgm().averaging
    averaging.outer.start(torch.zeros(3))
    (group,) = averaging.outer._optimizer.param_groups
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.316, 0.9, False)
    averaging = tacit.diloco().averaging
    averaging.outer.start(torch.zeros(3))
    (group,) = averaging.outer._optimizer.param_groups
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.7, 0.9, True)


def test_published_defaults_of_compressed_methods():
    memory = tacit.dgc().gradients.compression.memory
    assert (memory.momentum, memory.nesterov, memory.masking) == (0.9, False, True)
    assert (memory.clip, memory.clip_power) == (None, -0.5)
    assert tacit.dgc().gradients.compression.densities.density == 0.001
    memory = tacit.ef21().gradients.compression.memory
    assert (memory.momentum, memory.whole, memory.begins) == (None, False, "whole")
    averaging = tacit.sparseloco().averaging
    selects = averaging.compression.compressor
    assert (selects.k, selects.block, averaging.compression.memory.decay) == (64, 4096, 0.95)
    assert averaging.trigger.period == 30


def test_a_recipe_is_new_each_time():
    assert tacit.fda(1.0).averaging is not tacit.fda(1.0).averaging


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tacit.fda(1.0, "liner"), "unknown estimator 'liner'; did you mean 'linear'"),
        (lambda: tacit.synchronous("weights"), "unknown exchange 'weights'"),
        (lambda: tacit.local_sgd(0), "at least 1 step"),
        (lambda: tacit.fda(-1.0), "theta"),
        (lambda: tacit.fedavg(fraction=0.0), "sampled fraction"),
        (lambda: tacit.fedavg(epochs=0), "local epochs"),
        (lambda: tacit.compressed("top"), "unknown compressor 'top'; did you mean 'topk'"),
        (lambda: tacit.ef21(heavy_ball=0.9), "heavy_ball is the momentum of SGD; give its lr"),
        (lambda: tacit.ef21(fraction=0.0), "sampled fraction"),
        (lambda: tacit.ef21(fraction="x"), "sampled fraction must be in .* not 'x'"),
        (lambda: tacit.ef21_w(smoothness="1/x"), "smoothness '1/x' is not understood"),
        (lambda: tacit.ef21_w(smoothness=0), "above 0 and finite"),
        (lambda: tacit.ef21(None), "needs a compressor; identity sends everything"),
        (lambda: tacit.ef21_w(None), "needs a compressor"),
        (lambda: tacit.compressed(None), "needs a compressor"),
        (lambda: tacit.byz_ef21(1, None), "needs an aggregator, such as trimmed_mean"),
        (lambda: tacit.byz_ef21(-1), "f is a number of senders, 0 or more, not -1"),
        (lambda: tacit.byz_ef21(1, compressor=None), "needs a compressor"),
        (lambda: tacit.rosdhb(1, "trimed_mean"), "did you mean 'trimmed_mean'"),
        (lambda: tacit.rosdhb(1, momentum=1.0), r"momentum must be in \[0, 1\), not 1.0"),
        (lambda: tacit.rosdhb(1, density=0), "density"),
        (lambda: tacit.monna(-1), "f is a number of workers, 0 or more, not -1"),
        (lambda: tacit.monna(True), "f is a number of workers, 0 or more, not True"),
        (lambda: tacit.monna(1, 1.0), r"momentum must be in \[0, 1\), not 1.0"),
        (lambda: tacit.monna(1, reception="late"), "first, worst, all, not 'late'"),
        (lambda: tacit.monna(1, rule="nnb"), "unknown aggregator 'nnb'"),
        (lambda: tacit.learn(1, lr=0), "lr must be above 0 and finite, not 0"),
        (lambda: tacit.ef21(3), "a compressor is written as"),
        (lambda: tacit.local_sgd(2, compressor=3), "a compressor is written as"),
        (lambda: tacit.ef21(download=3), "a compressor is written as"),
        (lambda: tacit.dgc(download=3), "a compressor is written as"),
        (lambda: tacit.ef21(heavy_ball=1.0, lr=0.1), r"heavy_ball must be in \[0, 1\), not 1.0"),
        (lambda: tacit.ef21(heavy_ball="x", lr=0.1), "heavy_ball must be in"),
        (lambda: tacit.ef21(heavy_ball=True, lr=0.1), "heavy_ball must be in"),
        (lambda: tacit.ef21_w(heavy_ball=-1, lr=0.1), "heavy_ball must be in"),
        (lambda: tacit.compressed("qsgd", warmup=2), "take a compressor that has one"),
        (lambda: tacit.compressed("topk(k=3)", warmup="0.5"), "take a compressor that has one"),
        (lambda: tacit.compressed("qsgd", warmup=-1), "0 or more epochs"),
        (lambda: tacit.periodic(2, download="qsgd"), "download needs a compressor too"),
        (lambda: tacit.diloco(2, download="qsgd"), "download needs a compressor too"),
        (lambda: tacit.diloco(2, overlap=1, compressor="qsgd"), "do not go with overlap"),
        (lambda: tacit.diloco(momentum=0.0), "nesterov needs a momentum"),
        (lambda: tacit.dgc(density="x"), "density must be in .* not 'x'"),
        (lambda: tacit.dgc(momentum="0.9"), "momentum must be in .* not '0.9'"),
        (lambda: tacit.dgc(density=0.0), "density"),
        (lambda: tacit.dgc(warmup="slow"), "warmup 'slow' is not understood"),
        (lambda: tacit.dgc(values="fp8"), "unknown value code 'fp8'"),
        (lambda: tacit.sparseloco(k=65, block=64), "choose fewer"),
    ],
)
def test_impossible_recipes(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "x"])
@pytest.mark.parametrize("name", ["compressed", "dgc", "ef21", "ef21_w", "fedavg", "fedadam"])
def test_impossible_rates(name, value):
    with pytest.raises(UserError, match=r"^lr must be above 0 and finite, not"):
        RECIPES[name](lr=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "x"])
@pytest.mark.parametrize("name", ["sparseloco", "diloco", "fedavgm", "fedadam", "fedadagrad"])
def test_impossible_rates_of_the_server(name, value):
    with pytest.raises(UserError, match=r"server_lr must be above 0 and finite, not"):
        RECIPES[name](server_lr=value)


def test_one_constant_is_that_of_one_worker():
    assert tacit.ef21_w(smoothness=2).gradients.compression.memory.smoothness == (2.0,)
    with pytest.raises(UserError, match="1 smoothness constants for 3 workers"):
        tacit.Simulation(mlp_task(), tacit.ef21_w(smoothness=2), tacit.LocalFleet(K), seed=SEED)


def test_a_recipe_can_be_used_for_a_second_run():
    """Starting begins anew: the same recipe object gives the same run again."""
    recipe, runs = tacit.fedadam(epochs=0.4, lr=0.2), []
    for _ in range(2):
        simulation = tacit.Simulation(mlp_task(), recipe, tacit.LocalFleet(K), seed=SEED)
        for _ in range(5):
            simulation.step()
        runs.append(copy.deepcopy(simulation.replicas.parameters))
    assert torch.equal(*runs)
