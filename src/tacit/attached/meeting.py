"""Meeting the others: whoever comes first serves those who still train.

Workers come at different steps when they have different amounts of data. One that is there sends,
in place of its row, the word that it does not train, in the very message that the others wait for
next; so nobody hangs, and once nobody trains, all know it from that message.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.attached.steps import Steps
from tacit.averaging import ModelAveraging
from tacit.fleet import AttendedFleet, Kind
from tacit.fleet.attended import Purpose


def meet(steps: Steps, purpose: Purpose) -> Purpose:
    """Wait for all workers, and take part in the exchanges of those that still train. What they
    have met for, which may be more urgent than this worker's ``purpose``."""
    if steps.inside is not None:
        if steps.inside is not steps.fleet:
            steps.fleet.purpose = None  # until all of the island are here, it trains
        assert steps.exchange is not None
        with steps.flat.without_gradients():
            width = steps.exchange.first_message
            purpose = _meet_inside(steps, steps.inside, width, purpose)
    if steps.averaging is not None:
        purpose = _meet_outside(steps, steps.fleet, steps.averaging, purpose)
    return purpose


def part(steps: Steps) -> None:
    """Go on training."""
    for fleet in steps.fleets:
        fleet.purpose = None


def _meet_inside(steps: Steps, inside: AttendedFleet, width: int, purpose: Purpose) -> Purpose:
    """Among workers that average gradients: one without data follows the others' gradients."""
    inside.purpose = purpose
    while True:
        inside.ledger.step = steps.count + 1
        inside.aside = torch.zeros(len(steps.flat.trained), device=inside.device)
        if not inside.answer(width, "gradient"):
            break
        steps.follow()
        inside.owes = False
    met = inside.met_for
    inside.ledger.step = steps.count
    if inside.absences:
        # a follower's learning rate may have been another one
        steps.flat.read()
        steps.flat.parameters[:] = _combined(steps, inside, steps.flat.parameters, "model")
        steps.flat.write()
        inside.owes, inside.absences = True, False
    return met


def _meet_outside(
    steps: Steps, fleet: AttendedFleet, averaging: ModelAveraging, purpose: Purpose
) -> Purpose:
    fleet.purpose = purpose
    while True:
        expected, width = averaging.next_message(steps.count)
        fleet.ledger.step = expected
        kind: Kind = "monitoring" if width else "control"
        if not fleet.answer(width, kind, averaging.lag if width else 0):
            break
        steps.advance_to(expected)
    met = fleet.met_for
    fleet.ledger.step = steps.count
    latest = fleet.max(torch.tensor([[steps.count]], device=fleet.device), "control")
    steps.advance_to(int(latest))  # steps that others have taken, and in which nothing was sent
    return met


def consensus(steps: Steps, kind: Kind) -> tuple[Tensor, Tensor]:
    """What the workers' parameters ``(d,)`` and buffers ``(d_b,)`` come to; when they have met."""
    steps.flat.read()
    steps.flat.read_buffers()
    parameters, buffers = steps.flat.parameters, steps.flat.buffers
    if steps.averaging is not None:
        parameters = _combined(steps, steps.fleet, parameters, kind)
    for fleet in steps.fleets:
        buffers = _combined(steps, fleet, buffers, kind)
    return parameters[0].clone(), buffers[0].clone()


def _combined(steps: Steps, fleet: AttendedFleet, rows: Tensor, kind: Kind) -> Tensor:
    """The mean of those who have learned something since the last average; if nobody has, of all.
    Where the fleet's aggregator is no mean, what it makes of all: a mean would let one worker say
    how the run ends, and a rule may not accept so few as have learned."""
    if not rows.numel():
        return rows
    outside = steps.averaging if fleet is steps.fleet else None
    exchange = outside or steps.exchange
    if exchange is not None and exchange.aggregator.gathers:
        return exchange.aggregator(fleet.gather_rows(rows, kind))[None]
    mean = fleet.mean(rows, kind)
    if fleet.weight == 0:
        fleet.owes = True
        mean = fleet.mean(rows, kind)
        fleet.owes = False
    return mean[None]
