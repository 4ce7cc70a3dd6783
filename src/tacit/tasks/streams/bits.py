"""Random numbers of 16 bits from many streams at once, in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tacit.compiled import compiled_words
from tacit.rng import Name, derive, numpy_stream

#: 16 random bits, in the same order on every machine.
BITS = np.dtype("<u2")
SCALE = 1 << 16


class Numbers(Protocol):
    """What some streams hold; in every round, stream i gives its next ``counts[i]`` numbers."""

    def read(self, round: int) -> np.ndarray:
        """The numbers of this round, one stream after the other, uint16; in memory that the next
        call may use again."""
        ...


def numbers(
    seed: int,
    names: Sequence[tuple[Name, ...]],
    counts: Sequence[int],
    rounds: int,
    kernel: bool | None = None,
) -> Numbers:
    """Rounds 0 to ``rounds`` - 1 of the streams of these names, at least one.

    ``kernel``: None uses numba where it is installed, False never, True insists. The numbers are
    the same.
    """
    pcg64 = compiled_words("tacit.tasks.streams.pcg64", kernel)
    if pcg64 is None:
        return Plain(seed, names, counts, rounds)
    seeds = np.array([derive(seed, *name) for name in names], np.uint64)
    made: Numbers = pcg64.Compiled(seeds, np.array(counts, np.int64))
    return made


class Plain:
    """All rounds are drawn at once: that spreads the cost of opening a stream."""

    def __init__(
        self, seed: int, names: Sequence[tuple[Name, ...]], counts: Sequence[int], rounds: int
    ) -> None:
        self._drawn = np.empty((rounds, sum(counts)), BITS)
        start = 0
        for name, count in zip(names, counts, strict=True):
            # the generator's own words, half the price of rng.bytes
            words = numpy_stream(seed, *name).bit_generator.random_raw(-(-rounds * count // 4))
            drawn = words.astype("<u8", copy=False).view(BITS)[: rounds * count]
            self._drawn[:, start : start + count] = drawn.reshape(rounds, count)
            start += count

    def read(self, round: int) -> np.ndarray:
        row: np.ndarray = self._drawn[round]
        return row


def cuts(probabilities: np.ndarray) -> np.ndarray:
    """Numbers c, uint16, such that 16 random bits are below c with these probabilities, which are
    rounded to multiples of 2^-16 below 1: two bytes then decide a draw exactly."""
    numbers: np.ndarray = np.minimum(np.rint(probabilities * SCALE), SCALE - 1).astype(np.uint16)
    return numbers
