from __future__ import annotations

import pytest

from report.conftest import make_run
from tacit.report import finding, table
from tacit.report.words import about_target, compared, describe_link, liars, time_finding, title
from tacit.runs import RunRecord


def headline(runs: list[RunRecord], target: float) -> str:
    return finding(table(runs, target), target)


def test_the_headline_compares_with_synchronous(comparison: list[RunRecord]) -> None:
    assert headline(comparison, 0.9) == (
        "fda:theta=1.0 reached 0.90 with 30 times fewer bytes than synchronous. "
        "local_sgd:period=5 did not reach it."
    )
    assert headline(comparison, 0.8) == (
        "fda:theta=1.0 reached 0.80 with 40 times fewer bytes than synchronous."
    )


def test_the_headline_does_not_praise_what_saves_nothing() -> None:
    runs = [
        make_run("synchronous", [0.9], gradient=100),
        make_run("fda:theta=0", [0.9], model=100, monitoring=5),
    ]
    assert headline(runs, 0.9) == "No run reached 0.90 with clearly fewer bytes than synchronous."


def test_the_headline_without_a_synchronous_run(comparison: list[RunRecord]) -> None:
    assert headline(comparison[1:], 0.8) == (
        "fda:theta=1.0 reached 0.80 with the fewest bytes, 75 B; "
        "next comes local_sgd:period=5, with 120 B."
    )
    assert headline(comparison[1:], 0.9) == (
        "fda:theta=1.0 reached 0.90 after 40 steps, 4 synchronisations and 100 B. "
        "local_sgd:period=5 did not reach it."
    )


def test_the_headline_where_nothing_reached_the_target(comparison: list[RunRecord]) -> None:
    assert headline(comparison, 0.99) == (
        "No run reached 0.99. The nearest is synchronous, with 0.92."
    )
    assert headline(comparison[2:], 0.99) == (
        "local_sgd:period=5 did not reach 0.99; its best accuracy is 0.84."
    )


def test_the_headline_without_evaluations_or_target() -> None:
    assert "nothing to compare" in finding(table([make_run("fedavg", [])]), None)
    low = [make_run("fedavg", [0.001])]
    assert finding(table(low), None) == "The highest accuracy is 0.001, by fedavg."


def test_many_misses_are_counted() -> None:
    runs = [make_run("fedavg", [0.5], folder=str(i)) for i in range(4)]
    runs.append(make_run("fedadam", [0.9], model=10))
    assert headline(runs, 0.9).endswith(" 4 of the runs did not reach it.")


def test_time_says_so_when_it_is_longer() -> None:
    slow = [
        make_run("synchronous", [0.9], gradient=100, seconds=10.0),
        make_run("fda:theta=1", [0.9], model=10, seconds=33.0),
    ]
    text = time_finding(table(slow, 0.9), "1gbit")
    assert text == "The predicted time on a 1 Gbit/s link is 33 s, against 10 s, 3.3 times longer."
    assert time_finding(table(slow[1:], 0.9), "1gbit") == ""


def test_what_was_compared(comparison: list[RunRecord]) -> None:
    assert title(comparison) == "mlp on digits, 4 workers"
    assert compared(comparison) == (
        "3 runs of mlp on digits with 4 workers (data split iid, seed 0), "
        "timed for a 100 Mbit/s link with 20 ms latency."
    )
    other = make_run(
        "fedavg", [0.5], workers=2, seed=3, optimizer="adam:lr=0.1", link="1gbit,1ms,star"
    )
    assert compared([*comparison, other]) == (
        "4 runs of mlp on digits with 2 and 4 workers (data split iid, seeds 0 and 3, optimizer "
        "the task's own and adam:lr=0.1), timed for a 100 Mbit/s link with 20 ms latency and "
        "a 1 Gbit/s link with 1 ms latency (star)."
    )


def test_it_is_said_who_lies(comparison: list[RunRecord]) -> None:
    assert liars(comparison) == ""
    for run in comparison:
        run.config |= {"liars": 2, "attack": "sign_flip", "attack_trigger": "inflate"}
    said = "2 of them lie by sign_flip, to triggers by inflate"
    assert liars(comparison) == said
    assert said in compared(comparison)
    for run in comparison:
        run.config |= {"attack": None, "attack_trigger": None}
    assert liars(comparison) == "2 of them lie by saying what others say"


def test_the_page_says_who_chose_the_target(comparison: list[RunRecord]) -> None:
    assert "accuracy 0.90 or more" in about_target(comparison, 0.9)
    assert "No target was given. Costs are those up to accuracy 0.84" in about_target(
        comparison, None
    )
    assert "no accuracy that every run reached" in about_target([make_run("fedavg", [])], None)


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("56kbit,100ms", "a 56 kbit/s link with 100 ms latency"),
        ("2.5gbit,50us", "a 2.5 Gbit/s link with 0.05 ms latency"),
        ("10mbit", "a 10 Mbit/s link"),
    ],
)
def test_links(link: str, text: str) -> None:
    assert describe_link(link) == text
