"""The link model: what a ledger would have taken on a link of given bandwidth and latency."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tacit.errors import UserError
from tacit.fleet.ledger import KINDS, OPERATIONS, SMALL_MESSAGE, Ledger, with_coordinator

_BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Link:
    """Every worker's link: ``bandwidth`` in bits a second each way, ``latency`` in seconds one way.

    ``topology`` says how operations run:

    - ``ring``: an all-reduce takes ``2 (n-1)`` hops and ``2 (n-1)/n`` of the payload; a small one
      goes straight from everybody to everybody instead, in one hop, as :class:`ProcessGroupFleet`
      sends it (monitoring messages would otherwise wait for latency alone), and so does what is
      gathered, however long: each worker pushes out ``n-1`` copies of its own (taken to be alike),
    - ``star``: a coordinator with the same kind of link takes in all contributions, then gives
      the result to each.

    What a method exchanges with a coordinator of its own goes over that coordinator's link, on
    either.
    """

    bandwidth: float
    latency: float = 0.0
    topology: Literal["ring", "star"] = "ring"

    def __post_init__(self) -> None:
        if not 0 < self.bandwidth < math.inf or not 0 <= self.latency < math.inf:
            raise UserError(
                f"link: bandwidth must be above 0, latency at least 0 and both finite, got "
                f"{self.bandwidth:g} bit/s and {self.latency:g} s"
            )

    @classmethod
    def parse(cls, text: str) -> Link:
        """``"100mbit,20ms"``, optionally followed by ``,star``. Raises UserError."""
        match = re.fullmatch(
            r"([\d.]+)(bit|kbit|mbit|gbit)(?:,([\d.]+)(us|ms|s))?(?:,(ring|star))?",
            text.lower().replace(" ", ""),
        )
        try:
            if match is None:
                raise ValueError
            rate, rate_unit, delay, delay_unit, topology = match.groups()
            latency = float(delay) * _SECONDS[delay_unit] if delay else 0.0
            bandwidth = float(rate) * _BITS[rate_unit]
        except ValueError:
            raise UserError(
                f"link {text!r} is not understood; write bandwidth and one-way latency "
                "like 100mbit,20ms"
            ) from None
        return cls(bandwidth, latency, "star" if topology == "star" else "ring")

    def __str__(self) -> str:
        """What :meth:`parse` reads back as the same link."""
        rate = [unit for unit in ("gbit", "mbit", "kbit") if self.bandwidth >= _BITS[unit]]
        text = _exact(self.bandwidth, [*rate, "bit"], _BITS)
        text += "," + _exact(self.latency, ["ms", "us", "s"], _SECONDS)
        return text if self.topology == "ring" else f"{text},star"

    def seconds(
        self,
        operation: npt.NDArray[np.int64],
        payload: npt.NDArray[np.int64],
        participants: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """Time of each operation; arguments are columns of a ledger."""
        n = participants.astype(np.float64)
        reduce = operation == OPERATIONS.index("reduce")
        broadcast = operation == OPERATIONS.index("broadcast")
        if self.topology == "ring":
            hops = np.where(reduce, 2 * (n - 1), np.where(broadcast, n - 1, 1))
            share = (n - 1) / np.maximum(n, 1)
            # a worker's own message is the n-th part of what a gather brings
            volume = np.where(reduce, 2 * share * payload, share * payload)
            small = reduce & (payload <= SMALL_MESSAGE)
            hops = np.where(small, 1, hops)
            volume = np.where(small, (n - 1) * payload, volume)
            volume = np.where(broadcast, payload, volume)
        else:
            hops = np.full_like(n, 2.0)
            volume = np.where(reduce, 2 * n * payload, (n + 1) * payload)
        alone = participants <= 1
        coordinator = with_coordinator(operation)
        hops = np.where(coordinator, 1.0, np.where(alone, 0.0, hops))
        volume = np.where(coordinator, n * payload, np.where(alone, 0.0, volume))
        collection = operation == OPERATIONS.index("collect")
        hops, volume = np.where(collection, 1.0, hops), np.where(collection, payload, volume)
        return np.where(n == 0, 0.0, hops * self.latency + volume * 8 / self.bandwidth)


def _exact(value: float, units: list[str], sizes: dict[str, float]) -> str:
    """``value`` in the first of ``units`` that holds it without loss; the last one's size is 1."""
    for unit in units:
        text = np.format_float_positional(value / sizes[unit], trim="-")
        if float(text) * sizes[unit] == value:
            break
    return text + unit


def predicted_seconds(ledger: Ledger, link: Link, steps: int, step_seconds: float) -> float:
    """The virtual clock: how long ``steps`` steps and their messages take on ``link``.

    ``step_seconds`` is one worker's measured computation for one step. Workers compute at the same
    time. A link carries one message after the other; an overlapped one travels beside the
    computation of the steps it may take, and what does not fit is waited for.
    """
    seconds = link.seconds(
        ledger.column("operation"), ledger.column("payload"), ledger.column("participants")
    )
    seconds[ledger.column("kind") == KINDS.index("evaluation")] = 0.0
    overlaps = ledger.column("overlap")
    if not overlaps.any():
        return steps * step_seconds + float(seconds.sum())
    waited, link_free = 0.0, 0.0
    arriving: deque[tuple[int, float]] = deque()  # (step that needs it, when it is there)
    events = zip(ledger.column("step").tolist(), overlaps.tolist(), seconds.tolist(), strict=True)
    for step, overlap, duration in [*events, (steps + max(overlaps), 0, 0.0)]:
        while arriving and arriving[0][0] <= step:
            due, there = arriving.popleft()
            waited += max(0.0, there - (due * step_seconds + waited))
        now = step * step_seconds + waited
        link_free = max(now, link_free) + duration
        if overlap:
            arriving.append((step + overlap, link_free))
        else:
            waited += link_free - now
    return steps * step_seconds + waited
