from __future__ import annotations

import math

import numpy as np
import pytest

from tacit.errors import UserError
from tacit.rng import numpy_stream
from tacit.tasks.streams.bits import SCALE
from tacit.tasks.streams.separator import FEATURES, Separator, separator


def sample(noise: float, n: int) -> tuple[Separator, np.ndarray, np.ndarray]:
    concept = Separator(np.random.default_rng(0), noise)
    bits = numpy_stream(1, "test", "bits").integers(0, SCALE, (n, 11), dtype=np.uint16)
    return concept, *concept.sample(bits)


def test_weights_are_normal_and_sums_exact() -> None:
    ws = np.array([Separator(np.random.default_rng(k), 0.0).w for k in range(100)], np.float64)
    assert ((ws * SCALE) % 1 == 0).all()
    assert np.abs(ws).sum(axis=1).max() < 256
    # 15,000 numbers, each bound at 4 standard deviations
    assert abs(ws.mean()) < 4 / math.sqrt(ws.size)
    assert abs(ws.var() - 1) < 4 * math.sqrt(2 / ws.size)
    assert abs((ws**4).mean() - 3) < 4 * math.sqrt(96 / ws.size)


def test_without_noise_the_stream_is_realisable() -> None:
    concept, x, y = sample(0.0, 20_000)
    assert (y == (x.astype(np.float64) @ concept.w.astype(np.float64) > 0)).all()


def test_labels_are_flipped_at_the_rate_asked_for() -> None:
    """Within 4.5 standard deviations: a right one fails once in 150,000 seeds."""
    n = 50_000
    for noise in (0.05, 0.3, 0.5):
        concept, x, y = sample(noise, n)
        flipped = (y != (x @ concept.w > 0)).mean()
        assert abs(flipped - noise) < 4.5 * math.sqrt(noise * (1 - noise) / n)
        assert abs(y.mean() - 0.5) < 4.5 * 0.5 / math.sqrt(n)


def test_inputs_are_uniform_signs() -> None:
    """11,325 moments within 5.5 standard deviations: fails for one seed in 2,000."""
    n = 30_000
    _, x, _ = sample(0.05, n)
    assert x.shape == (n, FEATURES)
    assert (np.abs(x) == 1).all()
    assert np.abs(x.mean(0)).max() < 5.5 / math.sqrt(n)
    assert np.abs(x.T @ x / n - np.eye(FEATURES)).max() < 5.5 / math.sqrt(n)


def test_a_drift_draws_a_new_hyperplane() -> None:
    stream = separator(at=1, noise=0.0)(2, 1000, 0)
    old, new = stream.concept(0, 0).w, stream.concept(1, 1).w  # type: ignore[attr-defined]
    assert abs(np.corrcoef(old, new)[0, 1]) < 4 / math.sqrt(FEATURES)
    for w, round in ((old, 0), (new, 1)):
        x, y = stream.batch(1, round)
        assert (y.numpy() == (x.numpy() @ w > 0)).all()


def test_bad_noise() -> None:
    with pytest.raises(UserError, match=r"noise must be a number between 0 and 0.5, got 0.6"):
        separator(noise=0.6)
