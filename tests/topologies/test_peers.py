"""Who holds whose models among peers, what is made of them, and that liars cannot move it far."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import tacit
from tacit.aggregators import Aggregator, aggregator
from tacit.aggregators.base import Indices
from tacit.attacks import Attack, Liars, Sight
from tacit.errors import UserError
from tacit.fleet import LocalFleet
from tacit.recipes import Recipe
from tacit.rng import torch_stream
from tacit.setting import Setting
from tacit.tasks.data import TensorData
from tacit.tasks.task import Task
from tacit.topologies import Peers


@dataclass
class Voice:
    """The last ``liars`` lie; ``told``: what they tell each honest worker."""

    workers: int
    liars: int
    told: Tensor | None = None
    silent: bool = False

    @property
    def honest(self) -> Tensor:
        return torch.arange(self.workers) < self.workers - self.liars

    def tell(self, every: Tensor, kind: str, step: int) -> Tensor | None:
        return self.told


@dataclass
class Part:
    """As much of a fleet as peers need: a process that hosts some of the workers."""

    rows: Tensor
    hosted: range
    voice: Voice | None = None
    first: tuple[list[int], Tensor] | None = None
    deterministic: bool = False
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.rows)

    def gather_rows(self, rows: Tensor, kind: str) -> Tensor:
        assert torch.equal(rows, self.rows[self.hosted.start : self.hosted.stop])
        return self.rows

    def gather_first(self, rows: Tensor, kind: str, enough: int, correspondence: object) -> Any:
        self.asked.append((kind, enough))
        return self.first


class Spy(Aggregator):
    """Says the mean, and remembers what each worker held."""

    def __init__(self) -> None:
        self.held: list[Indices] = []
        self.own: list[int] = []
        self.vectors: list[Tensor] = []

    def __call__(self, rows: Tensor, weights: Tensor | None = None) -> Tensor:
        return rows.mean(dim=0)

    def each(
        self,
        rows: Tensor,
        held: Sequence[Indices],
        own: Sequence[int],
        senders: Sequence[Indices] | None = None,
    ) -> Tensor:
        self.held += [indices.copy() for indices in held]
        self.own += own
        self.vectors += [rows[torch.from_numpy(indices)] for indices in held]
        return super().each(rows, held, own, senders)


def rows_of(workers: int, d: int = 3) -> Tensor:
    return torch.randn(workers, d, generator=torch_stream(workers, "peers", d))


def seen(
    f: int,
    reception: str,
    workers: int,
    liars: int | None = None,
    *,
    step: int = 1,
    kind: str = "model",
    seed: int = 0,
    hosted: range | None = None,
    told: Tensor | None = None,
) -> Spy:
    """What the hosted workers (all) hold at a step; ``liars``: None where nobody can."""
    peers, spy, rows = Peers(f, reception), Spy(), rows_of(workers)  # type: ignore[arg-type]
    peers.start(Setting(workers, 3, seed))
    hosted = hosted or range(workers)
    voice = None if liars is None else Voice(workers, liars, told)
    fleet = Part(rows, hosted, voice)
    mine = rows[hosted.start : hosted.stop]
    before = mine.clone()
    peers.mix(fleet, mine, spy, step, kind)  # type: ignore[arg-type]
    assert torch.equal(mine, before)
    return spy


# -- who is held


SIZES = [(1, 0), (2, 0), (5, 0), (3, 1), (4, 1), (5, 2), (9, 2), (13, 4)]


@pytest.mark.parametrize("reception", ["first", "worst", "all"])
@pytest.mark.parametrize(("workers", "f"), SIZES)
def test_how_many_are_held_and_the_own_one_always(workers: int, f: int, reception: str) -> None:
    for liars in {None, *range(1, f + 1)}:
        spy = seen(f, reception, workers, liars)
        victims = range(workers - (liars or 0))
        assert len(spy.held) == len(victims)
        for worker, indices, place in zip(victims, spy.held, spy.own, strict=True):
            assert len(indices) == (workers if reception == "all" else workers - f)
            assert indices[place] == worker
            assert (np.diff(indices) > 0).all()  # in order, nobody twice
            assert 0 <= indices[0] <= indices[-1] < workers
            if reception == "worst":
                lying = int((indices >= len(victims)).sum())
                assert lying == (liars or 0)
            if reception == "worst" and liars == f:
                assert len(indices) - lying - 1 == workers - 2 * f - 1  # honest ones beside it


def test_more_liars_than_f_fill_all_places() -> None:
    spy = seen(1, "worst", 6, 4)
    assert [indices.tolist() for indices in spy.held] == [[0, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    spy = seen(2, "worst", 6, 4)
    assert [indices.tolist() for indices in spy.held] == [[0, 2, 3, 4], [1, 2, 3, 4]]


@pytest.mark.parametrize(("reception", "liars"), [("first", None), ("first", 4), ("worst", 4)])
def test_who_is_drawn_is_new_for_each_worker_step_and_kind(
    reception: str, liars: int | None
) -> None:
    drawn = {}
    for step, kind in itertools.product(range(1, 11), ("model", "gradient")):
        spy = seen(4, reception, 13, liars, step=step, kind=kind)
        for worker, indices in enumerate(spy.held):
            drawn[step, kind, worker] = tuple(np.setdiff1d(indices, worker).tolist())
    # each worker alone: others than at the step before, others of models than of gradients
    for worker in range(9):
        models = [drawn[step, "model", worker] for step in range(1, 11)]
        gradients = [drawn[step, "gradient", worker] for step in range(1, 11)]
        assert len(set(models)) > 7
        assert sum(a == b for a, b in zip(models, gradients, strict=True)) < 3
    # workers draw independently: whether 2 is held by 0 and by 1 is not the same
    both = [(2 in drawn[step, "model", 0], 2 in drawn[step, "model", 1]) for step in range(1, 11)]
    assert any(a != b for a, b in both)


def test_all_others_are_equally_likely() -> None:
    """Of 8 other honest workers a victim of 4 liars holds 4; without liars, of 12 others 8."""
    for liars, others, wanted in ((4, 8, 4), (None, 12, 8)):
        counts = np.zeros(13)
        steps = 300
        for step in range(steps):
            (indices, *_) = seen(4, "worst", 13, liars, step=step, hosted=range(1)).held
            counts[indices] += 1
        expected, p = steps * wanted / others, wanted / others
        assert np.abs(counts[1 : others + 1] - expected).max() < 5 * (steps * p * (1 - p)) ** 0.5
        assert (counts[others + 1 :] == steps).all()  # the liars, who are always there


@pytest.mark.parametrize("reception", ["first", "worst"])
@pytest.mark.parametrize("liars", [None, 2])
def test_it_follows_from_the_seed_and_not_from_who_hosts_whom(
    reception: str, liars: int | None
) -> None:
    def held(seed: int, *parts: range) -> list[list[int]]:
        every = []
        for part in parts:
            spy = seen(2, reception, 9, liars, step=5, seed=seed, hosted=part)
            every += [indices.tolist() for indices in spy.held]
        return every

    whole = held(3, range(9))
    assert held(3, range(9)) == whole
    assert held(3, range(4), range(4, 9)) == whole
    assert held(3, *(range(k, k + 1) for k in range(9))) == whole
    assert held(4, range(9)) != whole


# -- what is made of them


@pytest.mark.parametrize("text", ["nna:f=2", "multi_krum:f=2", "self_clipping:tau=1", "mean"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_what_is_made_does_not_depend_on_who_hosts_whom(text: str, deterministic: bool) -> None:
    """To the bit, where that is promised."""
    workers, rows = 26, 5 + rows_of(26, 3001)
    peers = Peers(2, "worst")
    peers.start(Setting(workers, 3001))

    def mixed(*parts: range) -> Tensor:
        made = []
        for part in parts:
            fleet = Part(rows, part, Voice(workers, 2), deterministic=deterministic)
            mine = rows[part.start : part.stop]
            made.append(peers.mix(fleet, mine, aggregator(text), 1))  # type: ignore[arg-type]
        return torch.cat(made)

    whole = mixed(range(26))
    assert torch.equal(whole[24:], rows[24:])  # liars keep what they have
    tolerance = {"rtol": 0.0, "atol": 0.0} if deterministic else {"rtol": 1e-5, "atol": 1e-5}
    for parts in ([range(1), range(1, 12), range(12, 26)], [range(25), range(25, 26)]):
        torch.testing.assert_close(mixed(*parts), whole, **tolerance)


def test_who_comes_first_where_each_process_hosts_one_worker() -> None:
    rows, peers = rows_of(5), Peers(1)
    peers.start(Setting(5, 3))
    here = [0, 2, 3, 4]
    fleet = Part(rows, range(3, 4), first=(here, rows[here]))
    mixed = peers.mix(fleet, rows[3:4], aggregator("nna:f=1"), 1, "gradient")  # type: ignore[arg-type]
    assert fleet.asked == [("gradient", 3)]  # others, beside the own one
    nearest = sorted(here, key=lambda k: float((rows[k] - rows[3]).norm()))[:3]
    torch.testing.assert_close(mixed, rows[nearest].mean(dim=0, keepdim=True))
    # worst and all are not up to the network, and liars are never late
    for reception in ("worst", "all"):
        peers = Peers(1, reception)  # type: ignore[arg-type]
        peers.start(Setting(5, 3))
        peers.mix(fleet, rows[3:4], Spy(), 1)  # type: ignore[arg-type]
    peers, fleet.voice = Peers(1), Voice(5, 1)
    peers.start(Setting(5, 3))
    peers.mix(fleet, rows[3:4], Spy(), 1)  # type: ignore[arg-type]
    assert len(fleet.asked) == 1


@pytest.mark.parametrize("hosted", [range(9), range(3, 9), range(8, 9)], ids=str)
def test_each_victim_hears_its_own_lies(hosted: range) -> None:
    told = torch.arange(7.0)[:, None] * torch.ones(7, 3) + 100
    spy = seen(2, "worst", 9, 2, hosted=hosted, told=told)
    victims = range(hosted.start, min(7, hosted.stop))
    assert len(spy.vectors) == len(victims)
    rows = rows_of(9)
    plain = seen(2, "worst", 9, 2, hosted=hosted)
    for worker, vectors, heard, place in zip(
        victims, spy.vectors, plain.vectors, spy.own, strict=True
    ):
        assert torch.equal(vectors[place], rows[worker])
        assert torch.equal(vectors[-2:], told[worker].expand(2, 3))
        assert torch.equal(vectors[:-2], heard[:-2])  # the honest say the same to all


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("text", ["nna:f=2", "median:f=2", "mean"])
def test_who_sent_nan_is_named_by_its_number(text: str, deterministic: bool) -> None:
    """Also a liar, whose rows for each victim lie behind everybody's."""
    rows, told = rows_of(9), torch.full((7, 3), torch.nan)
    rows[3] = torch.nan
    peers = Peers(2, "all")
    peers.start(Setting(9, 3))
    fleet = Part(rows, range(2), Voice(9, 2, told), deterministic=deterministic)
    with pytest.raises(UserError, match=r"workers 3, 7, 8\b"):
        peers.mix(fleet, rows[:2], aggregator(text), 1)  # type: ignore[arg-type]
    here = [0, 2, 3, 4, 7, 8]
    rows[[7, 8]] = torch.nan
    peers, first = Peers(2), Part(rows, range(4, 5), first=(here, rows[here]))
    peers.start(Setting(9, 3))
    with pytest.raises(UserError, match=r"workers 3, 7, 8\b"):
        peers.mix(first, rows[4:5], aggregator(text), 1)  # type: ignore[arg-type]


# -- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Peers(-1), "f is a number of workers, 0 or more, not -1"),
        (lambda: Peers(True), "f is a number of workers, 0 or more, not True"),
        (lambda: Peers(1.0), "f is a number of workers, 0 or more, not 1.0"),  # type: ignore[arg-type]
        (lambda: Peers("1"), "f is a number of workers, 0 or more, not '1'"),  # type: ignore[arg-type]
        (lambda: Peers(1, "last"), "reception is one of first, worst, all, not 'last'"),  # type: ignore[arg-type]
        (lambda: Peers(1, None), "reception is one of first, worst, all, not None"),  # type: ignore[arg-type]
        (lambda: Peers(2).start(Setting(4, 1)), "2 of 4 workers may lie; .* at least 5 workers"),
        (lambda: Peers(1).start(Setting(2, 1)), "1 of 2 workers may lie; .* at least 3 workers"),
    ],
)
def test_impossible_peers(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- monna


class Point(nn.Module):
    """A model that is its parameters."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.w - x


def points(workers: int, d: int = 3) -> Task:
    samples = TensorData(rows_of(4 * workers, d), torch.zeros(4 * workers, dtype=torch.int64))
    return Task(
        "points",
        samples,
        samples,
        partial(Point, d),
        partial(torch.optim.SGD, lr=0.1),
        loss=lambda output, y: 0.5 * output.square().sum(dim=1).mean(),
        batch_size=2,
    )


class Says(Attack):
    """What it is told to say; remembers what the honest were about to."""

    def __init__(self, lies: Tensor) -> None:
        self.lies, self.per_victim = lies, lies.dim() == 2
        self.honest = torch.empty(0)

    def __call__(self, sight: Sight) -> Tensor:
        self.honest = sight.honest.clone()
        # lies are written as seen from the first honest workers
        around = sight.honest[: len(self.lies)] if self.per_victim else sight.honest[0]
        return around + self.lies


def attacked(recipe: Recipe, lies: Tensor, workers: int, f: int) -> tuple[Tensor, Tensor]:
    """The honest models of a step as they were sent, and as they came out of it."""
    attack = Says(lies)
    run = tacit.Simulation(
        points(workers - f), recipe, LocalFleet(workers), seed=1, noise=0.4, liars=Liars(f, attack)
    )
    run.step()
    return attack.honest, run.replicas.parameters[: workers - f].clone()


N, F, D = 7, 2, 3
NUMBERS = st.one_of(
    st.floats(-3, 3, width=32),
    st.sampled_from([0.0, 1e-6, -1e4, 1e12, 1e30, 3e38, float("nan"), float("inf"), -float("inf")]),
)


@pytest.mark.parametrize("reception", ["worst", "all"])
@given(data=st.data())
def test_liars_move_nobody_far(reception: str, data: st.DataObject) -> None:
    """Every lie that is kept is as near as the honest model that it pushed out: with h the mean of
    the honest models held, ``||mixed - h|| <= 2 f / kept max_j ||x_j - x_i||``."""
    shape = data.draw(st.sampled_from([(D,), (N - F, D)]))
    size = int(np.prod(shape))
    numbers = data.draw(st.lists(NUMBERS, min_size=size, max_size=size))
    lies = torch.tensor(numbers).reshape(shape)
    recipe = tacit.monna(F, 0.5, 0.3, reception)  # type: ignore[arg-type]
    sent, mixed = attacked(recipe, lies, N, F)
    assert mixed.isfinite().all()
    _check_invariant(recipe, sent, mixed)


def _check_invariant(recipe: Recipe, sent: Tensor, mixed: Tensor) -> None:
    assert recipe.averaging is not None
    peers = recipe.averaging.topology
    assert isinstance(peers, Peers)
    honest, sent = np.arange(N) < N - F, sent.double()
    for worker, came_out in enumerate(mixed.double()):
        held = peers._held(worker, honest, False, "model", 1)
        trusted = held[honest[held]]
        kept = len(held) - F
        assert len(trusted) == kept
        middle = sent[trusted].mean(dim=0)
        farthest = float((sent[trusted] - sent[worker]).norm(dim=1).max())
        bound = 2 * F / kept * farthest
        assert float((came_out - middle).norm()) <= bound * (1 + 1e-5) + 1e-6


def test_liars_beside_a_worker_are_kept_and_those_far_away_are_not() -> None:
    """The bound is not kept for want of an effect."""
    recipe = tacit.monna(F, 0.5, 0.3, "worst")
    sent, mixed = attacked(recipe, torch.full((N - F, D), 1e-3), N, F)
    assert recipe.averaging is not None
    for worker in range(N - F):  # its own model, the two lies beside it, and nobody else
        expected = sent[worker] + 2e-3 / 3
        torch.testing.assert_close(mixed[worker], expected, rtol=1e-5, atol=1e-5)
    recipe = tacit.monna(F, 0.5, 0.3, "worst")
    sent, mixed = attacked(recipe, torch.full((N - F, D), 50.0), N, F)
    assert recipe.averaging is not None
    for worker in range(N - F):
        held = recipe.averaging.topology._held(worker, np.arange(N) < N - F, False, "model", 1)  # type: ignore[attr-defined]
        expected = sent[held[held < N - F]].mean(dim=0)
        torch.testing.assert_close(mixed[worker], expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 1000), workers=st.integers(4, 9))
def test_monna_by_hand(seed: int, workers: int) -> None:
    """The worst case with liars that say ``-mu``, worker by worker."""
    f = (workers - 1) // 3
    assume(f > 0)
    honest = workers - f
    task, recipe = points(honest), tacit.monna(f, 0.9, 0.5, "worst")
    run = tacit.Simulation(
        task, recipe, LocalFleet(workers), seed=seed, liars=Liars(f, "sign_flip")
    )
    models = run.replicas.parameters[:honest].double()
    momenta = torch.zeros_like(models)
    for step in range(1, 4):
        for k in range(honest):
            x, _ = task.train.batch(run.training.feed.shards[k].at(step - 1))  # type: ignore[attr-defined]
            momenta[k] = 0.9 * momenta[k] + 0.1 * (models[k] - x.double().mean(dim=0))
        models = models - 0.5 * momenta
        lie, mixed = -models.mean(dim=0), []
        for k in range(honest):
            draw = tacit.rng.numpy_stream(seed, "peers", "model", k, step)
            others = draw.choice([j for j in range(honest) if j != k], workers - 2 * f - 1, False)
            vectors = [models[k], *models[others], *[lie] * f]
            vectors.sort(key=lambda x, own=models[k]: float((x - own).norm()))
            mixed.append(sum(vectors[: workers - 2 * f]) / (workers - 2 * f))
        run.step()
        models = torch.stack(mixed)  # type: ignore[arg-type]
        torch.testing.assert_close(
            run.replicas.parameters[:honest], models.float(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("silent", [False, True])
def test_who_says_nothing_never_comes_first(silent: bool) -> None:
    peers = Peers(2, "first")
    peers.start(Setting(8, 3, seed=1))
    honest = np.arange(8) < 6
    draws = [peers._held(0, honest, silent, "model", step) for step in range(1, 30)]
    assert all(len(held) == 6 for held in draws)
    assert any(7 in held for held in draws) is not silent
