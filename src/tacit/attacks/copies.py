"""Attacks that repeat an honest worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tacit import rng
from tacit.aggregators.passes import spans
from tacit.attacks.base import Attack, Sight
from tacit.attacks.spread import centre
from tacit.errors import UserError
from tacit.setting import Setting


class Mimic(Attack):
    """A copy of what one honest ``worker`` sends, so that its data count too much (Karimireddy et
    al., "Byzantine-Robust Learning on Heterogeneous Datasets", ICLR 2022).

    ``learn``: instead, the honest vector farthest from the honest in the direction z in which they
    differ most, ``<x_i - m, z>``, signed, so that it is the same side at every step. Through the
    first ``warmup`` calls, m is the running mean of the honest means, and z that of
    ``sum_i <x_i - m, z> (x_i - m)`` made a unit vector, which starts at random; later only m goes
    on. Vectors of each kind (gradients, models) have an m and a z of their own.
    """

    def __init__(self, worker: int = 0, learn: bool = False, warmup: int = 100) -> None:
        if isinstance(worker, bool) or worker < 0 or warmup < 1:
            raise UserError(
                f"mimic takes a worker from 0 and a warmup from 1, not {worker!r} and {warmup!r}"
            )
        self.worker, self.learn, self.warmup = worker, learn, warmup
        self._seen: dict[str, _Seen] = {}
        self._device = torch.device("cpu")

    def start(self, setting: Setting) -> None:
        self._seen, self._device = {}, setting.device

    def __call__(self, sight: Sight) -> Tensor:
        if self.learn:
            return sight.honest[self._farthest(sight)].clone()
        if self.worker >= len(sight.honest):
            raise UserError(
                f"mimic: there is no honest worker {self.worker} among {len(sight.honest)}"
            )
        return sight.honest[self.worker].clone()

    def _farthest(self, sight: Sight) -> int:
        mean, seen = centre(sight.honest), self._seen.get(sight.kind)
        if seen is None:
            draws = rng.torch_stream(sight.seed, "mimic", sight.kind)
            random = torch.randn(len(mean), generator=draws, dtype=torch.float64).to(mean.device)
            seen = self._seen[sight.kind] = _Seen(0, torch.zeros_like(mean), random)
        seen.mean += (mean - seen.mean) / (seen.calls + 1)
        if seen.calls < self.warmup:
            along = seen.along(sight.honest)
            pull = torch.zeros_like(mean)
            for span in spans(sight.honest):
                pull[span] = along @ (sight.honest[:, span] - seen.mean[span])
            seen.direction += (pull - seen.direction) / (seen.calls + 1)
            length = torch.linalg.vector_norm(seen.direction)
            seen.direction /= length if length > 0 else 1.0
        seen.calls += 1
        return int(seen.along(sight.honest).argmax())

    def state_dict(self) -> dict[str, Any]:
        """What was learnt, by kind."""
        return {
            kind: {
                "calls": seen.calls,
                "mean": seen.mean.clone(),
                "direction": seen.direction.clone(),
            }
            for kind, seen in self._seen.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen = {
            kind: _Seen(
                seen["calls"],
                seen["mean"].to(self._device, copy=True),
                seen["direction"].to(self._device, copy=True),
            )
            for kind, seen in state.items()
        }


@dataclass
class _Seen:
    """``mean``, ``direction``: ``(d,)`` float64."""

    calls: int
    mean: Tensor
    direction: Tensor

    def along(self, honest: Tensor) -> Tensor:
        """``<x_i - mean, direction>``, ``(H,)``."""
        out = self.mean.new_zeros(len(honest))
        for span in spans(honest):
            out += (honest[:, span] - self.mean[span]) @ self.direction[span]
        return out
