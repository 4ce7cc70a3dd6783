"""The trigger of Federated Dynamic Averaging: average when the model variance passes a threshold.

The model variance is ``Var = 1/K sum_k ||w_k - mean w||^2``. With the drift ``u_k = w_k - w_0``
since the last synchronisation it equals ``mean_k ||u_k||^2 - ||mean_k u_k||^2``. Computing it would
mean sending every drift, so each worker sends a small state from which an estimate follows that
is meant not to fall below Var. Source: Theologitis, Frangias, Anestis, Samoladas, Deligiannakis,
"Communication-Efficient Distributed Deep Learning via Federated Dynamic Averaging", EDBT 2025,
Algorithm 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tacit.aggregators import Aggregator, Mean, refuse_peer_rule
from tacit.errors import UserError
from tacit.setting import Setting
from tacit.triggers.base import Trigger, check_steps
from tacit.triggers.estimators import Estimator

_THETA_PER_PARAMETER = 4.91e-5


class ModelVariance(Trigger):
    """Fire when the estimated model variance is above ``theta``.

    ``theta``: threshold on a squared distance between models, not divided by d; it scales with
    the model and the learning rate. 0 synchronises whenever the workers differ. If not given,
    ``4.91e-5 d``, the line that the paper's authors fitted through their best values in the
    federated setting, for Adam at 1e-3 and SGD at 0.1: a first guess. ``every``: local steps
    between checks (published: 1). Between checks nothing is promised.

    ``decision``: how the states are combined; None: their mean, as published, which one liar can
    make anything. With a trimmed mean or a median that stands f, each number of the combined state
    lies between two that honest workers sent, whatever f others say. So they cannot force a
    synchronisation while no honest ``||u_k||^2`` is above theta, nor suppress LinearFDA's when the
    smallest honest ``||u_k||^2`` less the largest honest ``<xi, u_k>^2`` is. In return the estimate
    is no longer meant not to fall below Var: a trimmed mean is below the mean where few drift far.
    """

    monitors = True

    def __init__(
        self,
        theta: float | None,
        estimator: Estimator,
        every: int = 1,
        decision: Aggregator | None = None,
    ) -> None:
        if theta is not None and not (theta >= 0 and math.isfinite(theta)):
            raise UserError(f"theta must be a finite number, at least 0, got {theta:g}")
        refuse_peer_rule(decision, "decisions")
        self.threshold = theta
        self.estimator = estimator
        self.decision = decision or Mean()
        self.period = check_steps("the time between checks", every)

    def start(self, setting: Setting) -> None:
        if self.threshold is None:
            self.threshold = _THETA_PER_PARAMETER * setting.d
        self.estimator.start(setting)
        self.decision.start(setting)
        # what is compiled is compiled now, not in the first step
        nothing = torch.zeros(setting.d, device=setting.device)
        self.estimator.local_state(nothing[None], nothing)

    def local_state(self, parameters: Tensor, reference: Tensor) -> Tensor:
        return self.estimator.local_state(parameters, reference)

    def estimate(self, mean_state: Tensor) -> float:
        return self.estimator.variance(mean_state)

    def synchronised(self, movement: Tensor) -> None:
        self.estimator.synchronised(movement)

    def state_dict(self) -> dict[str, Any]:
        return self.estimator.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.estimator.load_state_dict(state)
