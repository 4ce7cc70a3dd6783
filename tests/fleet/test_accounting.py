"""The FDA paper's byte accounting (its section on costs, as its published code computes it)."""

from __future__ import annotations

import pytest

import tacit
from helpers.tasks import mlp_task
from tacit.fleet.accounting import fda_paper

LENET = 61_706


def test_published_figure_of_synchronous_lenet():
    total = fda_paper("synchronous", workers=5, parameters=LENET, synchronisations=2250, steps=2250)
    assert total == 5_553_540_000
    assert round(total / 1e9, 4) == 5.5535


@pytest.mark.parametrize("workers", [1, 5, 60])
def test_one_lenet_synchronisation(workers):
    one, two = (
        fda_paper("fedopt", workers=workers, parameters=LENET, synchronisations=n, steps=100)
        for n in (1, 2)
    )
    assert two - one == 493_648 * workers


def test_fda_charges_one_exchange_more_than_it_made_and_uploads_of_states():
    total = fda_paper(
        "fda", workers=5, parameters=LENET, synchronisations=3, steps=100, state_bytes=5004
    )
    assert total == (3 + 1) * 493_648 * 5 + 100 * 5 * 5004


def test_the_ledger_counts_what_the_paper_counts():
    steps, simulation = (
        7,
        tacit.Simulation(mlp_task(), tacit.synchronous("models"), tacit.LocalFleet(3)),
    )
    for _ in range(steps):
        simulation.step()
    d = simulation.replicas.d
    paper = fda_paper("synchronous", workers=3, parameters=d, synchronisations=7, steps=steps)
    assert simulation.fleet.ledger.bytes() == paper


def test_monitoring_is_counted_both_ways_where_the_paper_counts_uploads():
    simulation = tacit.Simulation(mlp_task(), tacit.fda(1e9, "linear"), tacit.LocalFleet(3))
    for _ in range(7):
        simulation.step()
    monitoring = fda_paper(
        "fda", workers=3, parameters=0, synchronisations=0, steps=7, state_bytes=8
    )
    assert simulation.fleet.ledger.bytes() == 2 * monitoring == 2 * 7 * 3 * 8
