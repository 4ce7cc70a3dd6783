"""What workers keep of what they did not send, and receivers of what they heard."""

from __future__ import annotations

from tacit.memory.base import Memory
from tacit.memory.dgc import VelocityMemory
from tacit.memory.ef21 import EF21
from tacit.memory.ef21_w import EF21W
from tacit.memory.feedback import ErrorFeedback
from tacit.memory.heard import Averages, Heard, Increments

__all__ = [
    "EF21",
    "EF21W",
    "Averages",
    "ErrorFeedback",
    "Heard",
    "Increments",
    "Memory",
    "VelocityMemory",
]
