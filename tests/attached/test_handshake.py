from __future__ import annotations

import inspect

import pytest

from helpers import quarrels
from helpers.spawn import run_processes
from tacit import recipes
from tacit.attached import handshake


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("theta", "recipe.averaging.trigger.threshold = 2.0", "threshold = 1.0"),
        ("estimator", "trigger.estimator = 'Sketch'", "trigger.estimator = 'Linear'"),
        ("recipe", "recipe.averaging.", "worker 0 has"),
        ("density", "compressor.part.density = 0.2", "density = 0.1"),
        ("download", "compression.download", "worker 0 has"),
        ("server", "recipe.averaging.outer.factory.lr = 0.5", "lr = 0.7"),
        ("shape", "parameters.bias = [4]", "parameters.bias = [3]"),
        ("extra", "order = ['0.weight', ", "order = ['weight', 'bias']"),
        ("value", "sum of parameters", "worker 0 has"),
        ("seed", "seed = 1", "seed = 0"),
        ("protocol", "protocol = 7", "protocol = 2"),
    ],
)
def test_a_worker_that_differs_is_refused_everywhere_with_the_difference(what, first, second):
    told = run_processes(quarrels.disagree, 3, what)
    assert told[0] == told[1] == told[2]
    assert told[0].startswith("worker 1 cannot join: it has ")
    assert first in told[0]
    assert second in told[0]
    assert "\n" not in told[0]


def test_equal_workers_are_accepted():
    assert run_processes(quarrels.disagree, 2, "nothing") == ["attached"] * 2


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_described_with_its_options(name):
    needed = {"delta": 1.0, "f": 1}
    options = {
        o: needed[o] for o in inspect.signature(recipes.RECIPES[name]).parameters if o in needed
    }
    described = handshake.describe(recipes.RECIPES[name](**options))
    assert described == handshake.describe(recipes.RECIPES[name](**options))
    assert described["name"] == name


def test_a_description_holds_what_changes_a_recipe():
    one, other = recipes.fda(1.0, lag=1), recipes.fda(1.0, overlap=1)
    assert handshake.describe(one) != handshake.describe(other)
