"""How the density of messages falls in the first epochs."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.errors import UserError, inside
from tacit.setting import Setting

#: Lin et al., "Deep Gradient Compression", ICLR 2018: a quarter of the last epoch's.
_FACTOR = 0.25


class Densities:
    """``warmup`` gives the density in each of the first epochs, then it is ``density``. At 1
    nothing is compressed."""

    def __init__(self, density: float, warmup: Sequence[float] = ()) -> None:
        for value in (density, *warmup):
            _check(value)
        self.density, self.warmup = density, tuple(warmup)
        self._epoch: float | None = None

    @classmethod
    def parse(cls, density: float, warmup: int | str | Sequence[float]) -> Densities:
        """``warmup``: a number of epochs, in which the density is 0.25, 0.0625, ... as published,
        but no less than ``density``; or the densities themselves, ``"1/1/0.25"`` as text."""
        if isinstance(warmup, str) and not warmup.isdecimal():
            try:
                warmup = [float(part) for part in warmup.split("/")]
            except ValueError:
                raise UserError(
                    f"warmup {warmup!r} is not understood; write a number of epochs, or a density "
                    "for each, such as 0.25/0.06"
                ) from None
        if isinstance(warmup, int | str) and not isinstance(warmup, bool):
            epochs = int(warmup)
            if epochs < 0:
                raise UserError(f"a warm-up takes 0 or more epochs, not {epochs}")
            _check(density)
            stages: list[float] = []
            # from the first that is no more than it on, all are ``density``
            while len(stages) < epochs and density not in stages:
                stages.append(max(density, _FACTOR ** (len(stages) + 1)))
            return cls(density, stages)
        if isinstance(warmup, bool | float):
            raise UserError(f"a warm-up takes a whole number of epochs, not {warmup!r}")
        return cls(density, warmup)

    def start(self, setting: Setting) -> None:
        """Begin a run. Raises UserError where nobody knows how long an epoch is."""
        if self.warmup and setting.steps_per_epoch is None:
            raise UserError("a warm-up counts epochs; say attach(..., steps_per_epoch=...)")
        self._epoch = setting.steps_per_epoch

    def at(self, step: int) -> float:
        """The density of step 1, 2, ..."""
        if not self.warmup or self._epoch is None:
            return self.density
        epoch = int((step - 1) / self._epoch)
        return self.warmup[epoch] if epoch < len(self.warmup) else self.density


def _check(density: float) -> None:
    if not inside(density, "(0, 1]"):
        raise UserError(f"a density is in (0, 1], not {density!r}")
