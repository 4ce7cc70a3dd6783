"""One implementation: whichever process hosts a worker, the run is the same.

The same recipe in one process, in 2, in 4 and in mixed gloo processes: identical decisions and
ledgers, parameters equal to rounding, and bit for bit with the deterministic reduction.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist

import tacit
from helpers.shared import once
from helpers.spawn import run_processes
from helpers.tasks import ADAM, conv_task, mlp_task
from tacit.fleet import Fleet
from tacit.recipes import Recipe
from tacit.tasks.task import Task
from tacit.training import Execution

K, STEPS = 6, 6

#: name: (the ranks, how many workers each hosts)
LAYOUTS = {
    "2 processes": ((0, 1), (3, 3)),
    "3+1+2": ((1, 2, 3), (3, 1, 2)),
    "4 processes": ((0, 1, 2, 3), (1, 2, 1, 2)),
}

#: Every recipe, and those settings of them that exchange something else.
CASES: dict[str, Callable[[], Recipe]] = {
    "synchronous": lambda: tacit.synchronous(),
    "synchronous models": lambda: tacit.synchronous("models"),
    "local_sgd": lambda: tacit.local_sgd(period=2, buffers="average"),
    "fda": lambda: tacit.fda(0.02),
    "fda naive": lambda: tacit.fda(0.02, "naive", every=2),
    "fda exact": lambda: tacit.fda(0.02, "exact"),
    "fda sketch": lambda: tacit.fda(0.02, "sketch", columns=16),
    "fda lag": lambda: tacit.fda(0.02, lag=1),
    "fda overlap": lambda: tacit.fda(0.02, lag=1, overlap=1),
    "fda average": lambda: tacit.fda(0.02, buffers="average", optimizer_state="average"),
    "dynamic_averaging": lambda: tacit.dynamic_averaging(0.03, every=2),
    "dynamic_averaging nearest": lambda: tacit.dynamic_averaging(
        0.03, every=1, augmentation="nearest", weights="samples", buffers="average"
    ),
    "continuous": lambda: tacit.continuous(),
    "periodic": lambda: tacit.periodic(3),
    "no_sync": lambda: tacit.no_sync(),
    "serial": lambda: tacit.serial(),
    "fedavg period": lambda: tacit.fedavg(fraction=0.5, period=2),
    "fedavg": lambda: tacit.fedavg(fraction=0.5, epochs=0.8, lr=0.1),
    "fedavgm": lambda: tacit.fedavgm(epochs=0.8, lr=0.1),
    "fedadam": lambda: tacit.fedadam(fraction=0.3, epochs=0.8, lr=0.1, server_lr=0.01),
    "fedadagrad": lambda: tacit.fedadagrad(epochs=0.8, lr=0.1),
    "diloco": lambda: tacit.diloco(period=2),
    "compressed topk": lambda: tacit.compressed("topk(density=0.1)", feedback=True),
    "compressed randomk": lambda: tacit.compressed("randomk(density=0.3)", feedback=True),
    "compressed lowrank": lambda: tacit.compressed(
        "lowrank", feedback=True, per_tensor=True, download="topk(density=0.5)"
    ),
    "dgc": lambda: tacit.dgc(
        0.1,
        nesterov=True,
        clip=1.0,
        warmup="1/0.2",
        values="fp16",
        dense="fp16",
        weight_decay=0.01,
        lr=0.1,
    ),
    "ef21 both ways": lambda: tacit.ef21(
        "topk(density=0.1)", momentum=0.3, download="topk(density=0.3,values=int8)"
    ),
    "ef21 partial": lambda: tacit.ef21("topk(density=0.1)", fraction=0.5, start="zero"),
    "ef21_w": lambda: tacit.ef21_w("topk(density=0.1)", estimate=3),
    "byz_ef21": lambda: tacit.byz_ef21(2, compressor="topk(density=0.1)"),
    "byz_ef21 both ways": lambda: tacit.byz_ef21(
        1, "trimmed_mean", "topk(density=0.1)", 0.3, download="topk(density=0.3,values=int8)"
    ),
    "rosdhb": lambda: tacit.rosdhb(1, "trimmed_mean", 0.2, lr=0.1),
    "monna": lambda: tacit.monna(1, 0.9),
    "monna worst": lambda: tacit.monna(1, 0.9, 0.1, "worst", "geometric_median"),
    "learn": lambda: tacit.learn(1, reception="all"),
    "sparseloco": lambda: tacit.sparseloco(period=2, k=6, block=32),
    "local_sgd compressed": lambda: tacit.local_sgd(
        period=2, buffers="average", compressor="topk(density=0.1,values=int8)"
    ),
    "fda compressed": lambda: tacit.fda(
        0.02, compressor="topk(density=0.2)", download="topk(density=0.3)"
    ),
}
#: Cases with a threshold, which must be crossed at some steps and not at others.
VARIABLE = [name for name in CASES if name.startswith("fda")]


@dataclass(frozen=True)
class Variant:
    """How a case is run, and in which layouts. Deterministic: each must give the same bits."""

    task: Callable[..., Task]
    deterministic: bool
    layouts: tuple[str, ...] = tuple(LAYOUTS)
    execution: Execution = "auto"


VARIANTS = {
    "mlp": Variant(mlp_task, False),
    "mlp batched": Variant(mlp_task, False, ("3+1+2",), "batched"),
    "mlp bits": Variant(mlp_task, True),
    "conv": Variant(conv_task, False, ("3+1+2",)),
    "conv bits": Variant(conv_task, True),
    # two groups of parameters
    "decay bits": Variant(partial(conv_task, kernel_decay=0.1), True, ("3+1+2",)),
}


def run(case: str, variant: Variant, fleet: Fleet) -> dict[str, Any]:
    """What one process sees of a run."""
    simulation = tacit.Simulation(
        variant.task(optimizer=ADAM),
        CASES[case](),
        fleet,
        seed=4,
        partition="dirichlet:2",
        execution=variant.execution,
    )
    fired = [step for step in range(1, STEPS + 1) if simulation.step()]
    evaluation = simulation.evaluate()
    averaging = simulation.recipe.averaging
    rows = {
        "parameters": simulation.replicas.parameters,
        "buffers": simulation.replicas.buffers,
        **{f"optimizer {i}": t for i, t in enumerate(simulation.optimizer.rows())},
    }
    return {
        "fired": fired,
        "estimates": [check[1] for check in evaluation.checks],
        "reference": averaging.reference if averaging is not None else torch.zeros(0),
        "rows": {name: tensor.clone() for name, tensor in rows.items()},
        "counters": simulation.replicas.counters,
        "ledger": {**fleet.ledger.state_dict()["columns"], "sent": fleet.ledger.sent()},
        "conversations": evaluation.conversations,
        "accuracy": evaluation.accuracy,
        "losses": (evaluation.loss, evaluation.train_loss),
    }


def child(rank: int) -> dict[Any, Any]:
    warnings.simplefilter("ignore")
    results = {}
    for layout, (ranks, counts) in LAYOUTS.items():
        group = dist.new_group(list(ranks))
        if rank not in ranks:
            continue
        workers = counts[ranks.index(rank)]
        for (name, variant), case in itertools.product(VARIANTS.items(), CASES):
            if layout in variant.layouts:
                fleet = tacit.ProcessGroupFleet(workers, group, deterministic=variant.deterministic)
                results[layout, name, case] = run(case, variant, fleet)
    return results


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return once(tmp_path_factory, "layouts", lambda: run_processes(child, 4, timeout=240))


@pytest.fixture(scope="module")
def local():
    """Runs in this process, made when first looked at."""
    made: dict[Any, Any] = {}

    def get(case: str, variant: str) -> dict[str, Any]:
        if (case, variant) not in made:
            how = VARIANTS[variant]
            made[case, variant] = run(case, how, tacit.LocalFleet(K, how.deterministic))
        return made[case, variant]

    return get


def test_every_recipe_is_here():
    assert set(tacit.RECIPES) <= {case.split(" ")[0] for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "layout"), [(name, layout) for name, v in VARIANTS.items() for layout in v.layouts]
)
@pytest.mark.parametrize("case", CASES)
def test_same_run_in_every_layout(processes, local, case, variant, layout):
    ranks, _ = LAYOUTS[layout]
    expected = local(case, variant)
    parts = [processes[rank][layout, variant, case] for rank in ranks]
    exact = VARIANTS[variant].deterministic
    tolerance = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-4, "atol": 1e-5}

    for part in parts:
        assert part["fired"] == expected["fired"]
        assert part["conversations"] == expected["conversations"]
        assert part["ledger"].keys() == expected["ledger"].keys()
        for column, values in part["ledger"].items():
            assert values.tolist() == expected["ledger"][column].tolist(), column
        assert part["accuracy"] == expected["accuracy"]
        assert part["losses"] == pytest.approx(expected["losses"], rel=1e-4)
        _assert_estimates(part["estimates"], expected["estimates"], exact)
        torch.testing.assert_close(part["reference"], expected["reference"], **tolerance)
    for name, rows in expected["rows"].items():
        together = torch.cat([part["rows"][name] for part in parts])
        torch.testing.assert_close(together, rows, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
    counters = [counter for part in parts for counter in part["counters"]]
    assert counters == expected["counters"]


def _assert_estimates(got, expected, exact):
    assert [value is None for value in got] == [value is None for value in expected]
    pairs = [(a, b) for a, b in zip(got, expected, strict=True) if a is not None]
    for a, b in pairs:
        assert a == b if exact else a == pytest.approx(b, rel=1e-3, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dynamic_averaging", "dynamic_averaging nearest"])
def test_some_balancing_is_partial_and_some_is_not(local, case):
    whole = {whole for variant in VARIANTS for *_, whole in local(case, variant)["conversations"]}
    assert whole == {False, True}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["mlp", "conv"])
@pytest.mark.parametrize("case", VARIABLE)
def test_the_thresholds_are_neither_always_nor_never_crossed(local, case, variant):
    """Else the layouts would agree on their decisions for want of any."""
    result = local(case, variant)
    assert result["fired"]
    assert len(result["fired"]) < len(result["estimates"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fda average", "local_sgd"])
def test_the_convolution_has_buffers_that_travel(local, case):
    rows = local(case, "conv")["rows"]["buffers"]
    assert rows.shape == (K, 6)
    reset = rows - torch.tensor([0.0] * 3 + [1.0] * 3)
    assert (reset.abs() > 1e-3).any(dim=0).all()  # batch norm has moved every statistic
