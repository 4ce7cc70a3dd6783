"""Samples of the graphical model, compiled (numba): those of ``Graphical.sample``.

Import this module lazily: it needs the extra ``speed``. It runs on one thread, without the GIL.
"""

from __future__ import annotations

import numpy as np

from tacit.jit import Array, jit

#: The hidden variables of a sample are the bits of one number, as wide as the random ones.
MOST_HIDDEN = 16


def sample(
    bits: Array, hidden_cuts: Array, cuts: Array, parents: Array, follows: Array
) -> tuple[Array, Array]:
    """Inputs (n, features) of -1 and +1, float32, and classes (n,) 0 or 1, int64.

    bits: (n, 1 + k + features): of the class, of k hidden variables, of the features.
    hidden_cuts, cuts: (k,), (features,); a draw below its cut says "as your parent".
    parents: (features,), the bit of the parent. follows: the same, or 0 for a feature that as its
    parent does the opposite. All uint16.
    """
    inputs = np.empty((len(bits), len(cuts)), np.float32)
    classes = np.empty(len(bits), np.int64)
    _sample(np.ascontiguousarray(bits), hidden_cuts, cuts, parents, follows, inputs, classes)
    return inputs, classes


def _sample_loop(
    bits: Array,
    hidden_cuts: Array,
    cuts: Array,
    parents: Array,
    follows: Array,
    inputs: Array,
    classes: Array,
) -> None:
    for row in range(len(bits)):
        y = bits[row, 0] & 1
        hidden = np.uint16(0)
        for h in range(hidden_cuts.size):
            if (bits[row, 1 + h] < hidden_cuts[h]) == (y == 1):
                hidden |= np.uint16(1 << h)
        classes[row] = y
        draws, signs = bits[row, 1 + hidden_cuts.size :], inputs[row]
        for j in range(cuts.size):
            up = (hidden & parents[j]) == follows[j]
            signs[j] = np.float32(1.0) if up == (draws[j] < cuts[j]) else np.float32(-1.0)


_sample = jit(_sample_loop)
