"""Who holds which samples: ways to split a data set over workers.

Every function takes ``labels`` (n,), the number of workers K and a seed, and returns K int64 arrays
of sample numbers, none of them empty. All but ``dirichlet_classes`` place every sample on exactly
one worker. Contiguous cuts have the sizes of ``numpy.array_split``: the first n mod K parts are one
longer. All raise UserError when K < 1 or K > n, or when a parameter is out of range.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from tacit.errors import UserError, unknown
from tacit.rng import numpy_stream
from tacit.tasks.data import Data
from tacit.tasks.groups import by_group

Partition = list[np.ndarray]
Partitioner = Callable[[np.ndarray, int, int], Partition]


def iid(labels: np.ndarray, workers: int, seed: int = 0) -> Partition:
    """Contiguous parts of the stored order; nothing is shuffled (the published FDA runs)."""
    _check(labels, workers)
    return np.array_split(np.arange(len(labels)), workers)


def sorted_fraction(
    labels: np.ndarray, workers: int, seed: int = 0, fraction: float = 0.6
) -> Partition:
    """The first int(fraction n) samples sorted by label and cut into K parts, the others cut into
    K parts as stored; worker k holds part k of each (FDA's "60%" is fraction 0.6).

    ``fraction`` 0 is ``iid``, 1 is the contiguous split sorted by label. With hardly more samples
    than workers both parts of a worker can be empty; it then takes a sample of the largest worker.
    """
    _check(labels, workers)
    if not 0.0 <= fraction <= 1.0:
        raise UserError(f"sorted fraction is {fraction}; it must be between 0 and 1")
    head = int(fraction * len(labels))
    by_label = np.array_split(np.argsort(labels[:head], kind="stable"), workers)
    as_stored = np.array_split(np.arange(head, len(labels)), workers)
    parts = [np.concatenate(pair) for pair in zip(by_label, as_stored, strict=True)]
    return _no_empty(parts)


def label_first(labels: np.ndarray, workers: int, seed: int = 0, label: int = 0) -> Partition:
    """All samples of class ``label`` first, then the others as stored, cut into K contiguous parts
    (FDA's "Label 0" and "Label 8")."""
    _check(labels, workers)
    chosen = labels == label
    if not chosen.any():
        known = ", ".join(str(one) for one in np.unique(labels)[:20])
        raise UserError(f"no sample has label {label}; the labels are {known}")
    order = np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])
    return np.array_split(order, workers)


def shards(labels: np.ndarray, workers: int, seed: int = 0, per_worker: int = 2) -> Partition:
    """Sorted by label, cut into K * per_worker shards, dealt to the workers at random, the same
    number to each (McMahan et al., "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", AISTATS 2017, section 3)."""
    _check(labels, workers)
    if per_worker < 1:
        raise UserError(f"shards per worker is {per_worker}; it must be at least 1")
    count = workers * per_worker
    if count > len(labels):
        raise UserError(
            f"{workers} workers with {per_worker} shards each need {count} samples, but there are "
            f"{len(labels)}; use fewer workers or shards"
        )
    pieces = np.array_split(np.argsort(labels, kind="stable"), count)
    dealt = numpy_stream(seed, "partition", "shards").permutation(count)
    hands = dealt.reshape(workers, per_worker)
    return [np.concatenate([pieces[piece] for piece in hand]) for hand in hands]


def dirichlet_clients(
    labels: np.ndarray, workers: int, seed: int = 0, alpha: float = 0.5
) -> Partition:
    """For each class, proportions over the *workers* drawn from Dirichlet(alpha, ..., alpha), and
    the shuffled samples of the class cut accordingly (Hsu, Qi, Brown, arXiv 1909.06335, and the
    usual reading of it, as in ByzFL).

    A worker left without any sample is then given one sample of the largest worker, so small
    ``alpha`` with many workers needs no redrawing.
    """
    _check(labels, workers)
    _check_alpha(alpha)
    rng = numpy_stream(seed, "partition", "dirichlet")
    parts: list[list[np.ndarray]] = [[] for _ in range(workers)]
    for one in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == one))
        shares = rng.dirichlet(np.full(workers, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return _no_empty([np.concatenate(part) for part in parts])


def dirichlet_classes(
    labels: np.ndarray, workers: int, seed: int = 0, alpha: float = 1.0
) -> Partition:
    """For each worker, proportions p over the *classes* drawn from Dirichlet(alpha, ..., alpha),
    then floor((n // K) p_c) distinct samples of class c, at most the whole class (the published
    MoNNA code).

    Workers draw independently: a sample may sit on several workers, and on none. Rounding loses a
    few samples per worker; a worker that would hold none takes one of its likeliest class.
    """
    _check(labels, workers)
    _check_alpha(alpha)
    classes = [np.flatnonzero(labels == one) for one in np.unique(labels)]
    sizes = np.array([len(members) for members in classes])
    parts = []
    for worker in range(workers):
        rng = numpy_stream(seed, "partition", "dirichlet-classes", worker)
        shares = rng.dirichlet(np.full(len(classes), alpha))
        counts = np.minimum((len(labels) // workers * shares).astype(np.int64), sizes)
        if not counts.any():
            counts[np.argmax(shares)] = 1
        chosen = [
            rng.choice(members, count, replace=False)
            for members, count in zip(classes, counts, strict=True)
        ]
        parts.append(np.concatenate(chosen))
    return parts


class _Kind(NamedTuple):
    function: Callable[..., Partition]
    parameter: str | None = None
    number: type[int] | type[float] = float
    required: bool = False


KINDS: dict[str, _Kind] = {
    "iid": _Kind(iid),
    "sorted": _Kind(sorted_fraction, "fraction"),
    "label": _Kind(label_first, "label", int, required=True),
    "shards": _Kind(shards, "per_worker", int),
    "dirichlet": _Kind(dirichlet_clients, "alpha"),
    "dirichlet-classes": _Kind(dirichlet_classes, "alpha"),
    "group": _Kind(by_group),
}


def parse(spec: str) -> Partitioner:
    """The function that ``spec`` names: ``iid``, ``sorted:0.6``, ``label:0``, ``shards:2``,
    ``dirichlet:0.5`` (over workers), ``dirichlet-classes:1`` or ``group``.

    Without ``:number`` the function's default holds (``label`` has none). Raises UserError.
    """
    name, colon, text = spec.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise unknown("partition", name, KINDS)
    if kind.parameter is None:
        if colon:
            raise UserError(f"partition {name!r} takes no number, but got {spec!r}; write {name!r}")
        return kind.function
    if not colon:
        if kind.required:
            raise UserError(f"partition {name!r} needs a number; write for example '{name}:0'")
        return kind.function
    try:
        number = kind.number(text)
    except ValueError:
        what = "whole number" if kind.number is int else "number"
        raise UserError(f"partition {spec!r}: {text!r} is not a {what}") from None
    return partial(kind.function, **{kind.parameter: number})


def partition(spec: str, data: Data | np.ndarray, workers: int, seed: int) -> Partition:
    """Split ``data`` (or the samples that have these labels) as ``spec`` says; see ``parse``.

    Data without classes can be split as ``iid`` only; ``group`` needs data with ``groups``, such as
    ``GroupedData`` (an array of labels is then one of groups).
    """
    partitioner = parse(spec)
    if isinstance(data, np.ndarray):
        return partitioner(data, workers, seed)
    if partitioner is iid:
        return iid(np.empty(len(data)), workers, seed)
    if partitioner is by_group:
        groups = getattr(data, "groups", None)
        if groups is None:
            raise UserError(f"partition {spec!r} needs samples in groups, but the data has none")
        return by_group(groups.cpu().numpy(), workers, seed)
    labels = data.labels
    if labels is None:
        raise UserError(f"partition {spec!r} needs class labels, but the data has none; use 'iid'")
    return partitioner(labels.cpu().numpy(), workers, seed)


def _check(labels: np.ndarray, workers: int) -> None:
    if workers < 1:
        raise UserError(f"number of workers is {workers}; it must be at least 1")
    if workers > len(labels):
        raise UserError(
            f"more workers than samples ({workers} and {len(labels)}); use fewer workers"
        )


def _check_alpha(alpha: float) -> None:
    # Outside these bounds (and for NaN) NumPy's sampler loses its proportions to overflow.
    if not 1e-6 <= alpha <= 1e9:
        raise UserError(f"Dirichlet alpha is {alpha}; it must be between 1e-6 and 1e9")


def _no_empty(parts: Partition) -> Partition:
    """``parts`` where every empty one has been given the last sample of the largest one."""
    for number, part in enumerate(parts):
        if len(part) == 0:
            donor = max(range(len(parts)), key=lambda one: len(parts[one]))
            parts[number] = parts[donor][-1:]
            parts[donor] = parts[donor][:-1]
    return parts
