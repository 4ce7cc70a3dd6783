"""What a worker keeps of what it did not send: the error memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tacit.compressors import Arrived
from tacit.fleet import Fleet
from tacit.replicas import Models
from tacit.setting import Setting

#: Numbers that stay in the cache when they are widened.
_CHUNK = 1 << 16


class Memory:
    """Stands between a vector that a worker has, ``(d,)``, and the message that it sends.

    For every worker that takes part in an exchange, :meth:`outgoing` says what to compress, and
    :meth:`sent` hears what of it arrives. What all workers get, combined, goes through
    :meth:`direction`. This one remembers nothing: the vector goes out, and what is lost is lost.
    """

    #: Whether the next vectors travel whole, and everybody's.
    whole: bool = False
    #: Whether a worker that sends nothing counts as one that sends zeros; else it does not count.
    counts_absent: bool = False
    #: Whether workers find out by themselves, and send again, what a coordinator had but did not
    #: pass on before another number of workers took over.
    sends_again: bool = False

    def start(self, fleet: Fleet, models: Models, setting: Setting) -> None:
        """Begin a run."""
        self.fleet, self.models, self.setting = fleet, models, setting

    def check(self, optimizer: Optimizer) -> None:
        """Raise UserError for a local optimizer that does not go with this memory."""

    def weights(self) -> Tensor | None:
        """Weights of the workers' messages, ``(K,)``; None: those of the aggregator alone."""
        return None

    def outgoing(self, row: int, vector: Tensor) -> Tensor:
        """What the hosted worker in this row would like to send, ``(d,)``; not to be written to."""
        del row
        return vector

    def begin_again(self) -> None:
        """The workers that train are others than before: forget what they were believed to hold."""

    def sent(self, row: int, outgoing: Tensor, arrived: Arrived | None) -> None:
        """What arrives of ``outgoing``; None: all of it, without being compressed."""

    def direction(self, combined: Tensor) -> Tensor:
        """What all go on with, ``(d,)``, from the combination of what has arrived; not to be kept,
        as the next one may be written over it."""
        return combined

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What all workers share."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state

    def worker_state(self, row: int) -> dict[str, Any]:
        """What belongs to the worker in this row."""
        return {name: tensor[row].clone() for name, tensor in self.rows().items()}

    def load_worker_state(self, row: int, state: dict[str, Any]) -> None:
        for name, tensor in self.rows().items():
            tensor[row] = state[name].to(tensor.device)

    def rows(self) -> dict[str, Tensor]:
        """The hosted workers' memories by name, each ``(L, n)``."""
        return {}

    def take_over(self, means: dict[str, Tensor]) -> None:
        """Go on from the memories of another number of workers; ``means``: those of what
        :meth:`rows` gives, ``(n,)``. With these the sum of what is not sent yet, divided by the
        number of workers, stays."""
        for name, tensor in self.rows().items():
            tensor[:] = means[name].to(tensor.device)

    def _zeros(self) -> Tensor:
        return torch.zeros_like(self.models.parameters)


def pieces(vector: Tensor) -> tuple[Tensor, ...]:
    """Views of ``(n,)``, to be widened one after the other: a wide copy of all of it is as slow as
    ten passes over it. On an accelerator it is not."""
    return torch.split(vector, _CHUNK if vector.device.type == "cpu" else max(1, len(vector)))


def norm(vector: Tensor) -> float:
    """``||vector||``, ``(n,)``, with squares in double precision: in single they overflow from 2e19
    on, and a sum of 50 million is off by 0.2 %."""
    parts = pieces(vector)
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
