"""What each compressor has of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from listed import error, gaussian, uniform_worst

from tacit.codecs import encode_positions, top_k
from tacit.compressors import (
    COMPRESSORS,
    QSGD,
    BlockTopK,
    Compressor,
    Identity,
    LowRank,
    Natural,
    PerTensor,
    RandomK,
    SampledTopK,
    Sign,
    Threshold,
    TopK,
    Uniform,
    as_compressor,
    chain,
    compressor,
)
from tacit.errors import PeerError, UserError
from tacit.rng import torch_stream
from tacit.setting import Setting

NAME = ("worker", 3, "step", 17)


def there_and_back(made: Compressor, vector: torch.Tensor, *name: str | int) -> torch.Tensor:
    return made.decode(made.encode(vector, *name), len(vector), "bob", *name)


def mean_error(made: Compressor, vector: torch.Tensor, draws: int) -> float:
    steps = range(draws)
    return float(np.mean([error(there_and_back(made, vector, "step", t), vector) for t in steps]))


# -- selection


@pytest.mark.parametrize("n", [1, 9, 1000, 50_000])
def test_top_k_is_the_exact_one(n: int) -> None:
    vector = gaussian(n).round(decimals=1)  # with ties
    made = TopK(density=0.03)
    decoded = there_and_back(made, vector)
    chosen = top_k(vector, made.most(n))
    assert torch.equal(decoded[chosen], vector[chosen])
    decoded[chosen] = 0
    assert not decoded.any()


def test_the_message_of_top_k_is_its_positions_and_values_and_a_header() -> None:
    vector = gaussian(100_000)
    for values, bits in (("fp32", 32), ("int8", 8), ("sign", 1)):
        message = TopK(density=0.01, values=values).encode(vector)
        positions = encode_positions(top_k(vector, 1000), 100_000)
        assert len(message) <= 12 + 2 + len(positions) + 5 + 1000 * bits // 8


def test_density_rounds_up_and_k_is_at_most_n() -> None:
    assert [TopK(density=0.07).most(n) for n in (0, 1, 100, 101)] == [0, 1, 7, 8]
    assert [TopK(k=3).most(n) for n in (0, 1, 3, 100)] == [0, 1, 3, 3]
    assert TopK(density=1).most(10) == 10


def test_sampling_finds_nearly_what_sorting_does() -> None:
    vector = gaussian(60_000) ** 3
    made = SampledTopK(density=0.01)
    sent = [int((there_and_back(made, vector, "step", t) != 0).sum()) for t in range(10)]
    assert max(sent) <= made.most(60_000) == 600
    assert min(sent) >= 300
    exact = error(there_and_back(TopK(density=0.01), vector), vector)
    assert mean_error(made, vector, 10) < 1.05 * exact


def test_blocks_have_k_each_and_the_last_its_part() -> None:
    vector = gaussian(1000)
    vector[:300] *= 1e6
    decoded = there_and_back(BlockTopK(k=5, block=64), vector)
    counts = [int((part != 0).sum()) for part in decoded.split(64)]
    assert counts == [5] * 15 + [math.ceil(5 * 40 / 64)]
    for part, sent in zip(vector.split(64), decoded.split(64), strict=True):
        chosen = top_k(part, int((sent != 0).sum()))
        assert torch.equal(sent[chosen], part[chosen])


def test_blocks_of_equal_entries_send_the_first() -> None:
    decoded = there_and_back(BlockTopK(k=2, block=4), torch.ones(10))
    assert decoded.tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 0]


def test_a_block_larger_than_a_chunk() -> None:
    vector = gaussian(700_001)
    decoded = there_and_back(BlockTopK(k=10, block=300_000), vector)
    assert [int((part != 0).sum()) for part in decoded.split(300_000)] == [10, 10, 4]


def test_a_threshold_sends_what_reaches_it() -> None:
    vector = torch.tensor([0.5, -2.0, 1.9, 2.0, 0.0])
    assert there_and_back(Threshold(2), vector).tolist() == [0, -2, 0, 2, 0]
    assert not there_and_back(Threshold(3), vector).any()


def test_random_positions_are_drawn_alike_by_all_workers() -> None:
    vector = gaussian(200)
    made = RandomK(density=0.1)
    sent = [there_and_back(made, vector, "worker", w, "step", 4) for w in range(3)]
    assert torch.equal(sent[0], sent[1])
    assert torch.equal(sent[0], sent[2])
    assert not torch.equal(sent[0], there_and_back(made, vector, "worker", 0, "step", 5))
    own = RandomK(density=0.1, shared=False)
    one, two = (there_and_back(own, vector, "worker", w, "step", 4) for w in range(2))
    assert not torch.equal(one, two)


def test_values_of_random_positions_round_differently_at_each_worker() -> None:
    made = RandomK(density=0.5, scaled=True, values="int4")
    one, two = (there_and_back(made, gaussian(400), "worker", w, "step", 4) for w in range(2))
    assert torch.equal(one != 0, two != 0) or ((one != 0) ^ (two != 0)).sum() < 100
    assert not torch.equal(one, two)


def test_all_positions_are_equally_likely() -> None:
    made, draws = RandomK(k=3), 4000
    seen = torch.zeros(12)
    for step in range(draws):
        seen[made.positions(12, ("step", step))] += 1
    expected = draws * 3 / 12
    assert float((seen - expected).abs().max()) < 4.5 * math.sqrt(expected * 0.75)


@pytest.mark.parametrize("other", [{"k": 4}, {"k": 3, "scaled": True}, {"k": 3, "shared": False}])
def test_who_draws_other_positions_is_noticed(other: dict[str, int]) -> None:
    message = RandomK(k=3).encode(gaussian(50), *NAME)
    if "scaled" in other:  # the same positions, times a constant: the receiver cannot know
        return
    with pytest.raises(PeerError, match=r"bob: .*positions are others"):
        RandomK(**other).decode(message, 50, "bob", *NAME)
    elsewhere = RandomK(k=3)
    elsewhere.start(Setting(workers=2, d=50, seed=5))
    for made, name in ((elsewhere, NAME), (RandomK(k=3), ("worker", 3, "step", 18))):
        with pytest.raises(PeerError, match=r"bob: .*positions are others"):
            made.decode(message, 50, "bob", *name)


# -- values


def test_constants_are_reached_where_they_are_said_to_be() -> None:
    """Not only upper bounds: a vector for each comes within 3 % (random ones: on average)."""
    n = 50

    def beside(value: float) -> torch.Tensor:
        return torch.tensor([1.0] + [value] * (n - 1))

    cases: list[tuple[Compressor, torch.Tensor]] = [
        (TopK(k=5), torch.ones(n)),
        (RandomK(k=5), torch.ones(n)),
        (BlockTopK(k=2, block=10), torch.ones(n)),
        (Uniform(8, "nearest"), beside(1 / 254 - 1e-6)),
        (Uniform(4, "nearest"), beside(1 / 14 - 1e-6)),
        (Uniform(2, "nearest", chunk=None), beside(0)),
        (Sign(), beside(0)),
        (LowRank(rank=1, shape=(10, 5), warm=False), torch.eye(10, 5).flatten()),
    ]
    for made, vector in cases:
        alpha = made.alpha(len(vector))
        if alpha is None:  # int2 with so many entries: an error above the vector itself
            assert error(there_and_back(made, vector), vector) > 1
            continue
        found = mean_error(made, vector, 400 if isinstance(made, RandomK | LowRank) else 1)
        assert 1 - alpha == pytest.approx(found, rel=0.03), made
    unbiased: list[tuple[Compressor, torch.Tensor]] = [
        (Natural(), torch.full((n,), 4 / 3)),
        (RandomK(k=5, scaled=True), torch.ones(n)),
        (Uniform(8), beside(uniform_worst(n, 255))),
        (Uniform(4), beside(uniform_worst(n, 15))),
        (Uniform(2), beside(0)),
    ]
    for made, vector in unbiased:
        assert made.omega(n) == pytest.approx(mean_error(made, vector, 400), rel=0.03), made


def test_natural_gives_the_powers_of_two_beside_an_entry() -> None:
    vector = torch.tensor([3.0, -0.75, 1.0, -4.0, 0.0, 1e-44, 5e-39])
    for step in range(20):
        decoded = there_and_back(Natural(), vector, "step", step)
        low = 2.0 ** torch.floor(torch.log2(vector.double().abs()))
        size = decoded.double().abs()
        assert torch.all((size == low) | (size == 2 * low) | (vector == 0))
        assert torch.all((size == low) | (low != vector.abs()))  # a power of two stays
        assert torch.equal(decoded.sign(), vector.sign())


def test_natural_is_unbiased_where_exponents_do_not_fit() -> None:
    """Entries 2^253 times smaller than the largest one are sometimes sent, and then larger."""
    vector = torch.tensor([2.0**120] + [2.0**-137] * 400)
    rows = torch.stack([there_and_back(Natural(), vector, "step", t) for t in range(50)])
    small = rows[:, 1:].double()
    assert set(small.unique().tolist()) == {0.0, 2.0**-133}
    mean, size = float(small.mean()), 2.0**-137
    assert abs(mean - size) < 4.5 * float(small.std()) / math.sqrt(small.numel())


def _spread_exponents() -> list[tuple[torch.Tensor, float]]:
    """Vectors, and bits an entry that are enough."""
    flat = torch.rand(20_000, generator=torch_stream(0, "flat"))
    narrow = gaussian(20_000)
    return [
        (narrow, 4),
        (torch.cat([narrow, torch.tensor([1e30])]), 4),
        (2.0 ** (250 * flat - 125), 9),
    ]


def test_natural_takes_nine_bits_or_fewer() -> None:
    for vector, bits in _spread_exponents():
        assert 8 * len(Natural().encode(vector)) <= bits * 20_000 + 300


def test_natural_refuses_what_has_no_upper_neighbour() -> None:
    with pytest.raises(UserError, match=r"above 2\^127"):
        Natural().encode(torch.tensor([1.0, -3e38]))
    assert there_and_back(Natural(), torch.tensor([2.0**127]))[0] == 2.0**127


def test_qsgd_is_sparse_below_the_root_of_n() -> None:
    """At most s^2 + sqrt(n) s entries on average (the paper's Lemma 3.1), a few bits each."""
    vector, n = gaussian(40_000), 40_000
    message = QSGD(levels=1).encode(vector)
    assert 8 * len(message) < 1.2 * math.sqrt(n) * 10
    decoded = there_and_back(QSGD(levels=1), vector)
    assert 100 < int((decoded != 0).sum()) < 1.2 * (1 + math.sqrt(n))


def test_qsgd_never_exceeds_the_norm_of_its_bucket() -> None:
    vector = gaussian(100)
    decoded = there_and_back(QSGD(4, bucket=10), vector)
    for part, sent in zip(vector.split(10), decoded.split(10), strict=True):
        levels = sent.double() / part.double().norm() * 4
        torch.testing.assert_close(levels, levels.round(), atol=1e-5, rtol=0)
        assert float(levels.abs().max()) < 4 + 1e-5


def test_qsgd_refuses_other_levels_and_norms_beyond_float32() -> None:
    message = QSGD(4).encode(gaussian(20))
    with pytest.raises(PeerError, match="other levels than 5"):
        QSGD(5).decode(message, 20, "bob")
    with pytest.raises(UserError, match="beyond float32"):
        QSGD().encode(torch.full((20,), 2e38))


def test_a_chain_is_the_sparsifier_with_other_values() -> None:
    vector, plain = gaussian(500), TopK(density=0.1)
    coded = chain(plain, "int8")
    assert isinstance(coded, TopK)
    assert coded.encode(vector) == TopK(density=0.1, values="int8").encode(vector)
    assert plain.encode(vector) == TopK(density=0.1).encode(vector)
    sent = there_and_back(plain, vector) != 0
    assert torch.equal(there_and_back(chain(plain, Natural()), vector) != 0, sent)


def test_a_chain_ends_with_what_writes_every_entry() -> None:
    with pytest.raises(UserError, match="TopK: it drops entries"):
        chain(TopK(k=3), TopK(k=2))  # type: ignore[arg-type]


# -- low rank


def test_a_matrix_of_low_rank_is_exact() -> None:
    a, b = gaussian(60).reshape(30, 2), gaussian(24).reshape(2, 12)
    vector = (a @ b).flatten()
    for shape in ((30, 12), (12, 30), "30x12"):
        matrix = vector if shape != (12, 30) else vector.reshape(30, 12).T.flatten()
        decoded = there_and_back(LowRank(rank=2, shape=shape), matrix, *NAME)
        torch.testing.assert_close(decoded, matrix, atol=1e-5, rtol=1e-4)


def test_full_rank_loses_nothing() -> None:
    vector = gaussian(47)
    torch.testing.assert_close(there_and_back(LowRank(rank=99), vector, *NAME), vector)


def spectrum() -> tuple[torch.Tensor, float]:
    """A 40x25 matrix whose singular values fall slowly, and the least error of rank 3."""
    u, _, v = torch.linalg.svd(gaussian(1000).reshape(40, 25), full_matrices=False)
    values = 0.8 ** torch.arange(25)
    vector = (u * values @ v).flatten()
    return vector, float(values[3:].square().sum() / values.square().sum())


def test_a_warm_start_finds_the_best_matrix_of_its_rank() -> None:
    vector, best = spectrum()
    made = LowRank(rank=3, shape=(40, 25))
    steps = range(12)
    errors = [error(there_and_back(made, vector, "worker", 0, "step", t), vector) for t in steps]
    assert errors[-1] < 1.01 * best
    assert errors[0] > 1.1 * best
    cold = LowRank(rank=3, shape=(40, 25), warm=False)
    again = [error(there_and_back(cold, vector, "worker", 0, "step", t), vector) for t in steps]
    assert min(again) > 1.02 * best


def test_a_resumed_run_goes_on_from_the_same_start() -> None:
    """All workers at once, or one by one."""

    def messages(made: LowRank, steps: range) -> list[bytes]:
        return [
            made.encode(gaussian(100 + t)[:100], "worker", w, "step", t)
            for t in steps
            for w in (0, 1, 11)
        ]

    whole = LowRank(rank=2)
    messages(whole, range(4))
    state = whole.state_dict()
    assert {tuple(start.shape) for start in state.values()} == {(10, 2)}
    rows = {w: whole.worker_state(w) for w in (0, 1, 11)}
    assert all(len(row) == 1 for row in rows.values())
    expected = messages(whole, range(4, 7))
    one, two = LowRank(rank=2), LowRank(rank=2)
    one.load_state_dict(state)
    for w, row in rows.items():
        two.load_worker_state(w, row)
    assert messages(one, range(4, 7)) == expected
    assert messages(two, range(4, 7)) == expected
    assert messages(LowRank(rank=2), range(4, 7)) != expected


def test_workers_and_lengths_have_starts_of_their_own() -> None:
    vector, _ = spectrum()
    made = LowRank(rank=3)
    for step in range(3):
        made.encode(vector, "worker", 0, "step", step)
        made.encode(vector[:100], "worker", 0, "step", step)
    assert made.encode(vector, "worker", 1, "step", 3) == LowRank(rank=3).encode(
        vector, "worker", 1, "step", 3
    )


def test_a_vector_of_zeros_does_not_spoil_the_start() -> None:
    vector, _ = spectrum()
    one, two = LowRank(rank=3), LowRank(rank=3)
    one.encode(vector, *NAME)
    two.encode(vector, *NAME)
    two.encode(torch.zeros(1000), *NAME)
    assert one.encode(vector, *NAME) == two.encode(vector, *NAME)


def test_a_shape_must_fit() -> None:
    with pytest.raises(UserError, match="47 numbers is no 6x7"):
        LowRank(shape=(6, 7)).encode(gaussian(47))
    for wrong in ("6by7", "6x", (6,), (0, 7)):
        with pytest.raises(UserError, match="side"):
            LowRank(shape=wrong)  # type: ignore[arg-type]


# -- names


def test_names_on_the_wire_are_distinct_and_stay() -> None:
    made = ["identity", "natural", "qsgd", "topk:k=1", "sampled_topk:density=1", "block_topk"]
    made += ["threshold:t=1", "randomk:k=1", "lowrank"]
    assert [compressor(text).kind for text in made] == [1, 2, 3, 16, 17, 18, 19, 20, 32]
    assert [compressor(text).code for text in made] == [1, 18, 19, 1, 1, 1, 1, 1, 1]
    assert {type(compressor(text)) for text in [*made, "uniform", "sign"]} == {
        *COMPRESSORS.values()
    }


def test_the_first_bytes_of_a_message_stay() -> None:
    message = TopK(k=2, values="fp16").encode(torch.tensor([0.0, 4.0, 0.0, -1.0]))
    assert message.hex() == "c11002" + message[3:7].hex() + "0402" + "0201" + "0a" + (
        message[12:].hex()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("topc:k=3", "did you mean 'topk'"),
        ("topk", "either a density or k"),
        ("topk:k=3,density=0.1", "either a density or k"),
        ("topk:k=0", "k must be a whole number, at least 1, not 0"),
        ("topk:k=2.5", "at least 1, not 2.5"),
        ("topk:density=2", r"density must be in \(0, 1\]"),
        ("topk:density=many", r"compressor topk: density must be in \(0, 1\], not 'many'"),
        ("topk:density=true", "density must be in"),
        ("randomk:density=many", "randomk: density must be in"),
        ("sampled_topk:density=many", "density must be in"),
        ("sampled_topk:density=0.1,ratio=much", "ratio must be in .* not 'much'"),
        ("threshold:t=much", "the threshold t must be above 0 and finite, not 'much'"),
        ("uniform:chunk=much", "chunk must be a whole number"),
        ("sign:chunk=-4", "chunk must be a whole number, at least 1"),
        ("topk:k=3,values=int7", "value code 'int7'; did you mean 'int"),
        ("topk:k=3,vaules=int8", "did you mean 'values'"),
        ("sampled_topk:density=0.1,ratio=0", "ratio must be"),
        ("block_topk:k=9,block=8", "k = 9 entries of a block of 8"),
        ("threshold:t=0", "above 0"),
        ("threshold:t=inf", "finite"),
        ("uniform:bits=3", "8, 4 or 2"),
        ("uniform:rounding=up", "nearest or random"),
        ("uniform:chunk=100", "power of two"),
        ("identity:values=int8", "fp32, fp16 or bf16"),
        ("qsgd:levels=0", "levels must be"),
        ("qsgd:levels=100000", "above 65536"),
        ("qsgd:bucket=0", "bucket must be"),
        ("lowrank:rank=0", "rank must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        compressor(text)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("what", [3, 0.5, True, object])
def test_what_is_no_compressor(what) -> None:
    with pytest.raises(UserError, match=r"a compressor is written as topk\(density=0.01\), not"):
        as_compressor(what)


@pytest.mark.parametrize(
    ("text", "density"),
    [
        ("topk(density=0.5)", 0.5),
        ("sampled_topk(density=0.5)", 0.5),
        ("randomk(density=0.5)", 0.5),
        ("topk(k=3)", None),
        ("block_topk", None),
        ("qsgd", None),
    ],
)
def test_the_density_of_a_compressor(text, density) -> None:
    made = compressor(text)
    assert made.density == PerTensor(made).density == density
    if density is None:
        with pytest.raises(UserError):
            made.set_density(0.25)
    else:
        made.set_density(0.25)
        assert made.density == PerTensor(made).density == 0.25


def test_options_as_on_the_command_line() -> None:
    made = compressor("randomk:density=0.25,scaled=true,values=int4")
    assert isinstance(made, RandomK)
    assert made.scaled
    assert made.most(100) == 25
    assert isinstance(compressor("identity"), Identity)
