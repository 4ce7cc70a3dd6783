"""Methods with compressed messages, written out in double precision with nothing of this library.

``Workers`` is what they need: ``test_recipes.Plain``. Vectors are flat, ``(d,)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

Compress = Callable[[Tensor], Tensor]


class Workers(Protocol):
    count: int
    steps: int
    models: list[nn.Module]

    def gradient(self, k: int) -> Tensor: ...
    def apply(self, direction: Tensor) -> None: ...
    def train(self) -> None: ...
    def get(self, k: int) -> Tensor: ...
    def put(self, vector: Tensor) -> None: ...


# -- compressors


def whole(vector: Tensor) -> Tensor:
    return vector.clone()


def top(density: float) -> Compress:
    """The ``ceil(density n)`` largest entries, by sorting all."""

    def compress(vector: Tensor) -> Tensor:
        k = math.ceil(density * len(vector) - 1e-9)
        largest = sorted(range(len(vector)), key=lambda i: -abs(float(vector[i])))[:k]
        out = torch.zeros_like(vector)
        out[largest] = vector[largest]
        return out

    return compress


def above(threshold: float) -> Compress:
    return lambda vector: vector * (vector.abs() >= threshold)


def blocks(k: int, block: int) -> Compress:
    """The ``k`` largest of each block, proportionally many of the last one."""

    def compress(vector: Tensor) -> Tensor:
        parts = vector.split(block)
        return torch.cat([top(math.ceil(k * len(p) / block) / len(p))(p) for p in parts])

    return compress


def tensors(workers: Workers) -> Iterator[tuple[slice, bool]]:
    """Where each parameter is in the flat vector, and whether it has two or more dimensions."""
    start = 0
    for p in workers.models[0].parameters():
        yield slice(start, start + p.numel()), p.dim() >= 2
        start += p.numel()


def each_tensor(workers: Workers, compress: Compress) -> Compress:
    """Biases whole."""

    def of_all(vector: Tensor) -> Tensor:
        out = vector.clone()
        for part, large in tensors(workers):
            if large:
                out[part] = compress(vector[part])
        return out

    return of_all


# -- the coordinator


class Back:
    """What the coordinator sends to all: without a compressor the mean itself."""

    def __init__(self, compress: Compress | None) -> None:
        self.compress, self.unsent = compress, 0.0

    def __call__(self, mean: Tensor) -> Tensor:
        if self.compress is None:
            return mean
        self.unsent = self.unsent + mean
        answer = self.compress(self.unsent)
        self.unsent = self.unsent - answer
        return answer


# -- methods of gradients: each gives the steps at which models are equal


def compressed(
    workers: Workers,
    compress: Compress,
    feedback: bool = False,
    back: Compress | None = None,
    per_tensor: bool = False,
) -> list[int]:
    """Seide et al. 2014, Karimireddy et al. 2019, with e in units of the gradient."""
    compress = each_tensor(workers, compress) if per_tensor else compress
    errors, spread = [0.0] * workers.count, Back(back)
    for _ in range(workers.steps):
        sent = []
        for k in range(workers.count):
            p = workers.gradient(k) + errors[k]
            sent.append(compress(p))
            errors[k] = p - sent[k] if feedback else 0.0
        workers.apply(spread(sum(sent) / workers.count))
    return list(range(1, workers.steps + 1))


def dgc(
    workers: Workers,
    density: Callable[[int], float],
    momentum: float = 0.9,
    nesterov: bool = False,
    masking: bool = True,
    clip: float = math.inf,
    decay: float = 0.0,
    per_tensor: bool = True,
) -> list[int]:
    """Lin et al. 2018, Algorithm 4; weight decay as in the authors' optimizer."""
    K, d = workers.count, len(workers.get(0))
    u, v = torch.zeros(K, d).double(), torch.zeros(K, d).double()
    q = torch.zeros(d).double()
    parts = list(tensors(workers)) if per_tensor else [(slice(0, d), True)]
    for step in range(1, workers.steps + 1):
        s, total, model = density(step), torch.zeros(d).double(), workers.get(0)
        for k in range(K):
            g = workers.gradient(k)
            g = g * min(1.0, clip / float(g.norm()))
            if nesterov:
                u[k] = momentum * (u[k] + g)
                v[k] = v[k] + u[k] + g
            else:
                u[k] = momentum * u[k] + g
                v[k] = v[k] + u[k]
            for part, large in parts:
                if not large or s == 1:
                    total[part] += v[k, part]
                    v[k, part] = 0
                    continue
                chosen = top(s)(v[k, part]) != 0
                total[part] += v[k, part] * chosen
                v[k, part] *= ~chosen
                if masking:
                    u[k, part] *= ~chosen
        q = momentum * q + decay * model
        decayed = decay * model + momentum * q if nesterov else q
        workers.apply(total / K + decayed)
    return list(range(1, workers.steps + 1))


def ef21(
    workers: Workers,
    compress: Compress,
    momentum: float = 1.0,
    heavy_ball: float = 0.0,
    back: Compress | None = None,
    present: Callable[[int], list[int]] | None = None,
    zero: bool = False,
    weights: list[float] | None = None,
    estimate: int = 0,
) -> list[int]:
    """Richtárik et al. 2021 and what came of it; with weights EF21-W (2024), which are measured in
    the first ``estimate`` steps if there are such. Absent workers do nothing."""
    K = workers.count
    w = weights or [1 / K] * K
    h: list[Tensor] = []
    averages: list[Tensor | None] = [None] * K
    server = answered = velocity = None
    looked: list[tuple[Tensor, Tensor]] = []
    smoothness = [0.0] * K
    for step in range(1, workers.steps + 1):
        gradients = [workers.gradient(k) for k in range(K)]
        if step <= estimate:
            for k in range(K):
                x, g = workers.get(k), gradients[k]
                if len(looked) == K:
                    moved, changed = (x - looked[k][0]).norm(), (g - looked[k][1]).norm()
                    smoothness[k] = max(smoothness[k], float(changed / moved))
            looked = [(workers.get(k), gradients[k]) for k in range(K)]
        first = not h and not zero
        here = list(range(K)) if first or present is None else present(step)
        for k in here:
            old = averages[k]
            averages[k] = (
                gradients[k] if old is None else (1 - momentum) * old + momentum * gradients[k]
            )
        vectors = {k: averages[k] / (K * w[k]) for k in here}
        if first:
            h = list(vectors.values())
            server = answered = sum(w[k] * h[k] for k in range(K))
        else:
            h = h or [torch.zeros_like(g) for g in gradients]
            for k in here:
                h[k] = h[k] + compress(vectors[k] - h[k])
            server = sum(w[k] * h[k] for k in range(K))
            answered = torch.zeros_like(server) if answered is None else answered
            answered = server if back is None else answered + back(server - answered)
        if step == estimate:
            new = [L / sum(smoothness) for L in smoothness]
            h = [h[k] * w[k] / new[k] for k in range(K)]
            w = new
        velocity = answered if velocity is None else heavy_ball * velocity + answered
        workers.apply(velocity)
    return list(range(1, workers.steps + 1))


# -- methods of gradients that stand bad senders

Rule = Callable[[list[Tensor]], Tensor]


def trimmed(f: int) -> Rule:
    """Without the ``f`` smallest and largest values of each coordinate, the mean."""

    def rule(vectors: list[Tensor]) -> Tensor:
        columns = zip(*(vector.tolist() for vector in vectors), strict=True)
        kept = [sorted(column)[f : len(column) - f] for column in columns]
        return torch.tensor([sum(values) / len(values) for values in kept]).double()

    return rule


def mixed(f: int, rule: Rule) -> Rule:
    """Nearest-neighbour mixing: each vector becomes the mean of the ``n - f`` nearest to it, of
    which it is one (Allouah et al. 2023)."""

    def of_mixed(vectors: list[Tensor]) -> Tensor:
        out = []
        for x in vectors:
            near = sorted(vectors, key=lambda y, x=x: float((x - y).norm()))[: len(vectors) - f]
            out.append(sum(near) / len(near))
        return rule(out)

    return of_mixed


def byz_ef21(
    workers: Workers,
    compress: Compress,
    rule: Rule,
    momentum: float = 1.0,
    zero: bool = False,
    back: Compress | None = None,
) -> list[int]:
    """Rammal et al. 2024; with momentum the moving averages of gradients instead. The
    server's g goes back as in EF21-BC."""
    K = workers.count
    g: list[Tensor] = []
    averages: list[Tensor] = []
    answered = None
    for _ in range(workers.steps):
        gradients = [workers.gradient(k) for k in range(K)]
        averages = [
            (1 - momentum) * averages[k] + momentum * gradients[k] if averages else gradients[k]
            for k in range(K)
        ]
        first = not g and not zero
        if first:
            g = list(averages)
        else:
            g = g or [torch.zeros_like(v) for v in averages]
            g = [g[k] + compress(averages[k] - g[k]) for k in range(K)]
        server = rule(g)
        answered = torch.zeros_like(server) if answered is None else answered
        whole = first or back is None
        answered = server if whole else answered + back(server - answered)
        workers.apply(answered)
    return list(range(1, workers.steps + 1))


def rosdhb(
    workers: Workers,
    mask: Callable[[int], Tensor],
    rule: Rule,
    beta: float,
    back: Compress | None = None,
) -> list[int]:
    """Gupta et al. 2026; ``mask`` of the step: 1 where entries are sent, 0 elsewhere."""
    m, spread = [0.0] * workers.count, Back(back)
    for step in range(1, workers.steps + 1):
        sent = mask(step)
        for k in range(workers.count):
            scaled = len(sent) / int(sent.sum()) * workers.gradient(k) * sent
            m[k] = beta * m[k] + (1 - beta) * scaled
        workers.apply(spread(rule(m)))
    return list(range(1, workers.steps + 1))


# -- methods without a server: what each worker makes of the vectors it holds, its own among them

#: Of a step, what travels and a worker: whose vectors it holds.
Held = Callable[[int, str, int], list[int]]
#: Of these vectors and the place of the own one.
PeerRule = Callable[[list[Tensor], int], Tensor]


def nearest(f: int) -> PeerRule:
    """The mean of all but the ``f`` farthest from the own one (Farhadkhani et al. 2023)."""

    def rule(vectors: list[Tensor], own: int) -> Tensor:
        order = sorted(vectors, key=lambda x: float((x - vectors[own]).norm()))
        return sum(order[: len(vectors) - f]) / (len(vectors) - f)  # type: ignore[return-value]

    return rule


def mix(vectors: list[Tensor], held: Held, rule: PeerRule, step: int, what: str) -> list[Tensor]:
    out = []
    for k in range(len(vectors)):
        who = held(step, what, k)
        out.append(rule([vectors[j] for j in who], who.index(k)))
    return out


def monna(workers: Workers, lr: float, beta: float, held: Held, rule: PeerRule) -> list[int]:
    """Farhadkhani et al. 2023, Algorithm 1: the momentum begins at 0 and stays at home."""
    models = [workers.get(k) for k in range(workers.count)]
    m = [torch.zeros_like(model) for model in models]
    for step in range(1, workers.steps + 1):
        for k in range(workers.count):
            m[k] = beta * m[k] + (1 - beta) * workers.gradient(k)
            models[k] = models[k] - lr * m[k]
        models = mix(models, held, rule, step, "model")
        put_each(workers, models)
    return list(range(1, workers.steps + 1))


def learn(workers: Workers, lr: float, held: Held, rule: PeerRule) -> list[int]:
    """El-Mhamdi et al. 2021: gradients are mixed, then models."""
    for step in range(1, workers.steps + 1):
        gradients = [workers.gradient(k) for k in range(workers.count)]
        gradients = mix(gradients, held, rule, step, "gradient")
        models = [workers.get(k) - lr * g for k, g in enumerate(gradients)]
        put_each(workers, mix(models, held, rule, step, "model"))
    return list(range(1, workers.steps + 1))


def put_each(workers: Workers, models: list[Tensor]) -> None:
    for module, model in zip(workers.models, models, strict=True):
        nn.utils.vector_to_parameters(model.float(), module.parameters())


# -- methods of models


def averaged(
    workers: Workers,
    due: Callable[[int, list[Tensor], Tensor], bool],
    compress: Compress,
    decay: float = 1.0,
    back: Compress | None = None,
    server_lr: float = 1.0,
) -> list[int]:
    """Compressed changes of the models with error feedback; ``due`` of the step, the drifts and
    the last movement."""
    reference, movement = workers.get(0), torch.zeros(0)
    errors, spread = [0.0] * workers.count, Back(back)
    synchronised = []
    for step in range(1, workers.steps + 1):
        workers.train()
        drifts = [workers.get(k) - reference for k in range(workers.count)]
        if not due(step, drifts, movement):
            continue
        sent = []
        for k, drift in enumerate(drifts):
            p = drift + decay * errors[k]
            sent.append(compress(p))
            errors[k] = p - sent[k]
        movement = server_lr * spread(sum(sent) / workers.count)
        reference = reference + movement
        workers.put(reference)
        synchronised.append(step)
    return synchronised
