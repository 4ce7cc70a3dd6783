"""What receivers keep of each sender: Byz-EF21 and RoSDHB."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tacit
from helpers.rig import Rig, noise
from helpers.tasks import mlp_task
from tacit.aggregators import NNM, Mean, Median, TrimmedMean, aggregator
from tacit.attacks import Attack, Liars, Sight
from tacit.compressors import RandomK, TopK
from tacit.errors import UserError
from tacit.fleet import Kind, LocalFleet
from tacit.gradients import GradientExchange
from tacit.memory import EF21, EF21W, Averages, ErrorFeedback, Heard, Increments, Memory
from tacit.recipes import Recipe
from tacit.topologies import Sampled

D, K = 40, 5
FIRST = noise(D, seed=1)


def byz(rule: str = "mean", memory: EF21 | None = None, **options) -> Rig:
    options = {"compressor": "topk(k=4)", "workers": K} | options
    return Rig(
        memory or EF21(),
        options.pop("compressor"),
        FIRST,
        options.pop("workers"),
        aggregator=aggregator(rule),
        heard=Increments(),
        **options,
    )


def held(rig: Rig) -> Tensor:
    """What is known of every worker, ``(K, d)``."""
    rows: Tensor = rig.compression.heard.state_dict()["rows"]
    return rows


# -- with a mean they are what they are made from


@pytest.mark.parametrize("momentum", [None, 0.3])
@pytest.mark.parametrize("start", ["whole", "zero"])
@pytest.mark.parametrize("download", [None, "topk(k=6)"])
def test_with_a_mean_byz_ef21_is_ef21(momentum, start, download):
    gradients = noise(30, K, D)
    plain = Rig(EF21(momentum, start), "topk(k=4)", FIRST, K, download=download)
    kept = byz(memory=EF21(momentum, start), download=download)
    for gradient in gradients:
        torch.testing.assert_close(kept.step(gradient), plain.step(gradient), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(held(kept), kept.memory.rows()["believed"])


def test_with_a_mean_byz_ef21_of_sampled_workers_is_ef21():
    gradients = noise(30, K, D)
    one, other = (
        Rig(EF21(), "topk(k=4)", FIRST, K, topology=Sampled(0.5), seed=3, heard=heard)
        for heard in (None, Increments())
    )
    for gradient in gradients:
        torch.testing.assert_close(other.step(gradient), one.step(gradient), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:compressed messages")  # of all entries they are longer
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            lambda: tacit.byz_ef21(1, "mean", "topk(density=0.2)", lr=0.2),
            lambda: tacit.ef21("topk(density=0.2)", lr=0.2),
        ),
        (
            lambda: tacit.rosdhb(1, "mean", density=1.0, momentum=0.9, lr=0.2),
            # Polyak's momentum: m = 0.9 m + 0.1 g, from m = 0
            lambda: Recipe("x", gradients=GradientExchange(), optimizer=polyak),
        ),
    ],
)
def test_recipes_with_a_mean(one, other):
    models = []
    for make in (one, other):
        simulation = tacit.Simulation(mlp_task(), make(), tacit.LocalFleet(4), seed=1)
        for _ in range(20):
            simulation.step()
        models.append(simulation.replicas.parameters)
    torch.testing.assert_close(models[0], models[1], rtol=1e-4, atol=1e-5)


def polyak(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.2, momentum=0.9, dampening=0.9)
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


# -- with a rule that is none


@pytest.mark.parametrize("download", [None, "identity"])
@pytest.mark.parametrize("rule", [Median(), TrimmedMean(1), NNM(1, TrimmedMean(1))])
def test_byz_ef21_steps_with_the_rule_of_what_the_workers_believe(rule, download):
    """To the rounding of one message, also after many steps: a sum of changes does not drift."""
    memory = EF21()
    run = Rig(memory, "topk(k=4)", FIRST, K, download=download, aggregator=rule, heard=Increments())
    for gradient in noise(100, K, D):
        direction = run.step(gradient)
        expected = rule(memory.rows()["believed"])
        torch.testing.assert_close(direction, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    beta=st.floats(0, 0.99),
    k=st.integers(1, 30),  # more would be longer than the vectors
    seed=st.integers(0, 5),
    download=st.sampled_from([None, "identity"]),
)
def test_rosdhb_steps_with_the_rule_of_the_averages(beta, k, seed, download):
    rule, by = TrimmedMean(1), RandomK(k=k, scaled=True)
    run = Rig(
        None, by, FIRST, K, download=download, aggregator=rule, heard=Averages(beta), seed=seed
    )
    averages = torch.zeros(K, D).double()
    for step, gradient in enumerate(noise(6, K, D, seed=seed), 1):
        direction = run.step(gradient)
        mask = torch.zeros(D)
        mask[by.positions(D, ("gradient", "step", step))] = D / k
        averages = beta * averages + (1 - beta) * (gradient * mask).double()
        torch.testing.assert_close(direction, rule(averages).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(held(run).double(), averages, rtol=1e-4, atol=1e-5)


def test_all_send_the_same_entries():
    run = Rig(
        None,
        RandomK(k=4, scaled=True),
        FIRST,
        K,
        aggregator=Median(),
        heard=Averages(0.0),
    )
    supports = []
    for gradient in noise(5, K, D):
        run.step(gradient)
        sent = held(run) != 0
        assert (sent == sent[0]).all()
        assert sent[0].sum() == 4
        supports.append(tuple(sent[0].tolist()))
    assert len(set(supports)) == 5


def test_without_compression_byz_ef21_is_robust_gradient_descent():
    rule = TrimmedMean(1)
    run = byz("trimmed_mean(f=1)", compressor="topk(density=0.99)")
    gradients = noise(10, K, D)
    with pytest.warns(UserWarning, match="longer"):  # whole vectors are sent instead
        found = [run.step(gradient) for gradient in gradients]
    for direction, gradient in zip(found, gradients, strict=True):
        torch.testing.assert_close(direction, rule(gradient), rtol=1e-5, atol=1e-5)
    assert run.compression.given_up == 9


# -- some of the workers


def test_absent_workers_are_combined_with_what_is_believed_of_them():
    memory = EF21()
    run = byz("median", memory)
    gradients = noise(12, K, D)
    run.step(gradients[0])
    run.present = torch.tensor([True, True, False, True, False])
    for gradient in gradients[1:]:
        before = held(run).clone()
        gradient[~run.present] = torch.nan
        direction = run.step(gradient)
        assert torch.equal((held(run) != before).any(1), run.present)
        torch.testing.assert_close(direction, Median()(held(run)), rtol=1e-6, atol=1e-6)


def test_who_was_never_heard_is_left_out():
    run = byz("median", EF21(start="zero"))
    run.present = torch.tensor([True, True, True, False, False])
    direction = run.step(noise(K, D))
    torch.testing.assert_close(direction, Median()(held(run)[:3]), rtol=1e-6, atol=1e-6)


def test_averages_of_absent_workers_wait():
    run = Rig(None, "randomk(k=8)", FIRST, K, aggregator=Median(), heard=Averages(0.5))
    run.step(noise(K, D))
    before = held(run).clone()
    run.present = torch.tensor([False, True, True, True, False])
    direction = run.step(noise(K, D, seed=1))
    assert torch.equal((held(run) != before).any(1), run.present)
    torch.testing.assert_close(direction, Median()(held(run)[1:4]))


class Leaving(LocalFleet):
    """The last worker can go; it then says nothing, and in the roll call that it is away."""

    def leave(self) -> None:
        self.busy, self.weight = self.size - 1, 1 - 1 / self.size

    def _gather_bytes(self, messages: Sequence[bytes], lengths: list[int]) -> list[bytes]:
        every = super()._gather_bytes(messages, lengths)
        return every if self.busy == self.size else [*every[:-1], b""]


def test_when_one_has_no_more_data_all_begin_again():
    """The others' next gradients go whole, and it is no part of the direction."""
    fleet = Leaving(K)
    run = byz("median", fleet=fleet)
    run.run(noise(5, K, D), 5)
    fleet.leave()
    gradients = noise(2, K, D, seed=7)
    torch.testing.assert_close(run.step(gradients[0]), Median()(gradients[0, :-1]))
    direction = run.step(gradients[1])
    torch.testing.assert_close(direction, Median()(held(run)[:-1]), rtol=1e-6, atol=1e-6)
    assert not held(run)[-1].any()


# -- liars choose what is combined of them

KEPT: dict[str, Callable[..., Recipe]] = {
    "byz_ef21": lambda density, back: tacit.byz_ef21(
        2, "trimmed_mean", f"topk(density={density})", download=back, lr=0.2
    ),
    "rosdhb": lambda density, back: tacit.rosdhb(2, "trimmed_mean", density, download=back, lr=0.2),
}


class Noting(LocalFleet):
    """Remembers the last rows that were to be said, and those that were."""

    def said(self, rows: Tensor, kind: Kind) -> Tensor:
        said = super().said(rows, kind)
        if kind == "gradient":
            self.rows, self.word = rows.clone(), said.clone()
        return said


def among_liars(method: str, attack: str | Attack, density: float, back: str | None):
    """A simulation of 5 honest workers and 2 liars, and what is kept of all, to be looked at."""
    recipe, fleet = KEPT[method](density, back), Noting(7)
    run = tacit.Simulation(mlp_task(), recipe, fleet, seed=1, liars=Liars(2, attack))
    assert recipe.gradients is not None
    assert recipe.gradients.compression is not None
    return run, fleet, recipe.gradients.compression.heard.state_dict()["rows"]


@pytest.mark.parametrize("back", [None, "identity"])
@pytest.mark.parametrize("attack", ["label_flip", "gaussian", "sign_flip", "mimic"])
@pytest.mark.parametrize("method", KEPT)
def test_what_is_kept_of_a_liar_stays_what_it_says(method, attack, back):
    run, fleet, rows = among_liars(method, attack, 0.3, back)
    longest = 0.0
    for _ in range(60):
        run.step()
        longest = max(longest, float(fleet.word[-1].norm()))
        assert 0 < rows[-1].norm() <= 2 * longest


@pytest.mark.parametrize("attack", ["label_flip", "gaussian"])
@pytest.mark.parametrize("method", KEPT)
def test_without_compression_a_liar_is_combined_with_what_it_wants(method, attack):
    run, fleet, rows = among_liars(method, attack, 1.0, "identity")
    for _ in range(10):
        run.step()
        torch.testing.assert_close(rows, fleet.word, rtol=1e-4, atol=1e-5)
        assert (rows[:5].mean(dim=0) - rows[-1]).norm() > 0.1


def test_entries_that_travel_are_what_a_liar_wants():
    """Though they are scaled on their way; the others are what is left of them."""
    run, fleet, rows = among_liars("rosdhb", "gaussian", 0.3, None)
    for _ in range(10):
        before = rows.clone()
        run.step()
        waits = torch.isclose(rows, 0.9 * before, rtol=1e-6).all(dim=0)
        assert 0.65 < waits.float().mean() < 0.75
        torch.testing.assert_close(rows[5:, ~waits], fleet.word[5:, ~waits], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("back", [None, "identity"])
@pytest.mark.parametrize("method", KEPT)
def test_liars_see_what_is_combined(method, back):
    sights: list[Sight] = []

    class Watches(Attack):
        def __call__(self, sight: Sight) -> Tensor:
            sights.append(sight)
            return sight.honest.mean(dim=0)

    run, fleet, rows = among_liars(method, Watches(), 0.3, back)
    for step in range(1, 6):
        run.step()
        assert torch.equal(sights[-1].honest, rows[:5])
        assert torch.equal(fleet.rows[:5], rows[:5])
        assert sights[-1].rule is run.recipe.gradients.aggregator
        assert len(sights) == step


@pytest.mark.parametrize("method", KEPT)
def test_a_searched_attack_is_worse_than_a_guess_where_it_is_looked_for(method):
    """In what the rule makes of the vectors that it is given."""
    run, fleet, rows = among_liars(method, "alie:search=true", 0.3, None)
    for _ in range(5):
        run.step()
        honest, word = rows[:5], fleet.word[5:]
        mean, std = honest.double().mean(dim=0), honest.double().std(dim=0)

        def moved(lies: Tensor, honest: Tensor = honest, mean: Tensor = mean) -> float:
            return float((TrimmedMean(2)(torch.cat([honest, lies.float()])) - mean).norm())

        for z in (0.5, 1.0, 2.0):
            guess = (mean + z * std).expand(2, -1)
            assert moved(word) >= 0.999 * moved(guess)


# -- another number of workers


@pytest.mark.parametrize("download", [None, "topk(k=6)"])
@pytest.mark.parametrize("workers", [3, 7])
def test_another_number_of_workers_goes_on_from_the_direction(download, workers):
    before = byz("median", download=download)
    before.run(noise(6, K, D), 6)
    direction = before.rows.gradients[0].clone()
    after = byz("median", workers=workers, download=download)
    after.exchange.take_over(*copy.deepcopy(before.states()))
    torch.testing.assert_close(held(after), direction.expand(workers, -1))
    gradients = noise(workers, D, seed=4)
    for _ in range(60):
        found = after.step(gradients)
    torch.testing.assert_close(found, Median()(gradients), rtol=1e-4, atol=1e-5)


def test_averages_of_another_number_of_workers_begin_at_zero():
    def rig(workers: int) -> Rig:
        rule = Median()
        return Rig(None, "randomk(k=8)", FIRST, workers, aggregator=rule, heard=Averages(0.5))

    before, after = rig(K), rig(3)
    before.run(noise(6, K, D), 6)
    after.exchange.take_over(*copy.deepcopy(before.states()))
    assert not held(after).any()
    assert after.run(noise(7, 3, D), 1).isfinite().all()


@pytest.mark.parametrize("download", [None, "topk(k=6)"])
def test_the_state_of_another_method_is_refused(download):
    plain = Rig(EF21(), "topk(k=4)", FIRST, K, download=download)
    kept, averaged = (
        byz(download=download),
        Rig(None, "topk(k=4)", FIRST, K, download=download, aggregator=Mean(), heard=Averages()),
    )
    more = byz(workers=K + 1, download=download)
    runs = [plain, kept, averaged]
    for run in (*runs, more):
        run.run(noise(2, len(run.present), D), 2)
    for one in runs:
        for other in runs:
            if one is not other:
                with pytest.raises(UserError, match="of another recipe, or of other options"):
                    one.load(*copy.deepcopy(other.states()))
    shared, workers = copy.deepcopy(more.states())
    with pytest.raises(UserError, match="of another recipe, or of other options"):
        kept.load(shared, workers[:K])


# -- what goes together


@pytest.mark.parametrize("memory", [Memory, ErrorFeedback, EF21W])
def test_increments_are_those_of_ef21(memory: Callable[[], Memory]):
    with pytest.raises(UserError, match=f"what EF21 sends, not {memory.__name__}"):
        Rig(memory(), "topk(k=4)", FIRST, K, heard=Increments())


def test_averages_are_not_those_of_changes():
    with pytest.raises(UserError, match="EF21 sends changes"):
        Rig(EF21(), "topk(k=4)", FIRST, K, heard=Averages())


def test_plain_ef21_needs_a_mean():
    with pytest.raises(UserError, match="for another aggregator take byz_ef21"):
        Rig(EF21(), "topk(k=4)", FIRST, K, aggregator=Median())


def test_nothing_is_kept_by_default():
    run = Rig(None, TopK(k=4), FIRST, K)
    assert type(run.compression.heard) is Heard
    assert "heard" not in run.states()[1][0]
