"""Scikit-learn's handwritten digits: 1,797 images of 8x8 that come with the library."""

from __future__ import annotations

import numpy as np
import torch

from tacit.errors import MissingExtra
from tacit.rng import numpy_stream
from tacit.tasks.data import TensorData

TEST_SIZE = 360


def load_digits() -> tuple[TensorData, TensorData]:
    """Train (1,437) and test (360): inputs (n, 64) float32 in [0, 1], targets (n,) int64.

    The split is fixed, and stratified: each class gives the same share to the test set, to within
    one sample. Both parts keep the stored order. Raises MissingExtra without scikit-learn.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtra("scikit-learn", "data") from None
    digits = datasets.load_digits()
    inputs = torch.from_numpy((digits.data / 16.0).astype(np.float32))
    targets = torch.from_numpy(digits.target.astype(np.int64))
    test = stratified_choice(digits.target, TEST_SIZE)
    train = np.setdiff1d(np.arange(len(targets)), test)
    return (
        TensorData(inputs[torch.from_numpy(train)], targets[torch.from_numpy(train)]),
        TensorData(inputs[torch.from_numpy(test)], targets[torch.from_numpy(test)]),
    )


def stratified_choice(labels: np.ndarray, size: int) -> np.ndarray:
    """``size`` sample numbers, ascending, with every class in proportion; always the same ones."""
    rng = numpy_stream(0, "digits", "split")
    place = np.empty(len(labels))
    for one in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == one))
        # Spread every class evenly over [0, 1]: any prefix of the merged order is stratified.
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(place, kind="stable")[:size])
