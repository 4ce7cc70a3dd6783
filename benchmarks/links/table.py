"""What the cells say: a table, and the bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from _harness import check

from links.cells import Case, Outcome
from links.methods import method
from links.targets import Tester


@dataclass
class Row:
    """One cell. ``seconds`` to the target, with the ``averaging`` at the end that methods need
    whose models differ from rank to rank; ``bytes`` by the interface counters, all ranks;
    ``ledger`` by Tacit's, on the wire; ``waiting``: the part of the time that the same steps
    without communication would not have taken. ``accuracy`` None where the cell was cut."""

    model: str
    ranks: int
    profile: str
    method: str
    label: str
    steps: int
    seconds: float
    averaging: float
    measured_steps: int
    bytes: int | None
    ledger: int | None
    synchronisations: int | None
    accuracy: float | None
    reached: bool
    waiting: float | None = None

    @classmethod
    def of(cls, case: Case, profile: str, outcome: Outcome, tester: Tester, target: float) -> Row:
        accuracy = None
        if outcome.models is not None:
            accuracy = tester.accuracy(outcome.models[-1])
        stats = outcome.stats[0] if outcome.stats else {}
        averaging = (outcome.averaging or 0.0) if method(case.method).averages else 0.0
        return cls(
            case.model,
            case.ranks,
            profile,
            case.method,
            method(case.method).label,
            outcome.steps,
            outcome.seconds + averaging,
            averaging,
            outcome.measured,
            outcome.bytes,
            stats.get("ring_bytes"),
            stats.get("synchronisations"),
            accuracy,
            accuracy is None or accuracy >= target,
        )

    @property
    def step(self) -> float:
        """Seconds per step."""
        return (self.seconds - self.averaging) / self.steps

    @property
    def contends(self) -> bool:
        return method(self.method).family in ("ddp", "peer", "fda") and self.reached

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds_per_step": self.step}

    def line(self) -> str:
        cut = "~" if self.measured_steps < self.steps else " "
        sent = f"{self.bytes / 1e6:10.1f}" if self.bytes is not None else " " * 10
        ledger = f"{self.ledger / 1e6:10.1f}" if self.ledger is not None else " " * 10
        waiting = f"{self.waiting:6.0%}" if self.waiting is not None else " " * 6
        accuracy = f"{self.accuracy:7.2%}" if self.accuracy is not None else " " * 7
        return (
            f"{self.profile:9} {self.label:50} {self.steps:5d} {cut}{self.seconds:8.1f} "
            f"{self.step * 1e3:8.1f} {waiting} {sent} {ledger} {accuracy}"
        )


HEAD = (
    f"{'link':9} {'method':50} {'steps':>5} {'seconds':>9} {'ms/step':>8} {'waits':>6} "
    f"{'MB sent':>10} {'MB ledger':>10} {'final':>7}"
)


def show(rows: Sequence[Row]) -> None:
    """The whole table, fastest first on each link."""
    for row in rows:
        alone = _alone(rows, row)
        row.waiting = max(0.0, 1 - alone / row.step) if alone is not None else None
    groups = sorted({(row.model, row.ranks) for row in rows})
    for model, ranks in groups:
        print(f"\n{model}, {ranks} ranks\n{HEAD}\n{'-' * len(HEAD)}")
        for profile in dict.fromkeys(row.profile for row in rows):
            chosen = [r for r in rows if (r.model, r.ranks, r.profile) == (model, ranks, profile)]
            for row in sorted(chosen, key=lambda row: row.seconds):
                print(row.line())


def checks(rows: Sequence[Row], model: str = "cnn", ranks: int = 2) -> dict[str, Any]:
    """Every bar whose cells were measured."""
    rows = [row for row in rows if (row.model, row.ranks) == (model, ranks)]
    found = {}
    bars = {"wan": (6.0, 1.2), "edge": (25.0, 1.5), "loopback": (1.0, None)}
    for profile, (against_ddp, against_peer) in bars.items():
        here = [row for row in rows if row.profile == profile and row.contends]
        fda, ddp = _best(here, "fda"), _best(here, "ddp")
        peer = _best(here, "peer")
        if fda is None:
            continue
        if ddp is not None:
            found[f"link.{profile}.vs_ddp"] = check(ddp.seconds / fda.seconds, at_least=against_ddp)
        if peer is not None and against_peer is not None:
            ratio = peer.seconds / fda.seconds
            found[f"link.{profile}.vs_best_peer"] = check(ratio, at_least=against_peer)
        alone = _alone(rows, fda)
        if profile == "wan" and alone is not None:
            found["link.wan.step_ratio"] = check(fda.step / alone, at_most=1.10)
    errors = [
        abs(row.ledger / row.bytes - 1)
        for row in rows
        if row.method.startswith("local_sgd") and row.ledger and row.bytes
    ]
    if errors:
        found["link.ledger_error"] = check(max(errors), at_most=0.05)
    return found


def _best(rows: Iterable[Row], family: str) -> Row | None:
    chosen = [row for row in rows if method(row.method).family == family]
    return min(chosen, key=lambda row: row.seconds, default=None)


def _alone(rows: Iterable[Row], like: Row) -> float | None:
    """Seconds per step without communication: the median of the cells that were run."""
    place = (like.model, like.ranks, like.profile)
    steps = [
        row.step
        for row in rows
        if (row.model, row.ranks, row.profile) == place and row.method == "local"
    ]
    return median(steps) if steps else None
