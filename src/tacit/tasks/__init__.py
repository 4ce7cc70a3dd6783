"""Learning tasks: data, models, who holds which samples, and which are drawn when."""

from __future__ import annotations

from tacit.tasks.batches import Batches
from tacit.tasks.data import Data, DatasetData, TensorData, as_data
from tacit.tasks.partition import partition
from tacit.tasks.registry import TASKS, load
from tacit.tasks.streams import Stream, StreamFactory
from tacit.tasks.task import Task, parameter_groups

__all__ = [
    "TASKS",
    "Batches",
    "Data",
    "DatasetData",
    "Stream",
    "StreamFactory",
    "Task",
    "TensorData",
    "as_data",
    "load",
    "parameter_groups",
    "partition",
]
