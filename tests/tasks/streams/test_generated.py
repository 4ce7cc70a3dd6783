"""Random bits and samples: the same ones compiled and plain, and for good."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import MissingExtra
from tacit.rng import numpy_stream
from tacit.tasks.streams import Stream, graphical, separator
from tacit.tasks.streams.bits import SCALE, Numbers, numbers
from tacit.tasks.streams.graphical import Graphical, Law

KERNELS = ("tacit.tasks.streams.pcg64", "tacit.tasks.streams.tree")


BLOCK = 4


def opened(counts: list[int], seed: int, kernel: bool | None) -> Numbers:
    names = [("bits", worker) for worker in range(len(counts))]
    return numbers(seed, names, counts, BLOCK, kernel)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 1 << 40),
    st.lists(st.integers(0, BLOCK - 1), min_size=1),
)
def test_compiled_bits_are_the_plain_ones(counts: list[int], seed: int, rounds: list[int]) -> None:
    """In whatever order rounds are read."""
    pytest.importorskip("numba")
    fast, plain = opened(counts, seed, True), opened(counts, seed, False)
    for round in rounds:
        assert np.array_equal(fast.read(round), plain.read(round))


@pytest.mark.parametrize("kernel", [None, False])
def test_bits_are_each_streams_own_in_order(kernel: bool | None) -> None:
    counts = [5, 10]
    made = opened(counts, 7, kernel)
    rounds = [np.split(made.read(round).copy(), [5]) for round in range(BLOCK)]
    for worker, count in enumerate(counts):
        words = numpy_stream(7, "bits", worker).bit_generator.random_raw(10)
        stream = [int(word) >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
        parts = np.concatenate([round[worker] for round in rounds])
        assert parts.tolist() == stream[: BLOCK * count]


@given(
    st.one_of(st.integers(0, 1 << 33), st.integers(0, (1 << 64) - 1)),
    st.integers(1, 9),
    st.integers(0, 1000),
)
def test_compiled_generators_are_numpys(seed: int, words: int, round: int) -> None:
    """Seeds of one word and of two; far into the stream."""
    pcg64 = pytest.importorskip("tacit.tasks.streams.pcg64")
    made = pcg64.Compiled(np.array([seed], np.uint64), np.array([4 * words])).read(round)
    expected = np.random.PCG64(seed).advance(round * words).random_raw(words)
    assert np.array_equal(made.view(np.uint64), expected)


@pytest.mark.parametrize(("features", "hidden"), [(150, 10), (1, 1), (48, 16), (34, 17), (40, 40)])
def test_compiled_samples_are_the_plain_ones(features: int, hidden: int) -> None:
    """Also where there are more hidden variables than the kernel takes."""
    pytest.importorskip("numba")
    rng = numpy_stream(0, "test", features)
    law = Law(q=(0.0, 0.499), rho=(0.0, 0.499), features=features, hidden=hidden)
    for _ in range(5):
        concept = Graphical.draw(rng, law)
        bits = rng.integers(0, SCALE, (200, 1 + hidden + features), dtype=np.uint16)
        # draws at the cuts themselves
        bits[::3, 1:] = np.concatenate(concept._cuts) - (bits[::3, 1:] & 1)
        for some in (bits, bits[:1], bits[:0], bits[::2]):
            for one, same in zip(
                concept.sample(some, True), concept.sample(some, False), strict=True
            ):
                assert one.dtype == same.dtype
                assert np.array_equal(one, same)


STREAMS = {
    "graphical": (graphical(at="1/16/20", rates="1/3"), "0a2937fb221677fb"),
    "graphical, local": (graphical(drift=0.1, local=True, rates="1/3"), "4e2cf5c87eda44d9"),
    "graphical, signs": (graphical(at="1/16/20", partial=True), "e2ca76365c58462b"),
    "separator": (separator(at="1/16/20", rates="1/3"), "83b5e596adf5e959"),
    "separator, local": (separator(drift=0.1, local=True), "d039107bf601d21f"),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("numba", [True, False])
def test_samples_stay_what_they_were(
    name: str, numba: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published results were made of these."""
    if not numba:
        for kernel in KERNELS:
            monkeypatch.setitem(sys.modules, kernel, None)
    factory, expected = STREAMS[name]
    assert digest(factory(5, 3, 7)) == expected


def digest(stream: Stream) -> str:
    made = hashlib.blake2b(digest_size=8)
    test = stream.test(40)
    batches = [
        stream.batches(workers, round)
        for round in (0, 1, 15, 16, 40)
        for workers in ([0, 1, 2, 3, 4], [3], [4, 0])
    ]
    for pair in [*batches, test.batch(np.arange(len(test)))]:
        for part in pair:
            made.update(part.to(torch.int8).numpy().tobytes())
    return made.hexdigest()


def test_kernels_on_demand_need_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in KERNELS:
        monkeypatch.setitem(sys.modules, kernel, None)
    concept = Graphical.draw(numpy_stream(0, "test"), Law())
    with pytest.raises(MissingExtra, match="speed"):
        opened([1], 0, True)
    with pytest.raises(MissingExtra, match="speed"):
        concept.sample(np.zeros((1, 161), np.uint16), True)
