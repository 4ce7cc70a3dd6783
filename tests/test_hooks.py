"""Deep Gradient Compression as DDP's communication hook."""

from __future__ import annotations

import copy
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import hooked
from helpers.spawn import run_processes
from tacit.errors import UserError
from tacit.hooks import DGCState, dgc_hook

STEPS = 10
#: Of the hook, and of the recipe where they are called otherwise.
CASES = [
    ({"density": 0.1}, {"density": 0.1}),
    (
        {"density": 0.1, "nesterov": True, "masking": False, "clip": 0.5},
        {
            "density": 0.1,
            "nesterov": True,
            "masking": False,
            "clip": 0.5,
            "clip_scope": "tensor",
        },
    ),
    ({"density": 0.05, "warmup_steps": 6}, {"density": 0.05, "warmup": 2}),
    (
        {"density": 0.1, "warmup_steps": 3, "warmup": [1.0], "values": "int8", "dense": "fp16"},
        {"density": 0.1, "warmup": "1.0", "values": "int8", "dense": "fp16"},
    ),
]
SHAPES = [(6, 8), (9,), (10, 7), (4, 3, 5), (1,), (50, 2)]


# -- with DDP, in processes


def test_the_hook_does_what_the_recipe_does():
    ranks = run_processes(hooked.beside_the_recipe, 2, STEPS, CASES)
    for case, ((first, recipe), (second, _)) in enumerate(zip(*ranks, strict=True)):
        assert first["widths"] == second["widths"]
        assert len(first["widths"][0]) == 1
        assert len(first["widths"][1]) == 4  # DDP has made new ones
        for step in range(STEPS):
            assert torch.equal(first["models"][step], second["models"][step]), (case, step)
            torch.testing.assert_close(
                first["models"][step], recipe[step], rtol=1e-6, atol=1e-6, msg=f"{case}, {step}"
            )
        stats = first["stats"]
        assert (stats["steps"], stats["given_up"]) == (STEPS, 0)
        # two workers send and receive; dense would be four bytes an entry
        assert 0 < stats["bytes"]["gradient"] < 2 * 2 * 4 * 543 * STEPS / 2


@pytest.mark.parametrize("processes", [1, 2])
def test_at_density_1_it_is_sgd_with_momentum(processes):
    cases = [{"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}, {"momentum": 0.0}]
    for compared in run_processes(hooked.beside_sgd, processes, STEPS, cases):
        for hook, plain in compared:
            for ours, theirs in zip(hook["models"], plain, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
            assert not torch.equal(plain[0], plain[-1])


@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "as they come"])
def test_a_saved_run_goes_on_as_if_nothing_had_happened(numbered):
    options = {"density": 0.05, "warmup_steps": 6}
    results = run_processes(hooked.interrupted, 2, 4, STEPS, options, numbered)
    for worker, (undisturbed, resumed, saved) in enumerate(results):
        assert all(map(torch.equal, undisturbed, resumed))
        assert (saved["worker"], saved["step"]) == (worker, 4)
        assert list(saved["parameters"]) == [str(number) for number in range(8)]
    # the memories are each worker's own
    first, second = (result[2]["parameters"]["0"]["velocity"] for result in results)
    assert not torch.equal(first, second)


def test_a_gradient_that_is_not_finite_stops_all():
    for message in run_processes(hooked.overflowing, 2):
        assert message.startswith("TrainingDiverged: what worker 1 has to send is not finite")


def test_workers_with_different_arguments_are_refused():
    for message in run_processes(hooked.different, 2):
        assert re.match(r"PeerError: worker 1 cannot join: .*density = 0.2", message)


# -- alone, with buckets of our own


@dataclass
class Bucket:
    """What a hook sees of DDP's: some parameters, and their gradients in one vector."""

    tensors: list[Tensor]
    vector: Tensor
    last: bool

    def parameters(self) -> list[Tensor]:
        return self.tensors

    def buffer(self) -> Tensor:
        return self.vector

    def is_last(self) -> bool:
        return self.last


@pytest.fixture(scope="module", autouse=True)
def _group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tensors = torch.nn.ParameterList([torch.zeros(shape) for shape in SHAPES])


def gradients(step: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=draw).flatten() for shape in SHAPES]


def exchange(state: DGCState, model: Model, layout: list[list[int]], step: int) -> list[Tensor]:
    """What each parameter gets, by way of the buckets of ``layout``."""
    parameters, own = list(model.parameters()), gradients(step)
    out = [torch.empty(0)] * len(SHAPES)
    for place, numbers in enumerate(layout):
        vector = torch.cat([own[n] for n in numbers])
        tensors = [parameters[n] for n in numbers]
        bucket = Bucket(tensors, vector, place == len(layout) - 1)
        assert dgc_hook(state, bucket).wait() is vector
        pieces = torch.split(vector, [len(own[n]) for n in numbers])
        for number, piece in zip(numbers, pieces, strict=True):
            out[number] = piece
    return out


@st.composite
def layouts(draw) -> list[list[int]]:
    """The parameters in any order, cut anywhere."""
    order = draw(st.permutations(range(len(SHAPES))))
    cuts = sorted(draw(st.sets(st.integers(1, len(SHAPES) - 1))))
    return [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]


ONE = [list(range(len(SHAPES)))]


@settings(max_examples=25)
@given(st.lists(layouts(), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_buckets_do_not_matter(of_steps, masking, nesterov):
    """However they change: a memory belongs to its parameter."""
    model = Model()
    options = {"density": 0.1, "masking": masking, "nesterov": nesterov}
    straight, moved = DGCState(**options), DGCState(**options, model=model)
    for step, layout in enumerate(of_steps):
        expected = exchange(straight, model, ONE, step)
        assert all(map(torch.equal, expected, exchange(moved, model, layout, step)))
    assert straight.stats()["given_up"] == moved.stats()["given_up"] == 0
    assert straight.steps == moved.steps == len(of_steps)


@settings(max_examples=25)
@given(st.lists(layouts(), min_size=1, max_size=5), st.sampled_from(["fp32", "int4"]))
def test_nothing_is_lost(of_steps, values):
    """Without masking, what was sent and what was not come to what SGD's momentum has moved."""
    model = Model()
    state = DGCState(density=0.1, masking=False, values=values, model=model)
    velocity = [torch.zeros(shape).flatten() for shape in SHAPES]
    moved, sent = copy.deepcopy(velocity), copy.deepcopy(velocity)
    for step, layout in enumerate(of_steps):
        for number, piece in enumerate(exchange(state, model, layout, step)):
            velocity[number] = 0.9 * velocity[number] + gradients(step)[number]
            moved[number] += velocity[number]
            sent[number] += piece
    for number, memory in state.state_dict()["parameters"].items():
        torch.testing.assert_close(sent[int(number)] + memory["unsent"], moved[int(number)])


def test_a_state_survives_a_file_without_pickle():
    model = Model()
    state, fresh = (DGCState(density=0.1, model=model) for _ in range(2))
    exchange(state, model, [[5, 4, 3], [2, 1, 0]], 0)
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    again = state.state_dict()
    for number, memory in fresh.state_dict()["parameters"].items():
        assert memory["unsent"].any() or number in "14"  # what is small goes whole
        for name, tensor in memory.items():
            assert torch.equal(tensor, again["parameters"][number][name])
    # a state is a copy, and loading one replaces what was there
    exchange(fresh, model, ONE, 1)
    fresh.load_state_dict(again)
    assert all(map(torch.equal, exchange(fresh, model, ONE, 2), exchange(state, model, ONE, 2)))


def test_half_precision_gradients_are_accumulated_in_full():
    model = Model()
    states = [DGCState(density=0.1, model=model) for _ in range(2)]
    parameters = list(model.parameters())
    for step in range(3):
        own = torch.cat(gradients(step)).bfloat16()
        full = own.float()
        for state, vector in zip(states, (own, full), strict=True):
            dgc_hook(state, Bucket(parameters, vector, True))
        assert torch.equal(own, full.bfloat16())
    halved, whole = (state.state_dict()["parameters"] for state in states)
    assert all(torch.equal(halved[n]["unsent"], whole[n]["unsent"]) for n in whole)


# -- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0}, r"a density is in \(0, 1\]"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"momentum": 0, "nesterov": True}, "nesterov needs a momentum"),
        ({"clip": -1.0}, "clipped to a norm above 0"),
        ({"warmup_steps": 1.5}, "warmup_steps must be a whole number, at least 0"),
        ({"warmup": [0.5]}, "say in how many warmup_steps"),
        ({"warmup_steps": 4, "warmup": [2.0]}, r"a density is in \(0, 1\]"),
        ({"values": "int9"}, "unknown value code 'int9'"),
        ({"dense": "fp61"}, "unknown value code 'fp61'"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        DGCState(**options)


def test_the_optimizer_has_no_momentum_of_its_own():
    state, model = DGCState(), Model()
    state.check(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-4))
    for optimizer in (
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        torch.optim.Adam(model.parameters()),
    ):
        with pytest.raises(UserError, match=r"momentum|moments"):
            state.check(optimizer)


def test_a_hook_without_its_state():
    with pytest.raises(UserError, match="dgc_hook needs a state"):
        dgc_hook(None, Bucket([], torch.zeros(1), True))


def test_gradients_in_double_precision():
    bucket = Bucket([torch.zeros(2, 2)], torch.zeros(4, dtype=torch.float64), True)
    with pytest.raises(UserError, match=r"these gradients are torch\.float64"):
        dgc_hook(DGCState(), bucket)


def test_a_model_that_is_not_the_hooks():
    with pytest.raises(UserError, match="another model"):
        exchange(DGCState(model=Model()), Model(), ONE, 0)


def test_states_that_do_not_fit():
    model = Model()
    state = DGCState(model=model)
    exchange(state, model, ONE, 0)
    saved = state.state_dict()
    for change, message in [
        ({"workers": 3, "worker": 2}, "memories of worker 2 of 3, and this is worker 0 of 1"),
        ({"parameters": {"6": {}}}, "the state has a parameter 6"),
    ]:
        with pytest.raises(UserError, match=message):
            DGCState(model=model).load_state_dict({**saved, **change})
    with pytest.raises(UserError, match="no state of a DGCState; it has no 'parameters'"):
        state.load_state_dict({"workers": 1, "worker": 0, "step": 0})
    other = DGCState(model=model)
    parameters = saved["parameters"]
    other.load_state_dict({**saved, "parameters": {"0": parameters["1"]}})
    with pytest.raises(UserError, match=r"parameter 0 has 48 entries, in the state .* 9"):
        exchange(other, model, ONE, 1)


@pytest.mark.slow
def test_the_example():
    example = Path(__file__).parent.parent / "examples" / "ddp_dgc.py"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(example)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"^accuracy ([\d.]+)", done.stdout, re.MULTILINE)
    (less,) = re.findall(r"^([\d.]+) times fewer bytes", done.stdout, re.MULTILINE)
    assert float(accuracy) > 0.93
    assert float(less) > 10
