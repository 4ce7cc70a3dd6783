"""Compressed messages of workers that may send anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tacit
from helpers.rig import Rig, noise
from helpers.spawn import run_processes
from helpers.tasks import mlp_task
from tacit.aggregators import Mean, Median, TrimmedMean
from tacit.attacks import Liars
from tacit.compressors import Identity, TopK
from tacit.compressors import message as wire
from tacit.download import REFUSAL, longest
from tacit.errors import PeerError, TrainingDiverged, UserError
from tacit.fleet import AttendedFleet, LocalFleet
from tacit.memory import EF21, Averages, ErrorFeedback, Heard, Increments, Memory
from tacit.setting import Setting

D, K, BAD = 40, 5, 2
FIRST = noise(D, seed=1)


class Forging(LocalFleet):
    """Some workers' messages are replaced on their way, from ``since`` on."""

    def __init__(
        self, forge: Callable[[bytes], bytes], bad: Sequence[int] = (BAD,), since: int = 1
    ) -> None:
        super().__init__(K)
        self.forge, self.bad, self.since = forge, bad, since

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        every = super()._gather_bytes(messages, lengths)
        for worker in self.bad if self.ledger.step >= self.since else ():
            every[worker] = self.forge(every[worker])
        return every


def not_finite(message: bytes) -> bytes:
    """Well formed, with an entry that is NaN."""
    del message
    compressor = TopK(k=4)
    count, body = compressor.write(torch.ones(D).numpy(), ())
    body = body[:-4] + torch.tensor([torch.nan]).numpy().tobytes()
    return wire.pack(wire.Kind(compressor.kind, compressor.code, D), count, body)


FORGED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda message: b"",
    "a bit": lambda message: message[:-1] + bytes([message[-1] ^ 1]),
    "cut": lambda message: message[:7],
    "longer": lambda message: message + b"\0",
    "of another length": lambda message: TopK(k=4).encode(torch.ones(D + 1)),
    "of another compressor": lambda message: Identity("fp16").encode(torch.ones(D)),
    "not finite": not_finite,
    "a refusal": lambda message: REFUSAL,
    "a refusal with reasons": lambda message: REFUSAL + b"\xff\xfe because",
}
#: name: (memory, what receivers keep)
KINDS: dict[str, tuple[Callable[[], Memory], Callable[[], Heard]]] = {
    "byz_ef21": (EF21, Increments),
    "byz_ef21 zero": (lambda: EF21(start="zero"), Increments),
    "rosdhb": (Memory, Averages),
    "feedback": (ErrorFeedback, Heard),
}


def rig(kind: str, fleet: LocalFleet, rule=None, download: str | None = None) -> Rig:
    memory, heard = KINDS[kind]
    return Rig(
        memory(),
        "topk(k=4)",
        FIRST,
        K,
        download=download,
        aggregator=rule or TrimmedMean(1),
        fleet=fleet,
        heard=heard(),
    )


def kept(run: Rig) -> Tensor:
    rows: Tensor = run.compression.heard.state_dict().get("rows", torch.zeros(K, 0))
    return rows.clone()


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("download", [None, "identity"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_cannot_be_read_is_a_bad_sender(kind, download, forged):
    """Its sender's row is NaN for the rule, what is kept of it stays, and it can come back."""
    seen = []

    class Watching(TrimmedMean):
        def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
            seen.append(rows.clone())
            return super().__call__(rows, weights)

    fleet = Forging(FORGED[forged], since=3)
    run = rig(kind, fleet, Watching(1), download)
    gradients = noise(8, K, D)
    run.run(gradients, 2)
    for gradient in gradients[2:5]:
        before = kept(run)
        seen.clear()
        direction = run.step(gradient)
        (rows,) = seen
        assert rows.isnan().all(dim=1).tolist() == [worker == BAD for worker in range(K)]
        torch.testing.assert_close(direction, TrimmedMean(1)(rows), rtol=1e-6, atol=1e-6)
        after = kept(run)
        assert torch.equal(after[BAD], before[BAD])
        if after.numel():
            assert (after != before).any(1).sum() == K - 1
    fleet.bad = ()
    for gradient in gradients[5:]:
        seen.clear()
        assert run.step(gradient).isfinite().all()
        assert seen[0].isfinite().all()


@pytest.mark.parametrize("forged", [f for f in FORGED if f != "nothing"])
@pytest.mark.parametrize("kind", ["byz_ef21", "rosdhb"])
def test_with_a_mean_it_stops_all(kind, forged):
    run = rig(kind, Forging(FORGED[forged], since=2), Mean())
    run.step(noise(K, D))
    with pytest.raises((PeerError, UserError), match=f"worker {BAD}"):
        run.step(noise(K, D))


@pytest.mark.parametrize("forged", ["nothing", "cut", "a refusal"])
@pytest.mark.parametrize("download", [None, "topk(k=4)"])
@pytest.mark.parametrize("kind", KINDS)
def test_more_of_them_than_the_rule_stands_are_named(kind, download, forged):
    run = rig(kind, Forging(FORGED[forged], bad=(1, 4), since=2), download=download)
    run.step(noise(K, D))
    with pytest.raises(UserError, match=r"rows 1, 4\), more than the 1 this rule stands"):
        run.step(noise(K, D))


@pytest.mark.parametrize("download", [None, "identity"])
def test_first_vectors_that_cannot_be_read(download):
    """They go whole, as messages too."""
    run = rig("byz_ef21", Forging(FORGED["a bit"]), Median(), download)
    gradients = noise(K, D)
    direction = run.step(gradients)
    gradients[BAD] = torch.nan
    torch.testing.assert_close(direction, Median()(gradients))
    assert not kept(run)[BAD].any()


@settings(max_examples=60, deadline=None)
@given(
    message=st.binary(max_size=200),
    prefix=st.integers(0, 20),
    kind=st.sampled_from(list(KINDS)),
    download=st.sampled_from([None, "identity"]),
)
def test_whatever_one_sends_the_others_go_on(message, prefix, kind, download):
    """Between the smallest and the largest of what the honest say."""
    run = rig(kind, Forging(lambda honest: honest[:prefix] + message), download=download)
    for gradient in noise(3, K, D):
        assert run.step(gradient).isfinite().all()
    rows = kept(run)
    if rows.numel():
        honest = rows[[worker for worker in range(K) if worker != BAD]]
        direction = run.rows.gradients[0]
        assert (direction >= honest.min(dim=0).values - 1e-6).all()
        assert (direction <= honest.max(dim=0).values + 1e-6).all()


def test_values_too_large_to_be_added_up_are_a_bad_sender_for_ever():
    """Finite messages whose sum is not."""
    huge = TopK(k=4).encode(torch.full((D,), 3e38))
    run = rig("byz_ef21", Forging(lambda message: huge, since=2))
    for gradient in noise(6, K, D):
        assert run.step(gradient).isfinite().all()
    assert kept(run)[BAD].isinf().any()


@pytest.mark.parametrize("download", [None, "topk(k=4)"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_diverges_is_a_bad_sender(kind, download):
    run = rig(kind, LocalFleet(K), download=download)
    gradients = noise(6, K, D)
    gradients[1:3, BAD, 7] = torch.nan
    for gradient in gradients:
        assert run.step(gradient).isfinite().all()
    assert kept(run).isfinite().all()


# -- lengths that are lies


class Announcing(LocalFleet):
    """A worker announces another length than that of its message, from step 2 on."""

    def __init__(self, length: int) -> None:
        super().__init__(K)
        self.length = length

    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]:
        every = super()._gather_lengths(lengths)
        if self.ledger.step > 1:
            every[BAD] = self.length
        return every


@pytest.mark.parametrize("length", [10**15, 2**63 - 1, longest(D) + 1, -1, -(2**63)])
@pytest.mark.parametrize("download", [None, "identity"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_announced_length_that_cannot_be_is_a_bad_sender(kind, download, length):
    """As one that refuses to send anything."""
    runs = [
        rig(kind, fleet, download=download)
        for fleet in (Announcing(length), Forging(FORGED["a refusal"], since=2))
    ]
    for gradient in noise(5, K, D):
        one, other = (run.step(gradient) for run in runs)
        assert torch.equal(one, other)
    assert torch.equal(*map(kept, runs))
    assert [run.compression.given_up for run in runs] == [0, 0]
    assert runs[0].fleet.ledger.sent("gradient")[BAD] < runs[1].fleet.ledger.sent("gradient")[BAD]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_message_of_one_does_not_make_all_travel_whole(kind):
    runs = [rig(kind, fleet) for fleet in (Announcing(longest(D)), LocalFleet(K))]
    for gradient in noise(4, K, D):
        one, other = (run.step(gradient) for run in runs)
        assert torch.equal(one, other)
    assert runs[0].compression.given_up == 0


@pytest.mark.parametrize("download", [None, "identity"])
@pytest.mark.parametrize("kind", ["byz_ef21", "rosdhb"])
def test_with_a_mean_a_length_stops_all(kind, download):
    run = rig(kind, Announcing(-1), Mean(), download)
    run.step(noise(K, D))
    with pytest.raises(PeerError, match=f"worker {BAD} announces a message of -1 bytes"):
        run.step(noise(K, D))


class Lying(AttendedFleet):
    """The last worker's process announces such lengths; what it announces it would send."""

    length: int | None = None

    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]:
        return super()._gather_lengths(lengths if self.length is None else [self.length])

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        return super()._gather_bytes(self._filled(messages, lengths), lengths)

    def _collect_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes] | None:
        return super()._collect_bytes(self._filled(messages, lengths), lengths)

    def _filled(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        return [messages[0].ljust(lengths[self.hosted.start], b"\0")]


#: What worker 3 announces at steps 1, 2, ...; None: the truth.
LENGTHS = [None, 10**15, longest(D) + 1, -5, 3000, longest(D), None]


def lying(rank: int, recipe: str, download: str | None) -> list[tuple[Tensor, Tensor, int]]:
    """Directions, what is kept, and how often all travelled whole. Worker 1 is away at step 3."""
    fleet = Lying(1)
    exchange = RECIPES[recipe](download).gradients
    assert exchange is not None
    assert exchange.compression is not None
    models: Any = SimpleNamespace(parameters=torch.zeros(1, D), gradients=torch.zeros(1, D))
    exchange.start(fleet, models, Setting(4, D))
    out = []
    for step, length in enumerate(LENGTHS, 1):
        fleet.ledger.step = step
        fleet.length = length if rank == 3 else None
        fleet.has_gradient = not (rank == 1 and step == 3)
        models.gradients[:] = noise(len(LENGTHS), 4, D)[step - 1, rank]
        assert exchange.step(torch.ones(4, dtype=torch.bool))
        rows = exchange.compression.heard.state_dict()["rows"]
        out.append((models.gradients[0].clone(), rows.clone(), exchange.compression.given_up))
    return out


@pytest.mark.parametrize("download", [None, "identity"])
@pytest.mark.parametrize("recipe", ["rosdhb", "byz_ef21"])
def test_lengths_of_another_process(recipe, download):
    """Each is worker 3's own affair, and nobody is blamed for it who is away."""
    results = run_processes(lying, 4, recipe, download, timeout=60)
    for step, length in enumerate(LENGTHS):
        direction, rows, given_up = results[0][step]
        for other in results[1:]:
            assert torch.equal(other[step][0], direction)
            assert download is not None or torch.equal(other[step][1], rows)
        assert given_up == 0
        rows = rows.clone()
        if length is not None:
            if step:
                assert torch.equal(rows[3], results[0][step - 1][1][3])
            rows[3] = torch.nan
        who = [0, 2, 3] if recipe == "rosdhb" and step == 2 else [0, 1, 2, 3]
        torch.testing.assert_close(direction, TrimmedMean(1)(rows[who]), rtol=1e-5, atol=1e-6)


# -- who is silent, and who has said that it will be


def silent(rank: int, recipe: str) -> list[tuple[Tensor, Tensor]]:
    """Directions, and what is kept, of four steps of four processes. Worker 3 has no gradient at
    the second and at the last, worker 1 sends nothing at the last two and does not say so."""
    fleet = AttendedFleet(1)
    exchange = RECIPES[recipe]().gradients
    assert exchange is not None
    models: Any = SimpleNamespace(parameters=torch.zeros(1, D), gradients=torch.zeros(1, D))
    exchange.start(fleet, models, Setting(4, D))
    out = []
    for step in range(1, 5):
        fleet.ledger.step = step
        fleet.has_gradient = not (rank == 3 and step in (2, 4))
        if rank == 1 and step == 3:
            exchange.compression._ways._messages = lambda exchange: [b""]
        models.gradients[:] = noise(4, 4, D)[step - 1, rank]
        assert exchange.step(torch.ones(4, dtype=torch.bool))
        rows = exchange.compression.heard.state_dict()["rows"]
        out.append((models.gradients[0].clone(), rows.clone()))
    return out


RECIPES = {
    "rosdhb": lambda back=None: tacit.rosdhb(1, "trimmed_mean", density=0.5, download=back),
    "byz_ef21": lambda back=None: tacit.byz_ef21(1, "trimmed_mean", "topk(k=4)", download=back),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_who_says_that_it_is_away_is_no_bad_sender(recipe):
    results = run_processes(silent, 4, recipe, timeout=60)
    present = [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2]]
    for step, who in enumerate(present):
        direction, rows = results[0][step]
        for other in results[1:]:
            assert torch.equal(other[step][0], direction)
            assert torch.equal(other[step][1], rows)
        rows = rows.clone()
        if step == 2:
            rows[1] = torch.nan
        if step == 3:  # the roll call gives no names: the last of the silent ones counts as bad
            rows[3] = torch.nan
            who = [0, 2, 3]
        who = who if recipe == "rosdhb" else [0, 1, 2, 3]  # the absent ones' vectors are kept
        torch.testing.assert_close(direction, TrimmedMean(1)(rows[who]), rtol=1e-5, atol=1e-6)


# -- liars in a simulation

ROBUST = {
    "byz_ef21": lambda rule, back: tacit.byz_ef21(2, rule, "topk(density=0.3)", None, back, lr=0.5),
    "rosdhb": lambda rule, back: tacit.rosdhb(2, rule, 0.3, download=back, lr=0.5),
}


def learned(recipe: tacit.Recipe, attack: str | None, steps: int = 80) -> float:
    """The accuracy on the training data."""
    task = mlp_task()
    liars = None if attack is None else Liars(2, attack)
    task = mlp_task(test=task.train)
    run = tacit.Simulation(task, recipe, LocalFleet(7), seed=1, batch_size=12, liars=liars)
    return list(run.run(steps))[-1].accuracy


@pytest.mark.parametrize("back", [None, "identity"])
@pytest.mark.parametrize("attack", ["sign_flip", "nan", "foe(scale=4)", "huge", "silence"])
@pytest.mark.parametrize("method", ROBUST)
def test_with_a_robust_rule_they_learn_among_liars(method, attack, back):
    assert learned(ROBUST[method]("trimmed_mean", back), attack) > 0.85


@pytest.mark.parametrize("method", ROBUST)
def test_with_a_mean_they_do_not(method):
    make = ROBUST[method]
    assert learned(make("mean", None), None) > 0.85  # where nobody lies
    assert learned(make("mean", None), "foe(scale=4)") < 0.5
    with pytest.raises(TrainingDiverged, match=r"worker 5 .* not finite"):
        learned(make("mean", None), "nan")
