"""Which parts of a model exchange go together."""

from __future__ import annotations

from typing import Literal, get_args

from tacit.aggregators import Aggregator, OuterOptimizer, refuse_peer_rule
from tacit.compression import Compression
from tacit.errors import UserError
from tacit.topologies import Peers, Topology
from tacit.triggers import Trigger

Travels = Literal["local", "average"]


def check_parts(
    trigger: Trigger,
    aggregator: Aggregator | None,
    outer: OuterOptimizer | None,
    topology: Topology,
    buffers: Travels,
    optimizer_state: Travels,
    lag: int,
    overlap: int,
    compression: Compression | None,
) -> None:
    """Raise UserError for parts of ``ModelAveraging`` that do not fit."""
    for name, value in (("buffers", buffers), ("optimizer_state", optimizer_state)):
        if value not in get_args(Travels):
            raise UserError(f"{name} must be local or average, not {value!r}")
    for name, steps in (("the decision may lag", lag), ("the models may travel", overlap)):
        if steps < 0:
            raise UserError(f"{name} 0 or more steps, not {steps}")
    refuse_peer_rule(trigger.decision, "decisions")
    if isinstance(topology, Peers):
        _check_peers(trigger, outer, optimizer_state, overlap, compression)
        return
    refuse_peer_rule(aggregator, "models combined on a server")
    chosen = {
        "optimizer_state='average'": optimizer_state == "average",
        "overlap": overlap > 0,
        "lag": lag > 0 and topology.coordinated,
    }
    if topology.partial or topology.coordinated:
        for option, given in chosen.items():
            if given:
                raise UserError(
                    f"{option} needs every worker in every round, and this recipe averages some "
                    "of them; leave it out"
                )
    if compression is not None and (overlap or topology.coordinated):
        what = "overlap" if overlap else "a coordinator that asks for single models"
        raise UserError(f"compressed models do not go with {what}; leave one of them out")


def _check_peers(
    trigger: Trigger,
    outer: OuterOptimizer | None,
    optimizer_state: Travels,
    overlap: int,
    compression: Compression | None,
) -> None:
    needs_common_model = {
        "a trigger that monitors": trigger.monitors,
        "an outer optimizer": outer is not None,
        "optimizer_state='average'": optimizer_state == "average",
        "overlap": overlap > 0,
        "compression": compression is not None,
    }
    for what, given in needs_common_model.items():
        if given:
            raise UserError(
                f"{what} needs a model that all workers have, which there is none of among peers; "
                "leave it out"
            )
