"""The identities of Deep Gradient Compression, in float32: to rounding, unless they are exact."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tacit
from helpers.rig import Rig, Rows, noise, sgd
from tacit.compressors import Arrived, PerTensor, RandomK, TopK
from tacit.errors import UserError
from tacit.fleet import LocalFleet
from tacit.memory import VelocityMemory
from tacit.schedule import Densities
from tacit.setting import Setting

D, STEPS = 60, 30
SHAPES = ((5, 8), (4,), (4, 4))
FIRST = noise(D, seed=1)
plain_and_nesterov = pytest.mark.parametrize("nesterov", [False, True])


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)


def rig(workers: int, density: float, values: str = "fp32", **options: Any) -> Rig:
    """Of one vector; through a coordinator, where messages may be as long as they like."""
    memory = VelocityMemory(exempt=False, **options)
    compressor = TopK(density=density, values=values)
    return Rig(memory, compressor, FIRST, workers, download="identity")


# -- 1: the dense way


@plain_and_nesterov
@pytest.mark.parametrize("workers", [1, 3])
def test_dense_is_torchs_sgd_with_momentum_and_weight_decay(workers, nesterov):
    gradients = noise(STEPS, workers, D)
    memory = VelocityMemory(0.9, nesterov, weight_decay=0.05)
    run = Rig(memory, TopK(density=1.0), FIRST, workers, densities=Densities(1.0), shapes=SHAPES)
    expected = sgd(FIRST, gradients.mean(1), momentum=0.9, nesterov=nesterov, weight_decay=0.05)
    close(run.run(gradients, STEPS), expected)
    assert not memory.rows()["unsent"].any()


@plain_and_nesterov
def test_the_recipe_at_density_1_is_torchs_sgd(nesterov):
    exchange = tacit.dgc(1.0, 0.8, nesterov, weight_decay=0.02).gradients
    run = Rig(exchange.compression.memory, TopK(density=1.0), FIRST, densities=Densities(1.0))
    gradients = noise(STEPS, 1, D)
    options = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.02}
    close(run.run(gradients, STEPS), sgd(FIRST, gradients[:, 0], **options))


def test_without_momentum_weight_decay_stays():
    run = Rig(VelocityMemory(0.0, weight_decay=0.3), TopK(density=0.1), FIRST, 2)
    gradients = torch.zeros(STEPS, 2, D)
    close(run.run(gradients, STEPS), sgd(FIRST, gradients[:, 0], weight_decay=0.3))


def test_weight_decay_is_never_delayed():
    """It reaches entries that are never sent."""
    gradients = torch.zeros(STEPS, 2, D)
    gradients[:, :, 0] = 1
    run = Rig(VelocityMemory(0.9, weight_decay=0.1), TopK(k=1), FIRST, 2)
    expected = sgd(FIRST, gradients[:, 0], momentum=0.9, weight_decay=0.1)
    close(run.run(gradients, STEPS)[1:], expected[1:])


# -- 2: what is not sent yet


@settings(max_examples=25, deadline=None)
@given(
    workers=st.integers(1, 5),
    density=st.sampled_from([0.02, 0.05, 0.3, 1.0]),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    values=st.sampled_from(["fp32", "int8", "int4", "sign"]),
    seed=st.integers(0, 5),
)
def test_without_masking_what_is_missing_is_unsent(
    workers, density, momentum, nesterov, values, seed
):
    """w - lr mean(v) is momentum SGD's on the mean gradients, whatever was sent and rounded."""
    nesterov = nesterov and momentum > 0
    gradients = noise(20, workers, D, seed=seed)
    run = rig(workers, density, values, momentum=momentum, nesterov=nesterov, masking=False)
    model = run.run(gradients, 20)
    unsent = run.memory.rows()["unsent"].mean(0)
    expected = sgd(FIRST, gradients.mean(1), momentum=momentum, nesterov=nesterov)
    torch.testing.assert_close(model - 0.1 * unsent, expected, rtol=1e-4, atol=1e-4)


# -- 3 and 4: everything is sent


@plain_and_nesterov
@pytest.mark.parametrize("workers", [1, 3])
def test_with_masking_what_is_always_sent_has_no_momentum(workers, nesterov):
    gradients = noise(STEPS, workers, D)
    model = rig(workers, 1.0, momentum=0.9, nesterov=nesterov).run(gradients, STEPS)
    factor = 1.9 if nesterov else 1.0
    close(model, sgd(FIRST, gradients.mean(1), lr=0.1 * factor))


@plain_and_nesterov
def test_without_masking_what_is_always_sent_is_momentum_sgd(nesterov):
    gradients = noise(STEPS, 3, D)
    run = rig(3, 1.0, momentum=0.9, nesterov=nesterov, masking=False)
    close(run.run(gradients, STEPS), sgd(FIRST, gradients.mean(1), momentum=0.9, nesterov=nesterov))


# -- 5: mass


class Watched(VelocityMemory):
    """Adds up what goes into the memory and what leaves it, in double precision."""

    def start(self, fleet: LocalFleet, models: Rows, setting: Setting) -> None:
        super().start(fleet, models, setting)
        self.came, self.left = self._zeros().double(), self._zeros().double()

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        out = super().outgoing(row, vector)
        self.came[row] += self._velocity[row].double() + (vector if self.nesterov else 0.0)
        return out

    def sent(self, row: int, outgoing: Tensor, arrived: Arrived | None) -> None:
        assert arrived is not None
        arrived.add_to(self.left[row])
        super().sent(row, outgoing, arrived)


@plain_and_nesterov
@pytest.mark.parametrize("masking", [False, True])
@pytest.mark.parametrize("values", ["fp32", "int8", "sign"])
def test_mass_is_conserved(masking, nesterov, values):
    """Of every entry: all that was ever sent, and the memory, is the sum of the velocities."""
    memory = Watched(0.9, nesterov, masking, exempt=False)
    run = Rig(memory, TopK(density=0.1, values=values), FIRST, 2)
    run.run(noise(40, 2, D), 40)
    assert run.compression.given_up == 0
    assert (memory.left != 0).float().mean() > 0.9  # nearly every entry was sent at some time
    left = memory.left + memory.rows()["unsent"]
    # 40 roundings of each of two sums, of numbers below 64
    assert float((left - memory.came).abs().max()) <= 80 * 64 * 2.0**-24


def test_what_arrives_whole_leaves_nothing():
    memory = VelocityMemory(exempt=False)
    run = Rig(memory, TopK(k=3), FIRST, 2)
    run.run(noise(10, 2, D), 10)
    for row in range(2):
        assert ((memory.rows()["unsent"][row] == 0) == (memory.rows()["velocity"][row] == 0)).all()
        assert int((memory.rows()["unsent"][row] == 0).sum()) == 3


def test_what_quantisation_lost_stays():
    memory = VelocityMemory(0.0, exempt=False)
    run = Rig(memory, TopK(k=4, values="int8"), FIRST, 2)
    gradients = noise(1, 2, D)
    direction = run.step(gradients[0])
    unsent = memory.rows()["unsent"]
    assert (unsent != 0).sum() > 2 * (D - 4)  # not zero where entries were sent, but for luck
    close(direction + unsent.mean(0), gradients[0].mean(0))
    scale = gradients[0].abs().max()
    assert 0 < float(unsent.masked_fill(gradients[0] == unsent, 0).abs().max()) < scale / 127


# -- 6 and 7: several workers


def test_two_workers_that_send_the_same_entry_are_averaged():
    run = Rig(VelocityMemory(), TopK(k=1), torch.zeros(40), 2)
    gradients = torch.zeros(2, 40)
    gradients[0, 7], gradients[1, 7] = 1.0, 4.0
    expected = torch.zeros(40)
    expected[7] = 2.5
    assert torch.equal(run.step(gradients), expected)


@pytest.mark.parametrize(
    ("compressor", "download", "densities"),
    [
        (TopK(density=0.1), None, None),  # gathered
        (RandomK(density=0.1), None, None),  # added up
        (TopK(density=0.1), None, Densities(1.0)),  # dense
        (TopK(density=1.0), "identity", None),  # through a coordinator
    ],
)
def test_identical_workers_are_one(compressor, download, densities):
    gradients = noise(20, 1, D).expand(-1, 4, -1)
    models = []
    for workers in (1, 4):
        run = Rig(VelocityMemory(), compressor, FIRST, workers, 0.1, download, densities)
        models.append(run.run(gradients[:, :workers], 20))
        assert run.compression.given_up == 0
    close(*models)


# -- 8: clipping


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_a_huge_threshold_changes_nothing(scope):
    gradients = noise(10, 4, D)
    models = [
        Rig(VelocityMemory(clip=c, clip_scope=scope), TopK(k=4), FIRST, 4, shapes=SHAPES).run(
            gradients, 10
        )
        for c in (None, 1e9)
    ]
    assert torch.equal(*models)


@pytest.mark.parametrize(("power", "local"), [(-0.5, 1.0), (0.0, 2.0), (0.5, 4.0)])
def test_the_local_threshold_of_four_workers(power, local):
    """By the published power, half the global one."""
    memory = VelocityMemory(0.0, clip=2.0, clip_power=power)
    run = Rig(memory, TopK(k=4), FIRST, 4)
    gradients = noise(4, D)
    gradients[3] *= 0.01 / gradients[3].norm()
    run.step(gradients)
    arrived = memory.rows()["velocity"]  # is empty only where something was sent
    sizes = gradients.norm(dim=1)
    assert float(sizes[:3].min()) > 4
    for row in range(4):
        kept = arrived[row] != 0
        scale = min(1.0, local / float(sizes[row]))
        torch.testing.assert_close(arrived[row][kept], scale * gradients[row][kept])


def test_the_norm_of_each_tensor():
    memory = VelocityMemory(0.0, clip=1.0, clip_scope="tensor", exempt=False, masking=False)
    run = Rig(memory, TopK(k=4), FIRST, 1, shapes=SHAPES)
    gradient = noise(1, D)
    gradient[0, 44:] *= 1e-3
    run.step(gradient)
    norms = [float(p.norm()) for p in memory.rows()["velocity"][0].split([40, 4, 16])]
    assert norms[:2] == pytest.approx([1.0, 1.0])
    assert norms[2] == pytest.approx(float(gradient[0, 44:].norm()))


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("factor", [1e-30, 1e20, 1e37])
def test_a_gradient_whose_squares_overflow_is_clipped_and_not_dropped(scope, factor):
    """The largest norm in float32 is of squares below 3e38."""
    memory = VelocityMemory(0.0, clip=1e-3 * factor, clip_scope=scope, exempt=False, masking=False)
    run = Rig(memory, TopK(k=4), FIRST, 1, shapes=SHAPES)
    gradient = noise(1, D) * factor
    run.step(gradient)
    sizes = [40, 4, 16] if scope == "tensor" else [D]
    for got, whole in zip(
        memory.rows()["velocity"][0].split(sizes), gradient[0].split(sizes), strict=True
    ):
        expected = whole.double() * (1e-3 * factor / whole.double().norm())
        assert float(got.abs().max()) > 0
        torch.testing.assert_close(got.double() / factor, expected / factor, rtol=1e-5, atol=0)


@plain_and_nesterov
@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_clipping_is_scaling_before_everything_else(scope, nesterov):
    gradients = noise(STEPS, 2, D) * torch.linspace(0.1, 3, STEPS)[:, None, None]
    sizes = [40, 4, 16] if scope == "tensor" else [D]
    by_hand = gradients.clone()
    for part in by_hand.split(sizes, dim=2):
        part.mul_((2.0 / part.norm(dim=2, keepdim=True)).clamp_max(1.0))
    runs = []
    for clip, vectors in ((2.0, gradients), (None, by_hand)):
        memory = VelocityMemory(
            0.9, nesterov, clip=clip, clip_power=0.0, clip_scope=scope, exempt=False, masking=False
        )
        run = Rig(memory, TopK(density=1.0), FIRST, 2, download="identity", shapes=SHAPES)
        runs.append(run.run(vectors, STEPS))
    assert (by_hand != gradients).any()
    close(*runs)


@pytest.mark.parametrize("power", [1e9, -1e9, 600.0])
def test_a_threshold_that_no_number_is(power):
    with pytest.raises(UserError, match=r"clip_power = .* of 4 workers makes a norm of"):
        Rig(VelocityMemory(clip=1.0, clip_power=power), TopK(k=4), FIRST, 4)
    Rig(VelocityMemory(clip=1.0, clip_power=power), TopK(k=4), FIRST, 1)


# -- 10: what is sent


def test_exactly_so_many_entries_of_each_tensor_and_the_small_ones_whole():
    run = Rig(VelocityMemory(), PerTensor(TopK(density=0.1)), torch.zeros(D), shapes=SHAPES)
    counts = [(d != 0).sum() for d in run.step(noise(1, D)).split([40, 4, 16])]
    assert counts == [4, 4, 2]


@pytest.mark.parametrize("name", ["topk(density=0.05)", "sampled_topk(density=0.05)"])
def test_gradients_of_zeros(name):
    run = Rig(VelocityMemory(clip=1.0, nesterov=True), name, FIRST, 2)
    assert torch.equal(run.run(torch.zeros(5, 2, D), 5), FIRST)


@plain_and_nesterov
def test_small_tensors_are_momentum_sgds(nesterov):
    """They travel whole, so masking must not stop them."""
    gradients = noise(STEPS, 3, D)
    memory = VelocityMemory(0.9, nesterov, weight_decay=0.01)
    run = Rig(memory, PerTensor(TopK(density=0.1)), FIRST, 3, shapes=SHAPES)
    expected = sgd(FIRST, gradients.mean(1), momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    got = run.run(gradients, STEPS)
    close(got[40:44], expected[40:44])
    assert (got[:40] - expected[:40]).abs().max() > 0.1
    assert run.compression.given_up == 0


def test_a_dense_warm_up_keeps_the_velocity():
    memory = VelocityMemory(exempt=False)
    densities = Densities(0.05, [1.0])
    run = Rig(memory, TopK(density=0.05), FIRST, 2, densities=densities, steps_per_epoch=5.0)
    gradients = noise(6, 2, D)
    close(run.run(gradients, 5), sgd(FIRST, gradients[:5].mean(1), momentum=0.9))
    before = memory.rows()["velocity"].clone()
    run.step(gradients[5])
    velocity = memory.rows()["velocity"]
    assert ((velocity == 0).sum(1) == 3).all()
    kept = velocity != 0
    torch.testing.assert_close(velocity[kept], (0.9 * before + gradients[5])[kept])


# -- what does not go


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "set the optimizer's to 0"),
        (torch.optim.Adam, "Adam has moments of its own"),
        (torch.optim.AdamW, "AdamW has moments of its own"),
    ],
)
def test_an_optimizer_with_momentum_is_refused(optimizer, message):
    with pytest.raises(UserError, match=message):
        tacit.dgc().gradients.check(optimizer([torch.zeros(3)]))
    tacit.ef21().gradients.check(optimizer([torch.zeros(3)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum must be in"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs"),
        ({"clip": 0.0}, "above 0"),
        ({"clip": math.inf}, "above 0"),
        ({"momentum": True}, "momentum must be in .* not True"),
        ({"momentum": "0.9"}, "momentum must be in .* not '0.9'"),
        ({"momentum": math.nan}, "momentum must be in"),
        ({"clip": True}, "above 0 and finite, not True"),
        ({"clip": "x"}, "above 0 and finite, not 'x'"),
        ({"clip": 1.0, "clip_power": math.nan}, "clip_power must be a finite number, not nan"),
        ({"clip_power": math.inf}, "clip_power must be a finite number"),
        ({"clip_power": "x"}, "clip_power must be a finite number, not 'x'"),
        ({"weight_decay": "x"}, "weight_decay must be 0 or more and finite, not 'x'"),
        ({"clip_scope": "row"}, "not 'row'"),
        ({"weight_decay": -1.0}, "0 or more"),
    ],
)
def test_impossible_memories(options, message):
    with pytest.raises(UserError, match=message):
        VelocityMemory(**options)
