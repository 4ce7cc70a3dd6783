"""Learning on streams: predict, then learn; fresh samples every round, drifts, unequal rates."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

import tacit
from helpers.shared import once
from helpers.spawn import run_processes
from tacit.errors import UserError
from tacit.fleet import Fleet, LocalFleet
from tacit.tasks import load

K, STEPS = 4, 30


def simulation(name: str, recipe: tacit.Recipe, fleet: Fleet | None = None, **options: Any):
    return tacit.Simulation(load(name), recipe, fleet or LocalFleet(K), seed=2, **options)


def test_rounds_are_losses_before_learning_and_bytes_after():
    run = simulation("graphical:at=7", tacit.periodic(5))
    # by hand: the loss of the models as they are, on the batch that they learn from next
    expected = []
    for step in range(1, 11):
        x, y = run.stream.batches(range(K), step - 1)
        losses, wrong = 0.0, 0
        for row in range(K):
            output = run.replicas.bind(row)(x[10 * row : 10 * row + 10]).detach()
            target = y[10 * row : 10 * row + 10]
            losses += float(run.task.loss(output, target))
            wrong += int(((output[:, 0] > 0) != (target > 0.5)).sum())
        run.step()
        expected.append((losses, wrong, run.fleet.ledger.bytes()))
    evaluation = run.evaluate()
    assert [(w, b) for _, w, b in evaluation.rounds] == [(w, b) for _, w, b in expected]
    losses = [loss for loss, _, _ in evaluation.rounds]
    assert losses == pytest.approx([loss for loss, _, _ in expected], rel=1e-5)
    assert evaluation.drifts == [8]  # round 7 is step 8
    assert run.evaluate().rounds == []  # nothing since


def test_the_consensus_is_tested_on_the_concept_of_the_moment():
    run = simulation("separator:at=100,noise=0", tacit.continuous())
    *_, before = run.run(100)
    run.step()
    after = run.evaluate()
    assert before.accuracy > 0.8
    assert abs(after.accuracy - 0.5) < 0.1  # 2,000 samples of another half space


@pytest.mark.parametrize("execution", ["auto", "loop"])
def test_batched_and_looped_rounds_agree(execution):
    run = simulation("graphical", tacit.no_sync(), execution=execution)
    assert run.training.batched == (execution == "auto")
    *_, last = run.run(8)
    reference = simulation("graphical", tacit.no_sync(), execution="loop")
    *_, expected = reference.run(8)
    assert [w for _, w, _ in last.rounds] == [w for _, w, _ in expected.rounds]
    assert sum(r[0] for r in last.rounds) == pytest.approx(sum(r[0] for r in expected.rounds))


def test_unequal_rates():
    run = simulation("graphical:rates=1/3", tacit.dynamic_averaging(0.5, weights="rates"))
    assert not run.training.batched  # batches of 10 and of 30
    assert run.setting.sample_rates().tolist() == [10, 30, 10, 30]
    *_, last = run.run(6)
    assert len(last.rounds) == 6
    with pytest.raises(UserError, match="batches of one size"):
        simulation("graphical:rates=1/3", tacit.no_sync(), execution="batched")


def test_serial_learns_from_all_samples_alike():
    """With unequal rates the mean of the batches' means is not the mean over all samples."""
    run = simulation("graphical:rates=1/9", tacit.serial())
    x, y = run.stream.batches(range(K), 0)
    module = run.replicas.bind(0)
    run.task.loss(module(x), y).backward()
    expected = run.replicas.gradients[0].clone()
    before = run.replicas.parameters.clone()
    run.step()
    step = (before - run.replicas.parameters) / 0.1
    torch.testing.assert_close(step, expected.expand(K, -1), rtol=1e-4, atol=1e-6)
    assert run.synchronisations == 0  # it stands for no exchange


def test_one_model_has_no_noise():
    run = simulation("graphical", tacit.serial(), noise=0.1)
    assert torch.equal(run.replicas.parameters, run.replicas.parameters[:1].expand(K, -1))


def test_workers_may_start_around_a_common_model():
    run = simulation("graphical", tacit.dynamic_averaging(1e9), noise=0.01)
    assert run.recipe.averaging is not None
    spread = run.replicas.parameters - run.recipe.averaging.reference
    assert spread.std(dim=1).tolist() == pytest.approx([0.01] * K, rel=0.05)
    assert float(torch.corrcoef(spread)[0, 1]) == pytest.approx(0.0, abs=0.06)
    other = simulation("graphical", tacit.no_sync(), noise=0.01)
    assert torch.equal(other.replicas.parameters, run.replicas.parameters)
    with pytest.raises(UserError, match="noise of the first models"):
        simulation("graphical", tacit.no_sync(), noise=-1.0)


def test_a_stream_has_no_epochs_to_warm_up_in():
    recipe = tacit.dgc(lr=0.1, warmup=2)
    with pytest.raises(UserError, match="a warm-up counts epochs, which a stream has not"):
        tacit.Simulation(load("graphical"), recipe, tacit.LocalFleet(2))


def test_a_stream_is_not_partitioned():
    with pytest.raises(UserError, match="is a stream, which is not partitioned"):
        simulation("graphical", tacit.no_sync(), partition="sorted:0.5")


def test_a_stream_that_ends():
    run = simulation("digits-stream", tacit.no_sync())
    assert run.steps_per_epoch == run.stream.rounds == 143
    with pytest.raises(UserError, match="144 steps are more than the 143 rounds of this stream"):
        list(run.run(144))
    assert run.steps == 0  # it is said at once


def test_a_resumed_stream_goes_on_bit_for_bit():
    def fresh() -> tacit.Simulation:
        return simulation("graphical:drift=0.1", tacit.dynamic_averaging(0.05, every=2))

    whole, first, second = fresh(), fresh(), fresh()
    evaluations = list(whole.run(STEPS, evaluate_every=STEPS))
    for _ in range(13):
        first.step()
    saved = pickle.dumps((first.shared_state(), {k: first.worker_state(k) for k in range(K)}))
    second.load_state(*pickle.loads(saved))
    resumed = list(second.run(STEPS, evaluate_every=STEPS))
    assert torch.equal(second.replicas.parameters, whole.replicas.parameters)
    for field in ("rounds", "drifts", "conversations", "checks", "accuracy", "bytes"):
        assert getattr(resumed[0], field) == getattr(evaluations[0], field), field
    assert evaluations[0].drifts
    assert {entry[3] for entry in evaluations[0].conversations} == {True, False}


# -- on processes


def stream_run(fleet: Fleet) -> dict[str, Any]:
    recipe = tacit.dynamic_averaging(0.05, every=2, augmentation="nearest", weights="samples")
    run = simulation("graphical:at=12", recipe, fleet, execution="loop")
    *_, last = run.run(STEPS, evaluate_every=STEPS)
    return {"evaluation": last, "rows": run.replicas.parameters.clone()}


def child(rank: int) -> dict[str, Any]:
    return stream_run(tacit.ProcessGroupFleet(2, deterministic=True))


def test_decisions_on_processes_are_those_of_the_simulation(tmp_path_factory):
    processes = once(tmp_path_factory, "streams", lambda: run_processes(child, 2))
    expected = stream_run(LocalFleet(K, deterministic=True))
    for got in processes:
        for field in ("conversations", "checks", "drifts", "bytes", "ring_bytes", "accuracy"):
            assert getattr(got["evaluation"], field) == getattr(expected["evaluation"], field)
        rounds = zip(got["evaluation"].rounds, expected["evaluation"].rounds, strict=True)
        for one, other in rounds:
            assert one[1:] == other[1:]
            assert one[0] == pytest.approx(other[0], rel=1e-6)
    rows = torch.cat([got["rows"] for got in processes])
    assert torch.equal(rows, expected["rows"])
