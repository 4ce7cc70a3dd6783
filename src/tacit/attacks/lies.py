"""Lies with one free number."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tacit.aggregators import Aggregator, PeerRule, Robust
from tacit.aggregators.passes import Array
from tacit.attacks.base import Sight
from tacit.errors import UserError


@dataclass(frozen=True)
class Lies:
    """``b(z) = mean + z direction`` to everybody, or ``b_i(z) = x_i + z pushes_i direction`` to
    honest worker i where there are ``pushes (H,)``.

    ``mean``, ``direction``: ``(d,)`` float64.
    """

    sight: Sight
    mean: Tensor
    direction: Tensor
    pushes: Array | None = None

    @property
    def rule(self) -> Aggregator:
        """What the receivers do. UserError where it is not known, or cannot take so many rows."""
        rule = self.sight.rule
        if rule is None:
            raise UserError(
                "an attack that searches needs to know the receivers' rule; give it a fixed scale, "
                "or attack a method with an aggregator"
            )
        if isinstance(rule, Robust):
            rule.check(self.sight.n)
        return rule


def applied(rule: Aggregator, rows: Tensor, own: int) -> Tensor:
    """The rule of the rows, as the worker applies it whose row is ``own``."""
    return rule(rows, pivot=own) if isinstance(rule, PeerRule) else rule(rows)
