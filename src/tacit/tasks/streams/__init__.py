"""Learning streams: fresh samples for every worker and round, of a concept that may drift."""

from __future__ import annotations

from tacit.tasks.streams.base import Stream, StreamFactory
from tacit.tasks.streams.graphical import graphical
from tacit.tasks.streams.passes import one_pass
from tacit.tasks.streams.separator import separator

__all__ = ["Stream", "StreamFactory", "graphical", "one_pass", "separator"]
