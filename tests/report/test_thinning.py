from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tacit.report.thinning import spread, thin, thin_conversations

CHECKS = st.lists(st.tuples(st.floats(0, 10), st.booleans()), min_size=1, max_size=400)


@given(CHECKS, st.integers(4, 60))
def test_thinning_keeps_what_fired_and_the_extremes(
    values: list[tuple[float, bool]], limit: int
) -> None:
    checks = [(step, estimate, fired) for step, (estimate, fired) in enumerate(values, start=1)]
    kept = thin(checks, limit)
    assert [c for c in kept if c[2]] == [c for c in checks if c[2]]
    assert kept == sorted(set(kept))
    assert set(kept) <= set(checks)
    assert (kept[0], kept[-1]) == (checks[0], checks[-1])
    heights = [estimate for _, estimate, _ in checks]
    assert max(estimate for _, estimate, _ in kept) == max(heights)
    assert min(estimate for _, estimate, _ in kept) == min(heights)
    fired = sum(c[2] for c in checks)
    assert len(kept) <= limit + 2 * fired + 4


def test_a_long_run_is_thinned_to_about_the_limit() -> None:
    checks = [(step, step % 97 / 97, step % 970 == 96) for step in range(100_000)]
    assert 2000 < len(thin(checks)) <= 3004


@given(st.integers(1, 5000), st.integers(1, 50))
def test_spread(count: int, limit: int) -> None:
    chosen = spread(range(count), limit)
    assert len(chosen) <= limit + 1
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    assert chosen == sorted(set(chosen))


def test_spread_of_nothing() -> None:
    assert spread([]) == []


CONVERSATIONS = st.lists(
    st.tuples(st.integers(1, 10), st.integers(1, 10), st.booleans()), min_size=1, max_size=400
)


@given(CONVERSATIONS, st.integers(4, 60))
def test_thinned_conversations_keep_the_outline(
    entries: list[tuple[int, int, bool]], limit: int
) -> None:
    settled = [(step, *entry) for step, entry in enumerate(entries, start=1)]
    kept = thin_conversations(settled, limit)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(settled)
    assert len(kept) <= limit + 4
    assert max(callers for _, callers, _, _ in kept) == max(c for _, c, _, _ in settled)
    for whole in (False, True):
        before = [members for _, _, members, full in settled if full == whole]
        after = [members for _, _, members, full in kept if full == whole]
        assert bool(before) == bool(after)
        if before and not whole:
            assert (min(before), max(before)) == (min(after), max(after))


def test_ten_thousand_conversations_are_thinned() -> None:
    settled = [(step, step % 7, 3 + step % 5, step % 97 == 0) for step in range(1, 10_001)]
    kept = thin_conversations(settled)
    assert 1000 < len(kept) <= 2000
    assert thin_conversations(settled[:2000]) == settled[:2000]
