"""Learning tasks: data, models, who holds which samples, and which are drawn when."""

from __future__ import annotations

from tacit.tasks.batches import Batches
from tacit.tasks.data import Data, DatasetData, TensorData, as_data
from tacit.tasks.groups import GroupedData
from tacit.tasks.libsvm import load_libsvm
from tacit.tasks.partition import partition
from tacit.tasks.registry import TASKS, load
from tacit.tasks.smooth import LeastSquares, Logistic, Objective
from tacit.tasks.streams import Stream, StreamFactory
from tacit.tasks.synthetic import least_squares
from tacit.tasks.task import Task, parameter_groups

__all__ = [
    "TASKS",
    "Batches",
    "Data",
    "DatasetData",
    "GroupedData",
    "LeastSquares",
    "Logistic",
    "Objective",
    "Stream",
    "StreamFactory",
    "Task",
    "TensorData",
    "as_data",
    "least_squares",
    "load",
    "load_libsvm",
    "parameter_groups",
    "partition",
]
