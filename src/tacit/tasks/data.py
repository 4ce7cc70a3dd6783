"""Training data: samples that can be fetched by number, so that a batch is a list of numbers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from tacit.errors import UserError


class Data(Protocol):
    """Samples numbered 0 to len - 1. Order matters: partitions are made of these numbers."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Tensor | None:
        """The class of every sample, shape (n,), int64; None where samples have no class."""
        ...

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Inputs (b, ...) and targets (b, ...) of the samples ``indices``, shape (b,)."""
        ...


class TensorData:
    """All samples in two tensors: the fast path.

    ``transform`` is applied to the inputs of each batch, so images can be held as bytes, a quarter
    of their size as floats.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if len(inputs) != len(targets):
            raise UserError(
                f"inputs and targets differ in length ({len(inputs)} and {len(targets)}); "
                "give one target per input"
            )
        self.inputs = inputs
        self.targets = targets
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> Tensor | None:
        return _as_labels(self.targets)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(np.array(indices, np.int64))  # a copy: indices may be read-only
        inputs = self.inputs.index_select(0, rows.to(self.inputs.device))
        targets = self.targets.index_select(0, rows.to(self.targets.device))
        return (inputs if self.transform is None else self.transform(inputs)), targets

    def to(self, device: torch.device | str) -> TensorData:
        """The same samples on ``device``."""
        return TensorData(self.inputs.to(device), self.targets.to(device), self.transform)


class DatasetData:
    """Any map-style ``torch.utils.data.Dataset`` whose items are (input, target) pairs.

    Items are stacked by ``default_collate``. Random transforms inside the data set draw from the
    global generators, so a run over such a set is reproducible only as far as they are.
    """

    def __init__(self, dataset: Any) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UserError(
                f"{type(dataset).__name__} has no length or no item access; "
                "give a map-style data set (iterable ones are not supported)"
            )
        self.dataset = dataset
        self._labels: Tensor | None = None
        self._labels_known = False

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def labels(self) -> Tensor | None:
        """From the data set's ``targets`` or ``labels`` where it has one of them, otherwise by one
        pass over all items at the first call."""
        if not self._labels_known:
            self._labels = self._gather_labels()
            self._labels_known = True
        return self._labels

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        items = [self._item(int(index)) for index in indices]
        inputs, targets = default_collate(items)
        return inputs, targets

    def _item(self, index: int) -> tuple[Any, Any]:
        item = self.dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(
                f"item {index} of {type(self.dataset).__name__} is not an (input, target) pair; "
                "wrap the data set so that its items are pairs"
            )
        return item[0], item[1]

    def _gather_labels(self) -> Tensor | None:
        for name in ("targets", "labels"):
            found: Any = getattr(self.dataset, name, None)
            # Some data sets use these names for something else, such as class names.
            with contextlib.suppress(TypeError, ValueError, RuntimeError):
                if len(found) == len(self):
                    return _as_labels(torch.as_tensor(found))
        targets = [self._item(index)[1] for index in range(len(self))]
        return _as_labels(default_collate(targets)) if targets else None


def as_data(source: Any) -> Data:
    """``source`` as Data: Data itself, a pair of tensors (inputs, targets), or a map-style Dataset.

    A ``TensorDataset`` of two tensors takes the fast path.
    Raises UserError where ``source`` is none of these.
    """
    if _is_data(source):
        return source
    if isinstance(source, torch.utils.data.TensorDataset):
        source = source.tensors
    if isinstance(source, tuple | list) and all(isinstance(part, Tensor) for part in source):
        if len(source) != 2:
            raise UserError(f"got {len(source)} tensors as data; give a pair (inputs, targets)")
        return TensorData(source[0], source[1])
    return DatasetData(source)


def _is_data(source: Any) -> TypeGuard[Data]:
    # Looked up statically: reading ``labels`` may cost a pass over all items.
    names = ("__len__", "labels", "batch")
    return all(inspect.getattr_static(source, name, None) is not None for name in names)


def _as_labels(targets: Any) -> Tensor | None:
    """``targets`` as int64 classes, or None where they are not one whole number per sample."""
    if not isinstance(targets, Tensor) or targets.ndim != 1:
        return None
    if targets.is_floating_point() or targets.is_complex():
        return None
    return targets.to(torch.int64)
