from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tacit.errors import UserError
from tacit.fleet import Ledger, Link, predicted_seconds
from tacit.fleet.ledger import OPERATIONS, SMALL_MESSAGE

MS = 1e-3


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("100mbit,20ms", Link(100e6, 0.02)),
        ("1gbit", Link(1e9)),
        ("2.5 Gbit, 300us, STAR", Link(2.5e9, 300e-6, "star")),
        ("56kbit,1s,ring", Link(56e3, 1.0)),
        ("8bit,star", Link(8.0, 0.0, "star")),
    ],
)
def test_parse(text, link):
    assert Link.parse(text) == link


@pytest.mark.parametrize(
    "text",
    ["", "100", "100mb", "mbit", "1.2.3mbit", "1e9bit", "-1mbit", "1mbit,5", "1mbit,5min",
     "1mbit,20ms,mesh", "1mbit;20ms", "0mbit,20ms", ".mbit", "1mbit,.ms", "nanmbit"],
)  # fmt: skip
def test_bad_links_are_one_clear_line(text):
    with pytest.raises(UserError, match="link") as caught:
        Link.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, 0.0), (1.0, -1.0), (float("nan"), 0.0),
                                    (1.0, float("nan")), (float("inf"), 0.0)])  # fmt: skip
def test_impossible_links(values):
    with pytest.raises(UserError, match="bandwidth must be above 0"):
        Link(*values)


@given(
    st.floats(1e-6, 1e18),
    st.floats(0, 1e4),
    st.sampled_from(["ring", "star"]),
)
@example(123456789.0, 1 / 3, "ring")
@example(1e15, 1e-9, "star")
def test_text_reads_back_as_the_same_link(bandwidth, latency, topology):
    link = Link(bandwidth, latency, topology)
    assert Link.parse(str(link)) == link


def test_text_is_what_a_person_would_write():
    assert str(Link.parse("100mbit,20ms")) == "100mbit,20ms"
    assert str(Link(1e9, 0.0, "star")) == "1gbit,0ms,star"
    assert str(Link(2.5e3, 0.5e-3)) == "2.5kbit,0.5ms"


def _seconds(link, operation, payload, participants):
    columns = (np.array([value]) for value in (operation, payload, participants))
    return float(link.seconds(*columns)[0])


REDUCE, GATHER, BROADCAST = 0, 1, 2


@given(st.integers(2, 100), st.integers(1, 10**9))
def test_gathering_takes_one_latency_however_many_workers_and_bytes(workers, payload):
    link, instant = Link(8e6, 10.0), Link(8e6)
    seconds = _seconds(link, GATHER, payload, workers)
    assert seconds - _seconds(instant, GATHER, payload, workers) == pytest.approx(10.0)


def test_short_messages_beat_a_dense_all_reduce_on_a_link_with_latency():
    """10,000 numbers of ten workers, or a hundredth of them: lengths, then the messages."""
    link = Link(10e6, 80 * MS)
    dense = _seconds(link, REDUCE, 40_000, 10)
    messages = _seconds(link, GATHER, 8 * 10, 10) + _seconds(link, GATHER, 600 * 10, 10)
    assert messages < 0.2 < 18 * 80 * MS < dense


def test_ring():
    link = Link(8e6, 10 * MS)  # a megabyte a second
    # 2 (n-1) hops, each carrying one n-th of the payload
    assert _seconds(link, REDUCE, 1_000_000, 4) == pytest.approx(6 * (0.25 + 0.01))
    # every worker's quarter of what is gathered goes straight to each of the three others
    assert _seconds(link, GATHER, 1_000_000, 4) == pytest.approx(3 * 0.25 + 0.01)
    # a broadcast is handed on from worker to worker
    assert _seconds(link, BROADCAST, 1_000_000, 4) == pytest.approx(1 + 3 * 0.01)


def test_small_reductions_go_straight_to_everybody():
    """As the process group sends them: one hop, everything to each of the three peers."""
    link = Link(8e6, 10 * MS)
    assert _seconds(link, REDUCE, SMALL_MESSAGE, 4) == pytest.approx(3 * SMALL_MESSAGE / 1e6 + 0.01)
    assert _seconds(link, REDUCE, SMALL_MESSAGE + 4, 4) > 6 * 0.01
    star = Link(8e6, 10 * MS, "star")
    assert _seconds(star, REDUCE, 8, 4) == pytest.approx(2 * 4 * 8 / 1e6 + 0.02)


def test_star():
    link = Link(8e6, 10 * MS, "star")
    # four contributions in, four results out, through the coordinator's link
    assert _seconds(link, REDUCE, 1_000_000, 4) == pytest.approx(8 + 0.02)
    # all messages in once, all messages out to each
    assert _seconds(link, GATHER, 1_000_000, 4) == pytest.approx(1 + 4 + 0.02)


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_a_collection_goes_through_the_coordinators_link(topology):
    """A megabyte from four workers together, or from one: one hop."""
    link, collect = Link(8e6, 10 * MS, topology), OPERATIONS.index("collect")
    for workers in (1, 4):
        assert _seconds(link, collect, 1_000_000, workers) == pytest.approx(1 + 0.01)
    assert _seconds(link, collect, 0, 0) == 0.0


@pytest.mark.parametrize("topology", ["ring", "star"])
@pytest.mark.parametrize("operation", [REDUCE, GATHER])
def test_one_worker_alone_waits_for_nobody(topology, operation):
    assert _seconds(Link(8e6, 1.0, topology), operation, 10**6, 1) == 0.0


def test_clock_adds_computation_and_messages():
    ledger, link = Ledger(2), Link(8e6)
    for step in (1, 2, 3):
        ledger.step = step
        ledger.reduce("model", 500_000)  # half a second on a ring of two
    ledger.reduce("evaluation", 10**9)  # looking takes no time
    assert predicted_seconds(ledger, link, 3, 2.0) == pytest.approx(3 * 2.0 + 3 * 0.5)
    assert predicted_seconds(Ledger(2), link, 3, 2.0) == pytest.approx(6.0)


def test_overlapped_messages_hide_behind_computation():
    ledger, link = Ledger(2), Link(8e6)
    ledger.step = 1
    ledger.reduce("monitoring", 300_000, overlap=1)
    ledger.step = 2
    ledger.reduce("monitoring", 800_000, overlap=1)
    ledger.reduce("monitoring", 900_000, overlap=1)
    assert predicted_seconds(ledger, link, 2, 2.0) == pytest.approx(4.0)
    # 0.8 and 0.9 s after each other do not fit beside one step of one second
    assert predicted_seconds(ledger, link, 3, 1.0) == pytest.approx(3.0 + 0.7)
    ledger.reduce("model", 100_000)  # waits until the link is free
    assert predicted_seconds(ledger, link, 2, 1.0) == pytest.approx(2.0 + 1.7 + 0.1)
    assert predicted_seconds(ledger, link, 2, 0.1) == pytest.approx(0.2 + 0.2 + 1.7 + 0.1)


def test_a_message_may_travel_during_several_steps():
    ledger, link = Ledger(2), Link(8e6)
    ledger.step = 1
    ledger.reduce("model", 3_500_000, overlap=3)
    assert predicted_seconds(ledger, link, 10, 1.0) == pytest.approx(10.0 + 0.5)
    assert predicted_seconds(ledger, link, 10, 2.0) == pytest.approx(20.0)
