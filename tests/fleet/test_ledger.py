from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.fleet import CHARGED, KINDS, Event, Ledger, LocalFleet


def test_the_length_of_a_coordinators_message_is_charged():
    fleet = LocalFleet(3)
    assert fleet.spread_bytes(b"answer", "gradient") == b"answer"
    assert list(fleet.ledger) == [
        Event(0, "control", "download", 8, 3, 0),
        Event(0, "gradient", "download", 6, 3, 0),
    ]
    assert fleet.ledger.by_kind()["control"] == 3 * 8


def test_looking_at_a_run_costs_no_lengths_either():
    fleet = LocalFleet(3)
    fleet.gather_bytes([b"a", b"", b"c"], "evaluation")
    fleet.collect_bytes([b"a", b"", b"c"], "evaluation")
    fleet.spread_bytes(b"a", "evaluation")
    assert fleet.ledger.bytes() == 0
    assert fleet.ledger.bytes("evaluation") == 2 * 3 * 24 + 3 * 2 + 2 + 3 * 9


@pytest.fixture
def ledger() -> Ledger:
    """Three workers: two monitoring reduces, a partial model reduce, a gather, an evaluation."""
    ledger = Ledger(3)
    for step in (1, 2):
        ledger.step = step
        ledger.reduce("monitoring", 8, overlap=3 * (step == 2))
    ledger.reduce("model", 100, np.array([True, False, True]))
    ledger.step = 3
    ledger.gather("control", [0, 5, 7])
    ledger.reduce("evaluation", 1000)
    return ledger


def test_events_in_order(ledger):
    assert list(ledger) == [
        Event(1, "monitoring", "reduce", 8, 3, False),
        Event(2, "monitoring", "reduce", 8, 3, 3),
        Event(2, "model", "reduce", 100, 2, False),
        Event(3, "control", "gather", 12, 3, False),
        Event(3, "evaluation", "reduce", 1000, 3, False),
    ]
    assert len(ledger) == 5
    assert ledger.count("monitoring") == 2
    assert ledger.count("gradient") == 0


def test_bytes_of_each_worker(ledger):
    assert ledger.sent("monitoring").tolist() == [16, 16, 16]
    assert ledger.sent("model").tolist() == ledger.received("model").tolist() == [100, 0, 100]
    assert ledger.sent("control").tolist() == [0, 5, 7]
    assert ledger.received("control").tolist() == [12, 7, 5]
    assert ledger.sent().tolist() == [116, 21, 123]
    assert ledger.received().tolist() == [128, 23, 121]


def test_evaluation_is_recorded_but_not_charged(ledger):
    assert ledger.bytes("evaluation") == 6000
    assert "evaluation" not in CHARGED
    assert "evaluation" not in ledger.by_kind()
    assert ledger.bytes() == sum(ledger.by_kind().values()) == 96 + 400 + 36
    assert ledger.ring_bytes() == 2 * (3 * 2 * 8) + 2 * 1 * 100 + 2 * 12


def test_ring_and_star():
    ledger = Ledger(5)
    ledger.reduce("model", 40)
    assert ledger.bytes("model") == 5 * 40 * 2  # everybody sends it and gets it back
    assert ledger.ring_bytes("model") == 5 * 4 * 40  # small: straight to four peers
    ledger.reduce("model", 40_000)
    assert ledger.ring_bytes("model") == 5 * 4 * 40 + 5 * (2 * 4 / 5 * 40_000)  # 2 (n-1)/n each
    ledger.gather("gradient", [1, 2, 3, 4, 5])
    assert ledger.sent("gradient").sum() == 15
    assert ledger.received("gradient").sum() == 4 * 15  # each message reaches four others
    assert ledger.ring_bytes("gradient") == 4 * 15
    assert ledger.ring_bytes() == ledger.ring_bytes("model") + ledger.ring_bytes("gradient")


def test_one_worker_alone_puts_nothing_on_a_ring():
    ledger = Ledger(1)
    ledger.reduce("model", 40)
    ledger.gather("model", [7])
    assert ledger.ring_bytes() == 0


def test_rounds_end_with_a_model_exchange(ledger):
    # Round 0: steps 1 and 2. Round 1: what came after; an evaluation opens none.
    assert ledger.by_round().tolist() == [48 + 48 + 400, 36]
    only_evaluated = Ledger(2)
    only_evaluated.reduce("model", 4)
    only_evaluated.step = 1
    only_evaluated.reduce("evaluation", 4)
    assert only_evaluated.by_round().tolist() == [16]
    assert Ledger(2).by_round().tolist() == []


def test_two_model_messages_of_one_step_are_one_round():
    ledger = Ledger(2)
    for step in (1, 2):
        ledger.step = step
        ledger.reduce("model", 10)
        ledger.reduce("model", 1)  # buffers, after the parameters
    assert ledger.by_round().tolist() == [44, 44]


def test_what_a_coordinator_collects():
    ledger = Ledger(3)
    ledger.step = 1
    ledger.collect("model", [10, 0, 30])
    ledger.download("model", 7, np.ones(3, bool))
    ledger.step = 2
    ledger.collect("gradient", [0, 0, 0])  # nobody had anything to send
    assert list(ledger) == [
        Event(1, "model", "collect", 40, 2, 0),
        Event(1, "model", "download", 7, 3, 0),
        Event(2, "gradient", "collect", 0, 0, 0),
    ]
    assert ledger.sent("model").tolist() == [10, 0, 30]
    assert ledger.received("model").tolist() == [7, 7, 7]
    # every message crosses the wire once, whatever the number of workers
    assert ledger.bytes() == ledger.ring_bytes() == 40 + 3 * 7
    assert ledger.by_round().tolist() == [61, 0]


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(KINDS),
        st.one_of(
            st.lists(st.integers(0, 99), min_size=4, max_size=4),  # a gather
            st.lists(st.integers(0, 99), min_size=4, max_size=4).map(np.array),  # a collection
            st.tuples(
                st.integers(0, 99),
                st.one_of(st.none(), st.lists(st.booleans(), min_size=4, max_size=4).filter(any)),
            ),
        ),
    )
)


def _record(ledger, events):
    for pause, kind, what in events:
        ledger.step += pause
        if isinstance(what, list):
            ledger.gather(kind, what)
        elif isinstance(what, np.ndarray):
            ledger.collect(kind, what)
        else:
            payload, who = what
            ledger.reduce(kind, payload, None if who is None else np.array(who))


@given(EVENTS)
def test_views_agree_with_each_other(events):
    ledger = Ledger(4)
    _record(ledger, events)
    total = sum(
        {"reduce": 2 * event.participants, "gather": event.participants, "collect": 1}[
            event.operation
        ]
        * event.payload
        for event in ledger
        if event.kind != "evaluation"
    )
    assert ledger.bytes() == total == ledger.by_round().sum()
    assert ledger.bytes() == ledger.sent().sum() + ledger.received().sum()
    for kind in KINDS:
        assert ledger.count(kind) == sum(event.kind == kind for event in ledger)


@given(EVENTS, EVENTS)
def test_a_restored_ledger_goes_on_as_if_nothing_had_happened(before, after):
    whole, first, second = Ledger(4), Ledger(4), Ledger(4)
    _record(whole, before + after)
    _record(first, before)
    second.load_state_dict(first.state_dict())
    _record(second, after)
    assert second.step == whole.step
    assert list(second) == list(whole)
    assert second.by_kind() == whole.by_kind()
    assert second.sent().tolist() == whole.sent().tolist()
    # the state that was saved is a copy
    assert len(first) == len(before)
    assert first.bytes() == sum(first.by_round())


def test_views_are_copies(ledger):
    ledger.sent("model")[:] = 0
    assert ledger.sent("model").tolist() == [100, 0, 100]
