from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.collectives import SIZES, exercise, messages, rows, weights
from tacit.errors import PeerError, UserError
from tacit.fleet import LocalFleet, layout

K = 6


@pytest.fixture(scope="module")
def results():
    return exercise(LocalFleet(K))


@pytest.mark.parametrize("n", SIZES)
def test_against_numpy(results, n):
    every = rows(K, n).double().numpy()
    np.testing.assert_allclose(results[f"mean {n}"], every.mean(axis=0), rtol=1e-5, atol=1e-7)
    assert results[f"mean {n}"].shape == (n,)
    np.testing.assert_array_equal(results[f"max {n}"], every.max(axis=0))
    np.testing.assert_array_equal(results[f"rows {n}"], every)


def test_weighted_mean_leaves_out_workers_of_weight_zero(results):
    share = weights(K).numpy() / weights(K).sum().item()
    every = rows(K, 5).double().numpy()
    expected = sum(share[k] * every[k] for k in range(K) if k != 1)
    np.testing.assert_allclose(results["weighted"], expected, rtol=1e-5)
    assert torch.equal(results["one worker"], rows(K, 5)[-1])


def test_a_result_that_is_waited_for(results):
    assert torch.equal(results["late"], results["mean 3000"])
    assert torch.equal(results["late again"], results["mean 3000"])
    assert torch.equal(results["later"], results["mean 5"])
    assert torch.equal(results["mean in pieces"], LocalFleet(K).mean(rows(K, 50), "model"))


def test_other_types_and_strides(results):
    assert results["mean float64"].dtype == torch.float64
    torch.testing.assert_close(results["mean float64"], rows(K, 5, torch.float64).mean(0))
    assert torch.equal(results["rows int64"], rows(K, 5, torch.int64))
    assert torch.equal(results["rows strided"], rows(K, 10)[:, ::2])
    torch.testing.assert_close(results["mean strided"], rows(K, 10)[:, ::2].mean(0))


def test_broadcast(results):
    assert torch.equal(results["broadcast"], rows(K, 5)[0])


def test_any(results):
    assert results["any nobody"] is False
    assert results["any first"] is True
    assert results["any last"] is True


def test_bytes(results):
    assert results["bytes"] == messages(K)
    assert b"" in results["bytes"]
    assert results["no bytes"] == [b""] * K
    assert results["within"] == messages(K)
    assert results["beyond"] is None
    assert results["collected"] == b"".join(messages(K))
    assert results["nothing"] == b""
    first = next(k for k in range(K) if len(messages(K)[k]) > 10)
    assert results["refused"] == [
        f"worker {first} announces a message of {len(messages(K)[first]):,} bytes; at most 10 are "
        "expected",
        "the coordinator announces a message of 11 bytes; at most 10 are expected",
    ]


def test_ledger(results):
    fleet = LocalFleet(K)
    fleet.ledger.load_state_dict(results["ledger"])
    by_all = [4 * n for n in SIZES] + [8 * 5, 4 * 5, 4 * 5, 4 * 50]  # doubles, strided, pieces
    weighted, one = 4 * 5, 4 * 5
    expected = [sum(by_all) + weighted] * K
    expected[1] -= weighted  # takes no part
    expected[-1] += one
    lengths = [len(message) for message in messages(K)]
    collected = [n + length for n, length in zip(expected, lengths, strict=True)]
    assert fleet.ledger.sent("model").tolist() == collected
    # the coordinator gives all of it to everybody; "rows strided" are gathered from the others
    spread = [n + sum(lengths) + 4 * 5 * (K - 2) for n in expected]
    assert fleet.ledger.received("model").tolist() == spread
    assert fleet.ledger.count("model") == len(by_all) + 2 + 4
    assert [e.overlap for e in fleet.ledger if e.kind == "monitoring"] == [1, 1]
    # gathered twice; what would have been too long was not sent
    sent = [2 * length for length in lengths]
    assert (fleet.ledger.sent("gradient") - 4 * sum(SIZES)).tolist() == sent
    # 1 byte for each question whether any flag is set; 8 bytes say how long a message is
    told = 7 * 8  # also of what was refused then
    control = 4 * (sum(SIZES) + 5) + 8 * 5 + 3 + told
    broadcast = 4 * 5  # by worker 0 to the others
    assert fleet.ledger.sent("control").tolist() == [control + broadcast] + [control] * (K - 1)
    control += (8 * 5 + told) * (K - 2)  # gathered from the others, against one's own
    control += 3 * 8  # how long the coordinator's messages are
    received = [control] + [control + broadcast] * (K - 1)
    assert fleet.ledger.received("control").tolist() == received


def test_hosted_and_leader():
    fleet = LocalFleet(4)
    assert (fleet.size, list(fleet.hosted), fleet.leader) == (4, [0, 1, 2, 3], True)


def test_total_is_a_copy():
    values = torch.tensor([1.0, 2.0])
    total = LocalFleet(3).total(values)
    values.zero_()
    assert total.tolist() == [1.0, 2.0]


def test_a_mean_is_new_memory_even_for_one_worker():
    row = torch.ones(1, 4)
    mean = LocalFleet(1).mean(row, "model")
    mean.zero_()
    assert row.sum() == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.mean(torch.zeros(2, 5), "model"), "each of 3 hosted workers"),
        (lambda f: f.mean(torch.zeros(3), "model"), "each of 3 hosted workers"),
        (lambda f: f.mean(torch.zeros(3, 2, 2), "model"), "each of 3 hosted workers"),
        (lambda f: f.mean(torch.zeros(3, 5, dtype=torch.int64), "model"), "floating-point"),
        (lambda f: f.mean(torch.zeros(3, 5), "model", torch.ones(2)), "weights must be 3"),
        (lambda f: f.mean(torch.zeros(3, 5), "model", torch.zeros(3)), "not all zero"),
        (lambda f: f.mean(torch.zeros(3, 5), "model", torch.tensor([1, 1, -1])), "negative"),
        (lambda f: f.mean(torch.zeros(3, 5), "model", torch.tensor([1, 1, torch.nan])), "weights"),
        (lambda f: f.mean(torch.zeros(3, 5), "model", torch.tensor([1, 1, torch.inf])), "weights"),
        (lambda f: f.max(torch.zeros(4, 5), "model"), "each of 3 hosted workers"),
        (lambda f: f.any(torch.zeros(4), "control"), "flag"),
        (lambda f: f.any(torch.zeros(3, 1), "control"), "flag"),
        (lambda f: f.gather_rows(torch.zeros(()), "control"), "each of 3 hosted workers"),
        (lambda f: f.gather_bytes([b"", b""], "control"), "2 messages from 3 hosted workers"),
        (lambda f: LocalFleet(0), "at least 1 worker"),
    ],
)
def test_wrong_input_is_one_clear_line_and_not_charged(call, message):
    fleet = LocalFleet(3)
    with pytest.raises(UserError, match=message) as caught:
        call(fleet)
    assert "\n" not in str(caught.value)
    assert len(fleet.ledger) == 0


class _Lying(LocalFleet):
    def _gather_lengths(self, lengths: Sequence[int]) -> list[int]:
        return [*lengths[:-1], -1]

    def _spread_length(self, length: int) -> int:
        return -length


@pytest.mark.parametrize(
    ("call", "sender"),
    [
        (lambda f: f.gather_bytes([b"a", b"b", b"c"], "model"), "worker 2"),
        (lambda f: f.collect_bytes([b"a", b"b", b"c"], "model"), "worker 2"),
        (lambda f: f.spread_bytes(b"a", "model"), "the coordinator"),
    ],
)
def test_a_length_that_is_none_is_refused_and_its_sender_named(call, sender):
    with pytest.raises(PeerError, match=f"{sender} announces a message of -1 bytes$"):
        call(_Lying(3))


@given(st.integers(1, 40), st.data())
def test_layout_shares_workers_evenly(size, data):
    processes = data.draw(st.integers(1, size))
    parts = layout(size, processes)
    assert [worker for part in parts for worker in part] == list(range(size))
    assert len(parts) == processes
    assert {len(part) for part in parts} <= {size // processes, -(-size // processes)}


@pytest.mark.parametrize("processes", [0, 4])
def test_layout_needs_a_worker_for_each_process(processes):
    with pytest.raises(UserError, match="cannot share 3 workers"):
        layout(3, processes)
