from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tacit.report.thinning import spread, thin

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
