"""A stream made of a data set: every worker reads it once. Drifts exchange labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tacit.calls import Value
from tacit.errors import UserError, unknown
from tacit.rng import numpy_stream
from tacit.tasks.data import Data
from tacit.tasks.streams.base import Stream, StreamFactory, check
from tacit.tasks.streams.drift import Drifts, When
from tacit.tasks.streams.options import batch_sizes, parse_rates

KINDS = ("permute", "swap")


def one_pass(
    train: Data,
    test: Data,
    drift: float = 0.0,
    at: Value = "",
    kind: str = "permute",
    rates: Value = "1",
) -> StreamFactory:
    """Each worker passes once through ``train``, in a random order of its own.

    drift, at: when labels change: with this probability at each round, or at these rounds
               ("500/1000"; then ``drift`` does not count).
    kind:      how: "permute", a random permutation of all classes, never the identity; "swap", two
               classes are exchanged. Both change the labels as they were just before.
    rates:     samples of a worker in a round, in batches: "1/2/4" for workers 0, 1, 2, 0, 1, ...
    Raises UserError for a bad option, and data without classes.
    """
    when = When.parse(drift, at)
    if kind not in KINDS:
        raise unknown("kind of drift", str(kind), KINDS)
    for data in (train, test):
        if data.labels is None:
            raise UserError("this stream needs a class label for every sample, but there are none")
    return functools.partial(OnePass, train, test, when, kind, parse_rates(rates))


class OnePass(Stream):
    """See ``one_pass``. The labels of batches and of test data follow the concept of the round;
    those of concept 0 are the data's own. ``rounds`` is what the fastest worker can fill."""

    def __init__(
        self,
        train: Data,
        test: Data,
        when: When,
        kind: str,
        rates: tuple[int, ...],
        workers: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.sizes = batch_sizes(workers, batch_size, rates)
        self.rounds: int = len(train) // max(self.sizes)
        if self.rounds == 0:
            raise UserError(
                f"a round takes {max(self.sizes)} samples, but there are {len(train)}; "
                "use smaller batches or rates"
            )
        self._train, self._kind, self._seed = train, kind, seed
        self._drifts = Drifts(when, seed)
        self._orders: dict[int, np.ndarray] = {}
        labels = [data.labels.cpu() for data in (train, test) if data.labels is not None]
        self._classes = np.unique(torch.cat(labels).numpy())
        #: For each concept so far, the label of every class, and the test data.
        self._labels = [torch.arange(int(self._classes[-1]) + 1)]
        self._tests: list[Data] = [test]

    def batch(self, worker: int, round: int) -> tuple[Tensor, Tensor]:
        return self.batches([worker], round)

    def batches(self, workers: Sequence[int], round: int) -> tuple[Tensor, Tensor]:
        check(self, workers, round)
        parts = []
        for worker in workers:
            start = round * self.sizes[worker]
            parts.append(self._order(worker)[start : start + self.sizes[worker]])
        inputs, targets = self._train.batch(np.concatenate(parts))
        concept = self._concept(round)
        return inputs, targets if concept == 0 else relabelled(targets, self._labels[concept])

    def drifts(self, start: int, stop: int) -> list[int]:
        return self._drifts.between(start, stop)

    def test(self, round: int) -> Data:
        return self._tests[self._concept(round)]

    def _order(self, worker: int) -> np.ndarray:
        order = self._orders.get(worker)
        if order is None:
            rng = numpy_stream(self._seed, "stream", "order", worker)
            # Half the memory of int64: there may be hundreds of workers.
            order = rng.permutation(np.arange(len(self._train), dtype=np.int32))
            self._orders[worker] = order
        return order

    def _concept(self, round: int) -> int:
        """The number of the round's concept, whose labels and test data are then known."""
        concept = self._drifts.concept(round)
        while len(self._labels) <= concept:
            change = self._change(len(self._labels))
            self._labels.append(change[self._labels[-1]])
            self._tests.append(Relabelled(self._tests[0], self._labels[-1]))
        return concept

    def _change(self, concept: int) -> Tensor:
        """The new label of every label of concept - 1, as long as the largest label + 1."""
        rng = numpy_stream(self._seed, "stream", "labels", concept)
        classes = self._classes
        if len(classes) < 2:
            raise UserError("labels cannot drift where all samples are of one class")
        change = np.arange(len(self._labels[0]))
        if self._kind == "swap":
            pair = rng.choice(classes, 2, replace=False)
            change[pair] = pair[::-1]
        while (change[classes] == classes).all():
            change[classes] = rng.permutation(classes)
        return torch.from_numpy(change)


class Relabelled:
    """``data`` with the label ``labels[c]`` (int64) in place of class c; inputs are shared."""

    def __init__(self, data: Data, labels: Tensor) -> None:
        self._data = data
        self._labels = labels

    def __len__(self) -> int:
        return len(self._data)

    @property
    def labels(self) -> Tensor | None:
        old = self._data.labels
        return None if old is None else relabelled(old, self._labels)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, targets = self._data.batch(indices)
        return inputs, relabelled(targets, self._labels)


def relabelled(targets: Tensor, labels: Tensor) -> Tensor:
    """``labels[targets]``, on the device of ``targets``."""
    return labels.to(targets.device)[targets.to(torch.int64)]
