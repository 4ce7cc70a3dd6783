"""EF21 and EF21-W."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.rig import Rig, noise
from tacit.errors import UserError
from tacit.memory import EF21, EF21W, ErrorFeedback, Memory
from tacit.topologies import Sampled

D, K = 40, 3
FIRST = noise(D, seed=1)
#: Of three workers whose losses are ``(c_i/2) ||x - t_i||^2``.
CURVATURES = (1.0, 2.0, 5.0)
TARGETS = noise(K, D, seed=2)


def quadratic(step: int, models: Tensor) -> Tensor:
    del step
    return torch.tensor(CURVATURES)[:, None] * (models - TARGETS)


def believed(memory: EF21) -> Tensor:
    """The combination of what the workers' ``h_i`` are, in double precision."""
    rows = memory.rows()["believed"].double()
    weights = memory.weights()
    return rows.mean(0) if weights is None else weights @ rows


# -- the counter-example: f_i(x) = <a_i, x>^2 + ||x||^2 / 4


A = torch.tensor([[-3.0, 2, 2], [2, -3, 2], [2, 2, -3]])
ONES = torch.ones(3)


def counter_example(step: int, models: Tensor) -> Tensor:
    del step
    return 2 * (A * models).sum(1, keepdim=True) * A + models / 2


def test_top_1_alone_diverges():
    """Every step multiplies x by 1 + 5.5 lr / 3."""
    lr = 0.00586
    run = Rig(Memory(), "topk(k=1)", ONES, 3, lr, download="identity")
    norm = float(run.run(counter_example, 200).norm())
    assert norm == pytest.approx(3**0.5 * (1 + 5.5 * lr / 3) ** 200, rel=1e-4)
    assert norm == pytest.approx(14.68, abs=0.02)


@pytest.mark.parametrize("memory", [EF21(), EF21(start="zero"), ErrorFeedback()])
def test_with_a_memory_top_1_converges(memory):
    run = Rig(memory, "topk(k=1)", ONES, 3, 0.00586, download="identity")
    model = run.run(counter_example, 600)
    assert float(model.norm()) < 0.05  # gradient descent would be at 0.03


# -- the ends


@pytest.mark.parametrize("start", ["whole", "zero"])
@pytest.mark.parametrize("memory", [EF21, lambda **o: EF21W(CURVATURES, **o)])
def test_without_loss_it_is_gradient_descent(memory, start):
    run = Rig(memory(start=start), "topk(density=1.0)", FIRST, K, download="identity")
    plain = FIRST.clone()
    for step in range(1, 31):
        plain -= 0.1 * quadratic(step, plain.expand(K, -1)).mean(0)
        run.run(quadratic, 1)
        torch.testing.assert_close(run.model, plain, rtol=1e-5, atol=1e-5)


def test_what_never_arrives_never_moves():
    run = Rig(EF21(start="zero"), "threshold(t=1e9)", FIRST)
    assert torch.equal(run.run(noise(20, 1, D), 20), FIRST)


def test_the_first_gradients_go_whole_and_are_charged():
    gradients = noise(2, K, D)
    whole, zero = (Rig(EF21(start=s), "topk(k=2)", FIRST, K) for s in ("whole", "zero"))
    torch.testing.assert_close(whole.step(gradients[0]), gradients[0].mean(0))
    assert whole.fleet.ledger.sent("gradient").tolist() == [4 * D] * K
    assert (zero.step(gradients[0]) != 0).sum() <= 2 * K
    assert zero.fleet.ledger.sent("gradient").max() < 30
    for run in (whole, zero):
        before = run.fleet.ledger.sent("gradient")
        run.step(gradients[1])
        assert (run.fleet.ledger.sent("gradient") - before).max() < 30


# -- what the workers believe


@pytest.mark.parametrize(
    ("memory", "rounds"), [(EF21(), 2000), (EF21(momentum=0.1), 300), (EF21W(CURVATURES), 300)]
)
def test_the_direction_is_the_mean_of_what_the_workers_believe(memory, rounds):
    """To what float32 rounds: of ``h_i`` once a round, of a mean of messages K times. Gradients are
    noise, so nearly every message is as large as it gets."""
    run = Rig(memory, "topk(k=3)", FIRST, K)
    gradients = noise(rounds, K, D)
    largest = 0.0
    for t in range(rounds):
        direction = run.step(gradients[t])
        largest = max(largest, float(memory.rows()["believed"].abs().max()))
        bound = (t + 1) * (2 * K + 1) * 2.0**-24 * largest
        assert float((direction.double() - believed(memory)).abs().max()) <= bound
    assert run.compression.given_up == 0
    assert largest < 40


def test_absent_workers_keep_what_they_are_believed_to_have():
    memory = EF21()
    run = Rig(memory, "topk(k=3)", FIRST, 4, topology=Sampled(0.5), seed=3)
    gradients = noise(30, 4, D)
    run.step(gradients[0])
    assert torch.equal(memory.rows()["believed"], gradients[0])  # everybody's, at the start
    present = []
    for t in range(1, 30):
        before = memory.rows()["believed"].clone()
        direction = run.step(gradients[t])
        changed = (memory.rows()["believed"] != before).any(1)
        present.append(changed.tolist())
        assert changed.tolist() == run.exchange.topology.participants(t + 1).tolist()
        torch.testing.assert_close(direction, believed(memory).float(), rtol=1e-5, atol=1e-5)
    assert all(sum(row) == 2 for row in present)
    assert len({tuple(row) for row in present}) > 3


def test_a_worker_without_a_gradient_counts_as_one_that_sends_zeros():
    memory = EF21(start="zero")
    run = Rig(memory, "topk(k=3)", FIRST, 2)
    run.present = torch.tensor([True, False])
    direction = run.step(torch.stack([noise(D), torch.full((D,), torch.nan)]))
    torch.testing.assert_close(direction, memory.rows()["believed"][0] / 2)
    assert not memory.rows()["believed"][1].any()


# -- momentum


def test_with_weight_1_the_moving_average_is_the_gradient():
    gradients = noise(20, K, D)
    models = [Rig(EF21(m), "topk(k=3)", FIRST, K).run(gradients, 20) for m in (None, 1.0)]
    assert torch.equal(*models)


def test_the_moving_average_begins_with_the_first_gradient():
    memory = EF21(momentum=0.25)
    gradients = noise(10, K, D)
    run = Rig(memory, "topk(k=3)", FIRST, K)
    expected = gradients[0].clone()
    for t in range(10):
        run.step(gradients[t])
        if t:
            expected = 0.75 * expected + 0.25 * gradients[t]
        torch.testing.assert_close(memory.rows()["averaged"], expected)


# -- EF21-W


@pytest.mark.parametrize("momentum", [None, 0.3])
@pytest.mark.parametrize("download", [None, "topk(k=5)"])
def test_with_a_homogeneous_compressor_weights_change_nothing(momentum, download):
    """The models are those of EF21, with constants that are given and with measured ones."""
    models = []
    for memory in (EF21(momentum), EF21W(CURVATURES, 10, momentum), EF21W(None, 5, momentum)):
        run = Rig(memory, "topk(k=3)", FIRST, K, 0.02, download)
        models.append(run.run(quadratic, 60))
        assert run.compression.given_up == 0
    for weighted in models[1:]:
        torch.testing.assert_close(weighted, models[0], rtol=1e-4, atol=1e-5)
    assert (models[0] - FIRST).norm() > 1


@pytest.mark.parametrize("compressor", ["threshold(t=1.5)", "topk(k=3,values=bf16)"])
def test_with_another_compressor_they_do(compressor):
    models = [
        Rig(memory, compressor, FIRST, K, 0.02, "identity").run(quadratic, 30)
        for memory in (EF21(), EF21W(CURVATURES))
    ]
    assert (models[0] - models[1]).abs().max() > 1e-4


def test_weights_are_shares_of_the_constants():
    memory = EF21W(CURVATURES)
    Rig(memory, "topk(k=3)", FIRST, K)
    assert memory.weights().tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])


def test_measured_constants_are_those_of_quadratics():
    memory = EF21W(estimate=4)
    run = Rig(memory, "topk(k=3)", FIRST, K, 0.02)
    run.run(quadratic, 3)
    assert memory.weights().tolist() == [1 / 3] * 3
    run.run(quadratic, 1)
    assert memory.weights().tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-4)
    assert memory.worker_state(2)["largest"].tolist() == pytest.approx([5.0], rel=1e-4)
    before = memory.weights().clone()
    run.run(lambda step, models: 100 * step * models, 3)
    assert torch.equal(memory.weights(), before)


def test_measured_constants_are_lower_bounds_and_come_close():
    """Of uneven quadratics: with d curvatures up to L_i the path turns to the steepest of them."""
    factors = torch.linspace(0.1, 1.0, 8)

    def gradients(step: int, models: Tensor) -> Tensor:
        del step
        return torch.tensor(CURVATURES)[:, None] * factors * models

    memory = EF21W(estimate=30)
    run = Rig(memory, "topk(k=4)", torch.ones(8), K, 0.02, "identity")
    run.run(gradients, 30)
    for row, constant in enumerate(CURVATURES):
        measured = float(memory.worker_state(row)["largest"])
        assert 0.8 * constant < measured <= constant * (1 + 1e-4)


def test_the_change_of_weights_leaves_the_direction():
    memory = EF21W(estimate=5, start="zero")
    run = Rig(memory, "topk(k=3)", FIRST, K, 0.02)
    for step in range(1, 11):
        before = memory.weights().clone()
        direction = run.step(quadratic(step, run.rows.parameters))
        assert (memory.weights() != before).any() == (step == 5)
        torch.testing.assert_close(direction, believed(memory).float(), rtol=1e-5, atol=1e-5)


def test_workers_that_never_moved_keep_equal_weights():
    memory = EF21W(estimate=3)
    run = Rig(memory, "topk(k=3)", FIRST, K, lr=0.0)
    run.run(noise(6, K, D), 6)
    assert memory.weights().tolist() == [1 / 3] * 3


def test_a_worker_that_is_flat_does_not_divide_by_zero():
    memory = EF21W(estimate=3)
    run = Rig(memory, "topk(k=3)", FIRST, K, 0.02)
    flat = torch.tensor([[0.0], [1.0], [1.0]])
    model = run.run(lambda step, models: flat * quadratic(step, models) + (1 - flat), 30)
    assert model.isfinite().all()
    constants = [memory.worker_state(row)["largest"].item() for row in range(K)]
    assert constants == [0, pytest.approx(2.0, rel=1e-4), pytest.approx(5.0, rel=1e-4)]
    assert memory.weights().tolist() == pytest.approx([3.5 / 10.5, 2 / 10.5, 5 / 10.5], rel=1e-4)


def test_a_worker_that_is_nearly_flat_has_a_thousandth_of_the_mean():
    memory = EF21W(estimate=3)
    run = Rig(memory, "topk(k=3)", FIRST, K, 0.02)
    nearly = torch.tensor([[1e-6], [1.0], [1.0]])
    run.run(lambda step, models: nearly * quadratic(step, models), 10)
    weights = memory.weights()
    assert float(weights[0] / weights[1:].sum()) == pytest.approx(1e-3 / 3, rel=1e-3)


@pytest.mark.parametrize("constants", [(1e-5, 1.0, 1e4), (1e-9, 1.0, 1.0), (1e308, 1e308, 1e308)])
def test_constants_that_are_given_are_taken_as_they_are(constants):
    memory = EF21W(constants)
    Rig(memory, "topk(k=3)", FIRST, K)
    shares = [constant / max(constants) for constant in constants]  # the sum may overflow
    expected = [share / sum(shares) for share in shares]
    assert memory.weights().tolist() == pytest.approx(expected, rel=1e-12)


def test_smoothness_of_vectors_whose_squares_overflow():
    memory = EF21W(estimate=3)
    run = Rig(memory, "topk(k=3)", FIRST * 1e20, K, 0.02)
    run.run(lambda step, models: torch.tensor(CURVATURES)[:, None] * models, 3)
    assert memory.weights().tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-4)


# -- memory


@pytest.mark.parametrize("memory", [EF21(), EF21W(CURVATURES), EF21W(estimate=3)])
def test_no_step_makes_vectors_of_its_own(memory):
    """A fresh one costs more than the step; what several workers want to send is in use at once."""
    Rig(memory, "topk(k=3)", FIRST, K)
    places = set()
    for step in range(1, 5):
        gradients = noise(K, D, seed=step)
        wanted = [memory.outgoing(row, gradients[row]) for row in range(K)]
        scales = [memory.scale(row) for row in range(K)]
        for row in range(K):
            expected = gradients[row] / scales[row] - memory.rows()["believed"][row]
            assert torch.equal(wanted[row], expected)
            memory.sent(row, wanted[row], None)
        places.add((*(w.data_ptr() for w in wanted), memory.direction(noise(D)).data_ptr()))
    assert len(places) == 1
    assert len(set(places.pop())) == K + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EF21(momentum=0.0), "weight of the new gradient"),
        (lambda: EF21(momentum=1.1), "weight of the new gradient"),
        (lambda: EF21(start="dense"), "starts whole or zero"),
        (lambda: EF21W([1.0, 0.0]), "above 0 and finite"),
        (lambda: EF21W([]), "above 0 and finite"),
        (lambda: EF21W(1), "a constant for each worker, not 1"),
        (lambda: EF21W("12"), "above 0 and finite, not '1'"),
        (lambda: EF21W([1e-300, 1e300]), "too far apart for float32"),
        (lambda: EF21W(estimate=0), "estimate must be a whole number, at least 2, not 0"),
        (lambda: EF21W(estimate=1), "at least 2, not 1"),
        (lambda: EF21W(estimate=2.5), "at least 2, not 2.5"),
        (lambda: EF21(momentum="0.9"), "the new gradient, must be in .* not '0.9'"),
        (lambda: ErrorFeedback(decay="x"), "decay must be in .* not 'x'"),
        (lambda: Rig(EF21W([1.0, 2.0]), "topk(k=3)", FIRST, 3), "2 smoothness constants for 3"),
        (lambda: ErrorFeedback(decay=1.5), "decay must be in"),
    ],
)
def test_impossible_memories(make, message):
    with pytest.raises(UserError, match=message):
        make()
