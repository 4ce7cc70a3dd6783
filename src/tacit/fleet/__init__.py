"""The workers of a run, their collectives, and what these cost."""

from tacit.fleet.attended import AttendedFleet
from tacit.fleet.correspondence import Correspondence
from tacit.fleet.fleet import Fleet, Pending, Ready, layout
from tacit.fleet.island import IslandFleet
from tacit.fleet.ledger import CHARGED, KINDS, Event, Kind, Ledger
from tacit.fleet.link import Link, predicted_seconds
from tacit.fleet.local import LocalFleet
from tacit.fleet.peers import PeerFleet
from tacit.fleet.process_group import ProcessGroupFleet
from tacit.fleet.star import Settled, Star

__all__ = [
    "CHARGED",
    "KINDS",
    "AttendedFleet",
    "Correspondence",
    "Event",
    "Fleet",
    "IslandFleet",
    "Kind",
    "Ledger",
    "Link",
    "LocalFleet",
    "PeerFleet",
    "Pending",
    "ProcessGroupFleet",
    "Ready",
    "Settled",
    "Star",
    "layout",
    "predicted_seconds",
]
