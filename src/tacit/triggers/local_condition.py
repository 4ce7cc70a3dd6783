"""The trigger of dynamic averaging: every worker looks at its own model alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.sketches.moments import drift_moments
from tacit.triggers.base import Trigger, check_steps


class LocalCondition(Trigger):
    """A worker calls when its model is further from the reference than allowed:
    ``||w_k - r||^2 > delta``.

    While nobody calls, the models' divergence ``1/K sum_k ||w_k - mean w||^2`` is at most
    ``delta`` at every check, since the mean minimises the sum of squared distances. The condition
    is sufficient, not necessary: models that move together call as well, where
    :class:`ModelVariance` would not.

    ``delta``: threshold on a squared distance, not divided by d; it scales with d, and with the
    squared length of the way that a worker goes between checks. ``every``: local steps between
    checks, the paper's b. Source: Kamp et al., "Efficient Decentralized Deep Learning by Dynamic
    Model Averaging", ECML PKDD 2018, Algorithm 1.

    What is sent at a check is one flag a worker, 4 bytes; their mean tells everybody whether
    anybody calls.
    """

    monitors = True

    def __init__(self, delta: float, every: int = 10) -> None:
        if not delta >= 0:
            raise UserError(f"delta must be a number, at least 0, got {delta:g}")
        self.delta = delta
        self.period = check_steps("the time between checks", every)

    def calls(self, parameters: Tensor, reference: Tensor) -> Tensor:
        distances = drift_moments(parameters, reference)[:, 0]
        return ~(distances <= self.delta)  # also what is not a number

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        return self.calls(parameters, reference)[:, None].to(torch.float32)

    def estimate(self, mean_state: Tensor) -> float:
        """The part of the workers that call."""
        return float(mean_state[0])

    def fires(self, estimate: float) -> bool:
        return estimate > 0

    def accepts(self, mean: Tensor, reference: Tensor) -> bool:
        return float(drift_moments(mean[None], reference)) <= self.delta
