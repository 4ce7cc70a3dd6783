"""What holds for every compressor. One list, ``listed.PLUGINS``, and each of them in every test."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from listed import PLUGINS, Plugin, error, gaussian, vectors

from tacit.compressors import Compressor
from tacit.errors import UserError
from tacit.setting import Setting

NAME = ("worker", 3, "step", 17)

every = pytest.mark.parametrize("plugin", PLUGINS.values(), ids=PLUGINS)


def some(wanted: str) -> pytest.MarkDecorator:
    """The plug-ins that declare this constant at n = 40."""
    found = {
        name: plugin
        for name, plugin in PLUGINS.items()
        if getattr(plugin.make(), wanted)(40) is not None
    }
    return pytest.mark.parametrize("plugin", found.values(), ids=found)


def there_and_back(
    made: Compressor, vector: torch.Tensor, name: tuple[str | int, ...] = NAME
) -> torch.Tensor:
    return made.decode(made.encode(vector, *name), len(vector), "bob", *name)


numbers = st.one_of(
    st.floats(-1, 1, width=32),
    st.floats(-(2.0**57), 2.0**57, width=32),
    st.just(0.0),
)


@every
@settings(max_examples=15)
@given(values=hnp.arrays(np.float32, st.integers(0, 70), elements=numbers))
def test_round_trip(plugin: Plugin, values: np.ndarray) -> None:
    vector = torch.from_numpy(values)
    before = vector.clone()
    made = plugin.make()
    message = made.encode(vector, *NAME)
    assert torch.equal(vector, before)
    decoded = made.decode(message, len(vector), "bob", *NAME)
    assert decoded.dtype == torch.float32
    assert decoded.shape == vector.shape
    assert decoded.device.type == "cpu"
    assert decoded.isfinite().all()
    assert plugin.make().encode(vector, *NAME) == message
    assert torch.equal(plugin.make().decode(message, len(vector), "bob", *NAME), decoded)
    if made.keeps_zeros:
        assert not decoded[vector == 0].any()


@every
def test_a_draw_belongs_to_its_name_and_seed(plugin: Plugin) -> None:
    vector = gaussian(3000)

    def drawn(seed: int, *name: str | int) -> bytes:
        made = plugin.make()
        made.start(Setting(workers=4, d=3000, seed=seed))
        return made.encode(vector, *name)

    steps = range(40 if plugin.random else 2)  # a sampled selection is often the same
    assert (len({drawn(0, "worker", 3, "step", t) for t in steps}) > 1) == plugin.random
    assert (len({drawn(seed, *NAME) for seed in steps}) > 1) == plugin.random
    assert drawn(5, *NAME) == drawn(5, *NAME)


@every
def test_the_decoded_vector_is_the_receivers_own(plugin: Plugin) -> None:
    vector = gaussian(40)
    made = plugin.make()
    message = made.encode(vector, *NAME)
    made.decode(message, 40, "bob", *NAME).zero_()
    assert made.decode(message, 40, "bob", *NAME).any()


@every
@pytest.mark.parametrize("n", [1, 2, 5, 100, 3000])
def test_zeros_stay_zeros_and_are_short(plugin: Plugin, n: int) -> None:
    made = plugin.make()
    message = made.encode(torch.zeros(n), *NAME)
    assert not made.decode(message, n, "bob", *NAME).any()
    assert len(message) <= plugin.longest(n)


@every
def test_no_numbers_are_a_header(plugin: Plugin) -> None:
    made = plugin.make()
    message = made.encode(torch.zeros(0), *NAME)
    assert len(message) == 9
    assert made.decode(message, 0, "bob", *NAME).shape == (0,)
    assert 0 < (made.alpha(0) or 1) <= 1
    assert (made.omega(0) or 0) >= 0


@every
@pytest.mark.parametrize("n", [1, 30, 1000])
def test_messages_are_no_longer_than_they_should_be(plugin: Plugin, n: int) -> None:
    for kind, vector in vectors(n).items():
        assert len(plugin.make().encode(vector, *NAME)) <= plugin.longest(n), kind


def measured(plugin: Plugin, vector: torch.Tensor, draws: int) -> tuple[float, float]:
    """The mean of the relative squared error, and five times the standard error of that mean."""
    made = plugin.make()
    errors = [
        error(there_and_back(made, vector, ("worker", 0, "step", step)), vector)
        for step in range(draws if plugin.random else 1)
    ]
    return float(np.mean(errors)), 5 * float(np.std(errors)) / math.sqrt(len(errors))


@some("alpha")
@pytest.mark.parametrize("n", [1, 37, 300])
def test_contraction_is_as_declared(plugin: Plugin, n: int) -> None:
    """Mean errors of random ones with 5 sigma: a false alarm in less than one of 10^6."""
    alpha = plugin.make().alpha(n)
    if alpha is None:
        return
    assert 0 < alpha <= 1
    for kind, vector in vectors(n).items():
        mean, margin = measured(plugin, vector, 24)
        assert mean <= 1 - alpha + margin + 1e-6, kind


@some("omega")
@pytest.mark.parametrize("n", [1, 37, 300])
def test_variance_is_as_declared(plugin: Plugin, n: int) -> None:
    omega = plugin.make().omega(n)
    assert omega is not None
    assert omega >= 0
    for kind, vector in vectors(n).items():
        mean, margin = measured(plugin, vector, 24)
        assert mean <= omega + margin + 1e-6, kind


@some("omega")
def test_what_declares_a_variance_is_unbiased(plugin: Plugin) -> None:
    """The squared distance of the mean of T draws to the vector is 1/T of their variance on
    average. Here at most twice that: with the variance spread over 20 entries or more, that fails
    by chance in less than one of 100; the draws are fixed, and a bias would be there in any."""
    made, vector, draws = plugin.make(), gaussian(64), 1200
    rows = torch.stack(
        [there_and_back(made, vector, ("worker", 0, "step", t)).double() for t in range(draws)]
    )
    distance = float((rows.mean(0) - vector).square().sum())
    variance = float(rows.var(0).sum()) / draws
    assert distance <= 2 * variance + 1e-12
    assert (variance > 0) == plugin.random


@every
def test_homogeneous_as_declared(plugin: Plugin) -> None:
    """Powers of two are too easy, and thirds of a rounding error may move an entry by a level."""
    vector, differences = gaussian(200), []
    for factor in (0.5, 3.0, 0.7, 1e6):
        decoded = there_and_back(plugin.make(), vector)
        scaled = there_and_back(plugin.make(), factor * vector)
        differences.append(math.sqrt(error(scaled / factor, decoded)))
    assert (max(differences) < 1e-5) == plugin.make().homogeneous


@every
def test_zeros_are_kept_as_declared(plugin: Plugin) -> None:
    vector = gaussian(400)
    absent = torch.linspace(0, 90, 400).cos() > 0
    vector[absent] = 0
    kept = not there_and_back(plugin.make(), vector)[absent].any()
    assert kept == plugin.make().keeps_zeros


@every
def test_messages_add_up_as_declared(plugin: Plugin) -> None:
    """A reducible compressor is one linear map for all workers at a step."""
    made = plugin.make()
    if not made.reducible:
        return
    a, b = gaussian(200), torch.linspace(-1, 1, 200)
    one, two = (there_and_back(made, v, ("worker", w, "step", 5)) for w, v in ((0, a), (1, b)))
    torch.testing.assert_close(one + two, there_and_back(made, a + b, ("worker", 2, "step", 5)))
    lengths = {len(made.encode(v, "worker", 0, "step", 5)) for v in (a, b, torch.zeros(200))}
    assert len(lengths) == 1


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [5, 400])
def test_what_is_not_finite_is_refused(plugin: Plugin, bad: float, n: int) -> None:
    vector = gaussian(n)
    vector[3] = bad
    with pytest.raises(UserError, match=r"(nan|inf) at 3; only finite"):
        plugin.make().encode(vector, *NAME)


@every
def test_another_type_or_shape_is_refused(plugin: Plugin) -> None:
    for wrong in (torch.ones(3, 3), torch.ones(3).double(), torch.tensor(1.0)):
        with pytest.raises(UserError, match="flat float32"):
            plugin.make().encode(wrong, *NAME)


@every
def test_parts_of_a_larger_tensor_and_parameters_are_vectors(plugin: Plugin) -> None:
    table = gaussian(120).reshape(40, 3)
    column = table[:, 1]
    made = plugin.make()
    assert made.encode(column, *NAME) == plugin.make().encode(column.clone(), *NAME)
    assert plugin.make().encode(torch.nn.Parameter(column), *NAME)


@every
def test_the_ends_of_float32_decode_to_finite_numbers_or_are_refused(plugin: Plugin) -> None:
    largest = torch.finfo(torch.float32).max
    for ends in ([largest, -largest, 1e-45, 0.0], [1e-45, -1e-45], [largest] * 9):
        vector, made = torch.tensor(ends), plugin.make()
        try:
            message = made.encode(vector, *NAME)
        except UserError:
            continue
        assert made.decode(message, len(vector), "bob", *NAME).isfinite().all()


@every
@pytest.mark.slow
def test_a_million_numbers(plugin: Plugin) -> None:
    n = 1_000_000
    vector = gaussian(n) ** 3
    made = plugin.make()
    message = made.encode(vector, *NAME)
    decoded = made.decode(message, n, "bob", *NAME)
    assert len(message) <= plugin.longest(n) + 0.01 * n
    alpha, omega = made.alpha(n), made.omega(n)
    if not plugin.random and alpha is not None:
        assert error(decoded, vector) <= 1 - alpha + 1e-6
    elif omega is not None:
        assert error(decoded, vector) <= 1.1 * omega + 1e-6
