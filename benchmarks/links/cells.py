"""One cell of the table: the ranks of one method, trained over one kind of link."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from links.network import Network, Profile, network
from links.worker import Job

#: Seconds between looks at the workers.
_POLL = 0.05
#: Seconds without a step or an end of any rank after which they are stuck; gloo gives up earlier.
_STUCK = 240.0


@dataclass(frozen=True)
class Case:
    """What is trained, apart from the link."""

    model: str
    method: str
    ranks: int
    seed: int
    source: str


@dataclass
class Outcome:
    """``seconds`` until the slowest rank had finished ``steps``; ``extrapolated``: cut after
    ``measured`` steps. ``bytes``: sent by all ranks, by the interface counters (None on loopback,
    which others use too). ``averaging``: seconds of one all-reduce of the models afterwards.
    ``stats``: what a method of Tacit says of itself, by rank. ``models``: mean of the ranks'
    models at each snapshot, (snapshots, d)."""

    steps: int
    measured: int
    seconds: float
    bytes: int | None
    extrapolated: bool = False
    averaging: float | None = None
    stats: list[dict[str, Any]] = field(default_factory=list)
    models: np.ndarray | None = None

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / self.steps


def run_cell(
    case: Case, profile: Profile, steps: int, snapshots: Sequence[int], cap: float | None = None
) -> Outcome:
    """Train ``steps`` steps; cut after ``cap`` seconds. Raises RuntimeError where a rank fails."""
    with ExitStack() as stack:
        net = stack.enter_context(network(profile, case.ranks))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tacit-link-")))
        ranks = [
            stack.enter_context(_worker(case, net, rank, steps, snapshots, folder))
            for rank in range(case.ranks)
        ]
        stack.callback(_kill, ranks)
        cut = _wait(case, ranks, folder, cap)
        logs = [np.load(folder / f"steps-{rank}.npy") for rank in range(case.ranks)]
        if cut:
            return _extrapolate(net, logs, steps)
        ends = [json.loads((folder / f"end-{r}.json").read_text()) for r in range(case.ranks)]
        models = [np.load(folder / f"models-{r}.npy", mmap_mode="r") for r in range(case.ranks)]
        sent = sum(end["bytes"] - log[0, 1] for end, log in zip(ends, logs, strict=True))
        return Outcome(
            steps,
            steps,
            _elapsed(logs, steps),
            int(sent) if net.namespaces else None,
            averaging=max(end["averaging"] for end in ends),
            stats=[end["stats"] for end in ends],
            models=sum(models[1:], np.array(models[0])) / np.float32(case.ranks),
        )


def _worker(
    case: Case, net: Network, rank: int, steps: int, snapshots: Sequence[int], folder: Path
) -> subprocess.Popen[bytes]:
    job = Job(
        rank=rank,
        steps=steps,
        snapshots=tuple(snapshots),
        device=net.device,
        folder=str(folder),
        **asdict(case),
    )
    modules = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [modules, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        net.command(rank) + job.command(),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=(folder / f"errors-{rank}").open("wb"),
    )


def _wait(
    case: Case, ranks: Sequence[subprocess.Popen[bytes]], folder: Path, cap: float | None
) -> bool:
    """Wait for all ranks; True where the cap cut them short. Ranks that are stuck are an error."""
    progress: object = None
    since = time.monotonic()
    while True:
        codes = [rank.poll() for rank in ranks]
        failed = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
        if failed:
            said = (folder / f"errors-{failed[0]}").read_text(errors="replace").strip()
            raise RuntimeError(f"{case.method}, rank {failed[0]} failed:\n{said[-2000:]}")
        if None not in codes:
            return False
        if time.monotonic() - since > _STUCK:
            if (done := (codes, _steps_done(folder))) == progress:
                raise RuntimeError(
                    f"{case.method}: no rank went on for {_STUCK:.0f} s. {_stacks(ranks, folder)}"
                )
            progress, since = done, time.monotonic()
        log = folder / "steps-0.npy"
        if cap is not None and log.exists() and log.stat().st_size > 0:
            began = np.load(log, mmap_mode="r")[0, 0]
            if time.monotonic() - began > cap:  # False while it is NaN
                return True
        time.sleep(_POLL)


def _steps_done(folder: Path) -> int:
    logs = [np.load(log, mmap_mode="r") for log in folder.glob("steps-*.npy") if log.stat().st_size]
    return sum(int(np.isfinite(log[:, 0]).sum()) for log in logs)


def _stacks(ranks: Sequence[subprocess.Popen[bytes]], folder: Path) -> str:
    """Where every rank is; the workers write it on SIGUSR1."""
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(signal.SIGUSR1)
    time.sleep(2.0)
    said = [(folder / f"errors-{r}").read_text(errors="replace")[-3000:] for r in range(len(ranks))]
    return "\n".join(f"rank {r}:\n{text.strip()}" for r, text in enumerate(said))


def _kill(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()


def _elapsed(logs: Sequence[np.ndarray], steps: int) -> float:
    return float(max(log[steps, 0] for log in logs) - min(log[0, 0] for log in logs))


def _extrapolate(net: Network, logs: Sequence[np.ndarray], steps: int) -> Outcome:
    """The rest goes on as the second half of what was measured."""
    done = min(int(np.isfinite(log[:, 0]).sum()) - 1 for log in logs)
    if done < 2:
        raise RuntimeError(f"only {done} steps before the cap; give a larger --cap")
    half = done // 2
    rest = (steps - done) / (done - half)
    seconds = _elapsed(logs, done) + rest * (_elapsed(logs, done) - _elapsed(logs, half))
    sent = sum(log[done, 1] - log[0, 1] + rest * (log[done, 1] - log[half, 1]) for log in logs)
    return Outcome(steps, done, seconds, int(sent) if net.namespaces else None, extrapolated=True)
