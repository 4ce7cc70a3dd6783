"""Smooth objectives f = (1/n) sum f_i of n clients, with the constants that step sizes need.

For distributed optimisation with full gradients (EF21, arXiv 2106.05203; EF21-W, arXiv 2402.10774).
The gradients of all clients come from a few matrix products. Everything is float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from tacit.errors import UserError
from tacit.tasks.clients import Clients


class Objective(ABC):
    """f_i(x) = (1/m_i) sum over the client's rows of loss(a.x, b) + lam sum_j x_j^2 / (1 + x_j^2).

    matrix, targets: (m, d) and (m,), in the order in which clients take them (``Clients``).
    lam:             weight of the non-convex regulariser, >= 0.
    own_features:    a client's regulariser counts only the features that occur in its rows, so
                     that its gradient is zero elsewhere.
    Raises UserError for shapes that do not fit, values that are not finite, more clients than rows.
    """

    #: The largest second derivative of ``loss`` in its first argument.
    curvature: float

    def __init__(
        self,
        matrix: Tensor,
        targets: Tensor,
        clients: int,
        lam: float = 0.0,
        own_features: bool = False,
    ) -> None:
        if not 0.0 <= lam < math.inf:
            raise UserError(f"lam is {lam}; it must be 0 or more, and finite")
        self.clients = Clients(matrix, targets, clients)
        self.n, self.d, self.lam = clients, matrix.shape[1], lam
        self._counted = self.clients.supports.to(torch.float64) if own_features else None

    @abstractmethod
    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row: (m,) and (m,) -> (m,)."""

    @abstractmethod
    def slope(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The derivative of ``loss`` in its first argument: (m,)."""

    # -- at a point x (d,)

    def values(self, x: Tensor) -> Tensor:
        """f_i(x) of all clients, (n,)."""
        clients = self.clients
        fit = clients.means(self.loss(clients.matrix @ x, clients.targets))
        square = x * x
        return fit + self.lam * self._sum(square / (1 + square))

    def gradients(self, x: Tensor) -> Tensor:
        """The gradients of all f_i at x, (n, d)."""
        clients = self.clients
        fit = clients.combine(self.slope(clients.matrix @ x, clients.targets))
        return fit if self.lam == 0.0 else fit + self._regular(x)

    def value(self, x: Tensor) -> float:
        """f(x)."""
        return float(self.values(x).mean())

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of f at x, (d,): the mean of ``gradients``, without making all of them."""
        clients = self.clients
        slope = self.slope(clients.matrix @ x, clients.targets)
        fit = clients.matrix.T @ (clients.weights * slope)
        return fit if self.lam == 0.0 else fit + self._regular(x).mean(dim=0)

    # -- constants

    @cached_property
    def client_smoothness(self) -> Tensor:
        """The L_i, (n,): curvature ||A_i||^2 / m_i + 2 lam."""
        return self.curvature * self.clients.client_tops() + 2 * self.lam

    @cached_property
    def smoothness(self) -> float:
        """L of f: the largest eigenvalue of what bounds its Hessian everywhere."""
        bound = self.curvature * self.clients.gram()
        regular = torch.full((self.d,), 2 * self.lam, dtype=torch.float64)
        if self._counted is not None:
            regular *= self._counted.mean(dim=0)
        return float(torch.linalg.eigvalsh(bound + regular.diag())[-1])

    @property
    def mean_smoothness(self) -> float:
        """L_AM, the mean of the L_i."""
        return float(self.client_smoothness.mean())

    @property
    def quadratic_smoothness(self) -> float:
        """L_QM, the root of the mean square of the L_i; L_QM^2 - L_AM^2 is their variance."""
        return float(self.client_smoothness.square().mean().sqrt())

    @property
    def sharing(self) -> int:
        """c, the number of clients that have the commonest feature; see ``own_features``."""
        return int(self.clients.supports.sum(dim=0).max())

    @property
    def shared_smoothness(self) -> float:
        """M = (1/n) max_j sum of the L_i of the clients that have feature j; at most L_AM."""
        holders = self.clients.supports.to(torch.float64)
        return float((self.client_smoothness @ holders).max()) / self.n

    # -- the regulariser

    def _sum(self, terms: Tensor) -> Tensor:
        """Of terms (d,) the sum over each client's features, (n,) or ()."""
        return terms.sum() if self._counted is None else self._counted @ terms

    def _regular(self, x: Tensor) -> Tensor:
        """The regulariser's gradient of each client, (n, d), or (1, d) where all are the same."""
        gradient = 2 * self.lam * x / (1 + x * x).square()
        return gradient[None] if self._counted is None else self._counted * gradient


class Logistic(Objective):
    """loss = log(1 + exp(-b a.x)), targets b of -1 and +1. The constants are attained at x = 0."""

    curvature = 0.25

    def __init__(
        self,
        matrix: Tensor,
        targets: Tensor,
        clients: int,
        lam: float = 1e-3,
        own_features: bool = False,
    ) -> None:
        super().__init__(matrix, targets, clients, lam, own_features)
        if not (targets.abs() == 1).all():
            raise UserError("the targets of a logistic regression must be -1 and +1")

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        margins = predictions * targets
        return torch.logaddexp(torch.zeros_like(margins), -margins)

    def slope(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return -targets * torch.sigmoid(-predictions * targets)


class LeastSquares(Objective):
    """loss = (a.x - b)^2: f_i = (1/m_i) ||A_i x - b_i||^2, without a half; plus the regulariser."""

    curvature = 2.0

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).square()

    def slope(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return 2 * (predictions - targets)
