"""How compressed vectors travel: gathered, added up, through a coordinator, or dense after all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import tacit
from helpers.rig import Rig, equal, noise
from helpers.tasks import conv_task, mlp_task
from tacit.aggregators import Aggregator, Mean, WeightedMean
from tacit.averaging import ModelAveraging
from tacit.compression import Compression
from tacit.compressors import Identity, PerTensor, RandomK, TopK, compressor
from tacit.errors import PeerError, TrainingDiverged, UserError
from tacit.fleet import LocalFleet
from tacit.memory import EF21, ErrorFeedback, Memory, VelocityMemory
from tacit.schedule import Densities
from tacit.setting import Setting
from tacit.topologies import Balancing, Sampled
from tacit.triggers import Every

D, K = 80, 4
FIRST = noise(D, seed=1)
MEMORIES = [Memory, ErrorFeedback, lambda: VelocityMemory(exempt=False), EF21]


class Median(Aggregator):
    """No mean: it needs everybody's row. Remembers how many it has had."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        del weights
        self.seen.append(len(rows))
        return rows.median(dim=0).values


def name(worker: int, step: int = 1) -> tuple[str | int, ...]:
    return ("worker", worker, "gradient", "step", step)


def gathered(compressor: RandomK | Identity) -> RandomK | Identity:
    """It says of itself that its messages cannot be added up."""
    compressor.reducible = False
    return compressor


# -- messages that can be added


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(
    "make", [lambda: RandomK(density=0.1), lambda: RandomK(density=0.2, scaled=True)]
)
def test_messages_are_added_up_as_if_they_had_been_decoded(memory, make):
    gradients = noise(10, K, D)
    added = Rig(memory(), make(), FIRST, K)
    one_by_one = Rig(memory(), gathered(make()), FIRST, K)
    for gradient in gradients:
        torch.testing.assert_close(added.step(gradient), one_by_one.step(gradient))
    for name_, rows in added.memory.rows().items():
        torch.testing.assert_close(rows, one_by_one.memory.rows()[name_])
    operations = {e.operation for e in added.fleet.ledger if e.kind == "gradient"}
    assert operations == {"reduce"}
    assert one_by_one.compression.given_up == 0


@pytest.mark.parametrize("memory", MEMORIES)
def test_identity_is_no_compression(memory):
    """Added up, gathered, and through a coordinator."""
    gradients = noise(10, K, D)
    ways = [
        Rig(memory(), Identity(), FIRST, K),
        Rig(memory(), Identity(), FIRST, K, download="identity"),
        Rig(memory(), gathered(Identity()), FIRST, 1),
        Rig(memory(), gathered(Identity()), FIRST, 1, download="identity"),
    ]
    for gradient in gradients:
        found = [run.step(gradient[: len(run.present)]) for run in ways]
        torch.testing.assert_close(*found[:2])
        torch.testing.assert_close(*found[2:])
        if memory is not MEMORIES[2]:  # DGC's masking drops the momentum of all that is sent
            torch.testing.assert_close(found[0], gradient.mean(0), rtol=1e-4, atol=1e-5)
    assert not any(run.compression.given_up for run in ways)


def test_what_is_added_up_costs_its_numbers_and_nothing_else():
    run = Rig(None, RandomK(density=0.1), FIRST, K)
    run.step(noise(K, D))
    ledger = run.fleet.ledger
    assert [(e.kind, e.operation, e.payload) for e in ledger] == [("gradient", "reduce", 4 * 8)]
    assert ledger.sent().tolist() == ledger.received().tolist() == [32] * K


def test_some_of_the_workers():
    """The mean is theirs, of every way."""
    gradients = noise(5, K, D)
    for by in (RandomK(k=8), gathered(RandomK(k=8)), TopK(k=8)):
        for download in (None, "identity"):
            run = Rig(None, by, FIRST, K, download=download)
            run.present = torch.tensor([True, False, False, True])
            for step, gradient in enumerate(gradients, 1):
                arrived = [there_and_back(by, gradient[k], k, step) for k in (0, 3)]
                gradient[1:3] = torch.nan
                torch.testing.assert_close(run.step(gradient), sum(arrived) / 2)
            assert run.fleet.ledger.sent("gradient")[1:3].tolist() == [0, 0]


def there_and_back(compressor, vector: Tensor, worker: int, step: int) -> Tensor:
    message = compressor.encode(vector, *name(worker, step))
    return compressor.decode(message, D, "bob", *name(worker, step))


# -- what is charged


@pytest.mark.parametrize("by", ["topk(k=4)", "sign", "qsgd", "topk(density=0.1,values=int8)"])
def test_messages_cost_their_lengths(by):
    gradients = noise(K, D)
    made = compressor(by)
    made.start(Setting(K, D, seed=9))
    messages = [made.encode(gradients[k], *name(k)) for k in range(K)]
    lengths = [len(message) for message in messages]

    run = Rig(None, by, FIRST, K, seed=9)
    direction = run.step(gradients)
    ledger = run.fleet.ledger
    assert ledger.sent("gradient").tolist() == lengths
    assert ledger.received("gradient").tolist() == [sum(lengths) - own for own in lengths]
    assert ledger.sent("control").tolist() == [8] * K  # the lengths

    back = Rig(None, by, FIRST, K, download=by, seed=9)
    arrived = sum(made.decode(m, D, "bob", *name(k)) for k, m in enumerate(messages)) / K
    torch.testing.assert_close(direction, arrived)
    answer = made.encode(arrived, "coordinator", "gradient", "step", 1)
    back.step(gradients)
    ledger = back.fleet.ledger
    assert ledger.sent("gradient").tolist() == lengths
    assert ledger.received("gradient").tolist() == [len(answer)] * K
    assert [e.operation for e in ledger if e.kind == "gradient"] == ["collect", "download"]


def test_what_a_worker_receives_through_a_coordinator_does_not_grow_with_their_number():
    received = []
    for workers in (2, 16):
        run = Rig(None, "topk(k=4)", FIRST, workers, download="topk(k=4)")
        run.run(noise(3, workers, D), 3)
        received.append(int(run.fleet.ledger.received("gradient").max()))
    assert abs(received[0] - received[1]) < 10


# -- messages that would be longer than the vectors


@pytest.mark.parametrize("memory", MEMORIES)
def test_longer_messages_are_not_sent(memory):
    gradients = noise(6, K, D)
    dense = Rig(memory(), "topk(density=0.9)", FIRST, K, densities=Densities(1.0))
    run = Rig(memory(), "topk(density=0.9)", FIRST, K)
    whole_before = run.memory.whole
    with pytest.warns(UserWarning, match=f"messages of {K} workers are longer") as caught:
        found = [run.step(gradient) for gradient in gradients]
    assert len(caught) == 1
    for direction, gradient in zip(found, gradients, strict=True):
        assert torch.equal(direction, dense.step(gradient))
    assert run.compression.given_up == 6 - whole_before
    for kept, expected in zip(
        run.memory.rows().values(), dense.memory.rows().values(), strict=True
    ):
        assert torch.equal(kept, expected)
    ledger = run.fleet.ledger
    assert ledger.sent("gradient").tolist() == [6 * 4 * D] * K
    assert ledger.sent("control").tolist() == [8 * (6 - whole_before)] * K


def test_the_limit_is_two_vectors():
    """Of four workers, half a vector each: with what is around it a little more, and too much."""
    for density, given_up in ((0.35, 0), (0.5, 1)):
        run = Rig(None, TopK(density=density), noise(400), K)
        gradients = noise(K, 400)
        longest = max(len(run.compression.compressor.encode(g, *name(0))) for g in gradients)
        assert (K * longest > 2 * 4 * 400) == bool(given_up)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.step(gradients)
        assert run.compression.given_up == given_up


def test_giving_up_is_counted_across_a_checkpoint_and_said_again_in_a_new_run():
    run = Rig(None, "topk(density=0.9)", FIRST, K)
    with pytest.warns(UserWarning, match="longer"):
        run.run(noise(2, K, D), 2)
    other = Rig(None, "topk(density=0.9)", FIRST, K)
    other.load(*run.states())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.step(noise(K, D))
    assert other.compression.given_up == 3


# -- weights, and what is no mean


@pytest.mark.parametrize("download", [None, "identity"])
@pytest.mark.parametrize("by", [TopK(k=8), RandomK(k=8), TopK(density=0.9)])
def test_weights_count(by, download):
    samples = torch.tensor([1, 2, 3, 10])
    gradients = noise(K, D)
    run = Rig(None, by, FIRST, K, download=download, aggregator=WeightedMean(), samples=samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direction = run.step(gradients)
    arrived = torch.stack([there_and_back(by, gradients[k], k, 1) for k in range(K)])
    vectors = gradients if run.compression.given_up else arrived
    torch.testing.assert_close(direction, (samples / 16) @ vectors)


def test_weights_of_some_of_the_workers():
    samples = torch.tensor([1, 2, 3, 10])
    gradients = noise(K, D)
    for memory, total in ((Memory(), 3), (EF21(start="zero"), 16)):
        run = Rig(memory, TopK(k=8), FIRST, K, aggregator=WeightedMean(), samples=samples)
        run.present = torch.tensor([True, True, False, False])
        arrived = [there_and_back(TopK(k=8), gradients[k], k, 1) for k in (0, 1)]
        expected = (arrived[0] + 2 * arrived[1]) / total  # EF21's absent workers stay at zero
        torch.testing.assert_close(run.step(gradients), expected)


@pytest.mark.parametrize("by", [TopK(k=8), RandomK(k=8)])
@pytest.mark.parametrize("download", [None, "identity"])
def test_what_is_no_mean_gets_every_row(by, download):
    gradients = noise(K, D)
    median = Median()
    run = Rig(None, by, FIRST, K, download=download, aggregator=median)
    arrived = torch.stack([there_and_back(by, gradients[k], k, 1) for k in range(K)])
    torch.testing.assert_close(run.step(gradients), arrived.median(dim=0).values)
    assert median.seen == [K]
    run.present = torch.tensor([True, True, False, True])
    run.step(gradients)
    assert median.seen == [K, 3]


def test_what_is_no_mean_would_gather_dense_vectors_too():
    """So its messages are worth sending up to the length of all vectors."""
    gradients = noise(12, D)
    run = Rig(None, "uniform", FIRST, 12, aggregator=Median())
    run.step(gradients)
    sent = run.fleet.ledger.sent("gradient")
    assert sent.sum() > 2 * 4 * D
    assert (sent < 4 * D / 3).all()
    assert run.compression.given_up == 0
    run = Rig(None, "topk(density=1.0)", FIRST, 12, aggregator=Median())
    with pytest.warns(UserWarning, match="longer"):
        direction = run.step(gradients)
    assert torch.equal(direction, gradients.median(dim=0).values)


# -- warm-up


def test_a_warm_up_sends_whole_vectors_then_more_and_then_few():
    densities = Densities(0.05, [1.0, 0.2])
    run = Rig(None, "topk(density=0.05)", FIRST, K, densities=densities, steps_per_epoch=2.0)
    directions = [run.step(noise(K, D, seed=1)) for _ in range(6)]
    torch.testing.assert_close(directions[1], noise(K, D, seed=1).mean(0))
    lengths = [e.payload for e in run.fleet.ledger if e.kind == "gradient"]
    assert lengths[:2] == [4 * D] * 2
    assert [e.operation for e in run.fleet.ledger if e.kind == "gradient"] == ["reduce"] * 2 + [
        "gather"
    ] * 4
    assert 16 * 4 * K < lengths[2] == lengths[3] < 16 * 6 * K
    assert 4 * 4 * K < lengths[4] == lengths[5] < 4 * 8 * K


def test_a_second_run_begins_with_the_first_density():
    recipe = tacit.dgc(density=0.1, warmup="0.3/0.2", lr=0.1)
    runs = []
    for _ in range(2):
        simulation = tacit.Simulation(mlp_task(), recipe, LocalFleet(3), seed=1)
        for _ in range(12):
            simulation.step()
        runs.append((simulation.replicas.parameters.clone(), simulation.fleet.ledger.bytes()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


# -- what goes wrong


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("download", [None, "topk(k=4)"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_worker_that_diverges_is_named(memory, download, bad):
    run = Rig(memory(), "topk(k=4)", FIRST, K, download=download)
    gradients = noise(3, K, D)
    run.run(gradients, 2)
    gradients[2, 2, 17] = bad
    with pytest.raises(TrainingDiverged, match=r"worker 2 .* not finite at step 3"):
        run.step(gradients[2])


def test_what_cannot_be_written_stops_everybody_with_its_reason():
    run = Rig(None, "natural", FIRST, K)
    gradients = noise(K, D)
    gradients[1, 5] = 3e38  # its power of two is no float32
    with pytest.raises(UserError, match=r"worker 1 at step 1: .*Natural") as caught:
        run.step(gradients)
    assert not isinstance(caught.value, TrainingDiverged)


def test_divergence_is_seen_at_once_where_nobody_decodes():
    run = Rig(ErrorFeedback(), "randomk(k=2)", FIRST, K)
    gradients = noise(K, D)
    gradients[1] = torch.where(torch.arange(D) < D - 1, gradients[1], torch.nan)
    with pytest.raises(TrainingDiverged, match="not finite at step 1"):
        run.step(gradients)


@pytest.mark.parametrize("other", [EF21, VelocityMemory, Memory])
def test_a_state_of_another_memory_is_refused(other):
    saved, run = Rig(ErrorFeedback(), "topk(k=4)", FIRST, K), Rig(other(), "topk(k=4)", FIRST, K)
    saved.run(noise(3, K, D), 3)
    before = run.states()
    with pytest.raises(UserError, match="of another recipe, or of other options"):
        run.load(*saved.states())
    assert equal(run.states(), before)


class Faulty(LocalFleet):
    """Worker 2's messages arrive damaged."""

    def __init__(self, size: int, damage: str) -> None:
        super().__init__(size)
        self.damage = damage

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        out = super()._gather_bytes(messages, lengths)
        if self.damage == "a bit":
            out[2] = out[2][:-1] + bytes([out[2][-1] ^ 1])
        elif self.damage == "another worker's vector":
            out[2] = RandomK(k=3).encode(torch.ones(D), *name(2, 5))
        elif self.damage == "of another compressor":
            out[2] = Identity().encode(torch.ones(D))
        else:
            out[2] = out[2][:5]
        return out


@pytest.mark.parametrize("download", [None, "topk(k=4)"])
@pytest.mark.parametrize(
    ("by", "damage"),
    [
        (TopK(k=4), "a bit"),
        (TopK(k=4), "cut"),
        (TopK(k=4), "of another compressor"),
        (gathered(RandomK(k=3)), "another worker's vector"),
        (PerTensor(TopK(k=4)), "a bit"),
    ],
)
def test_a_damaged_message_names_its_sender(by, damage, download):
    fleet = Faulty(K, damage)
    run = Rig(None, by, FIRST, K, download=download, fleet=fleet, shapes=((8, 10),))
    with pytest.raises(PeerError, match="worker 2"):
        run.step(noise(K, D))


# -- models


def averaging(**options) -> ModelAveraging:
    return ModelAveraging(Every(2), compression=Compression(TopK(k=4), ErrorFeedback()), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1}, "do not go with overlap"),
        ({"topology": Balancing()}, "a coordinator that asks for single models"),
    ],
)
def test_what_compressed_models_do_not_go_with(options, message):
    with pytest.raises(UserError, match=message):
        averaging(**options)


def test_download_needs_a_compressor():
    with pytest.raises(UserError, match="download needs a compressor too"):
        tacit.local_sgd(2, download="sign")


def test_buffers_and_moments_travel_dense_beside_compressed_models():
    recipe = tacit.fda(0.0, compressor="topk(k=4)", buffers="average", optimizer_state="average")
    simulation = tacit.Simulation(conv_task(), recipe, LocalFleet(3), seed=1)
    for _ in range(2):
        assert simulation.step()
    sizes = [(e.operation, e.payload) for e in simulation.fleet.ledger if e.kind == "model"]
    d, buffers = simulation.replicas.d, simulation.replicas.buffers.shape[1]
    assert sizes[0][0] == "gather"
    assert sizes[0][1] < 4 * d
    assert sizes[1:4] == [("reduce", 4 * buffers), ("reduce", 4 * d), ("reduce", 4 * d)]


def test_models_of_sampled_workers():
    """Those who rest send nothing, and all go on from the same model."""
    simulation = tacit.Simulation(
        mlp_task(),
        tacit.Recipe("x", averaging=averaging(topology=Sampled(0.5))),
        LocalFleet(4),
        seed=1,
    )
    for _ in range(8):
        simulation.step()
    parameters = simulation.replicas.parameters
    assert torch.equal(parameters[0], parameters[3])
    lengths = simulation.fleet.ledger.sent("model")
    assert 4 * 2 * 4 * 4 < lengths.sum() < 4 * 2 * 60  # 4 rounds of two workers with 4 entries


def test_compressed_models_survive_a_checkpoint():
    """Error feedback, and the coordinator's, to the bit."""

    def simulation() -> tacit.Simulation:
        recipe = tacit.local_sgd(2, compressor="topk(k=4)", download="topk(k=6)")
        return tacit.Simulation(mlp_task(), recipe, LocalFleet(3), seed=1)

    whole, first, second = simulation(), simulation(), simulation()
    for _ in range(9):
        whole.step()
    for _ in range(5):
        first.step()
    second.load_state(first.shared_state(), {w: first.worker_state(w) for w in range(3)})
    for _ in range(4):
        second.step()
    assert torch.equal(second.replicas.parameters, whole.replicas.parameters)


def test_a_mean_is_the_default_and_the_memory_is_none():
    run = Rig(None, "topk(k=4)", FIRST)
    assert type(run.memory) is Memory
    assert type(run.exchange.aggregator) is Mean
