"""One rank of one cell: trains, and notes after every step the time and the bytes sent.

    python -m links.worker '{"rank": 0, ...}'      (the fields of ``Job``)

Writes into ``folder``: ``steps-R.npy`` while it runs, (steps + 1, 2) float64, seconds of the
monotonic clock and bytes since the device was made, NaN for steps not done; ``models-R.npy``,
(snapshots, d); ``end-R.json``.
"""

from __future__ import annotations

import copy
import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from links.methods import Training, adam, method
from links.models import build, flat, images, shard


@dataclass(frozen=True)
class Job:
    """``snapshots``: after which steps the model is kept. ``averages``: end with an all-reduce of
    the models, timed apart."""

    rank: int
    ranks: int
    model: str
    method: str
    source: str
    seed: int
    steps: int
    snapshots: tuple[int, ...]
    device: str
    folder: str

    def command(self) -> list[str]:
        return [sys.executable, "-m", "links.worker", json.dumps(asdict(self))]


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    # the benchmark may be killed: then so are its workers
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    torch.set_num_threads(1)
    training = train(job)
    # Nothing is taken down: where a DDP model is the last to hold its process group, torch waits
    # for gloo's thread with Python's lock in hand, and that thread may be waiting for the lock.
    sys.stderr.flush()
    os._exit(0 if training else 1)


def train(job: Job) -> Training:
    folder = Path(job.folder)
    data, _ = images(job.source)
    batches = shard(data, job.rank, job.ranks, job.seed)
    module = build(job.model, job.seed)
    warm_up(module, *data.batch(batches.at(0)))

    os.environ["GLOO_SOCKET_IFNAME"] = job.device
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=job.rank,
        world_size=job.ranks,
        timeout=timedelta(minutes=3),
    )
    training = method(job.method).start(module)
    kept = []
    log = np.lib.format.open_memmap(
        folder / f"steps-{job.rank}.npy", "w+", np.float64, (job.steps + 1, 2)
    )
    log[:] = np.nan
    counter = os.open(f"/sys/class/net/{job.device}/statistics/tx_bytes", os.O_RDONLY)
    dist.barrier()
    before = training.stats()
    log[0] = time.monotonic(), sent(counter)
    for step in range(1, job.steps + 1):
        step_on(training, *data.batch(batches.at(step - 1)))
        log[step] = time.monotonic(), sent(counter)
        if step in job.snapshots:
            kept.append(flat(module).numpy())
    finish(job, module, training, counter, folder, before)
    np.save(folder / f"models-{job.rank}.npy", np.array(kept))
    dist.barrier()
    return training


def finish(
    job: Job,
    module: nn.Module,
    training: Training,
    counter: int,
    folder: Path,
    before: dict[str, Any],
) -> None:
    dist.barrier()  # whatever was sent before it has left the interface
    total = sent(counter)
    began = time.monotonic()
    # what a user does at the end of a method whose models differ from rank to rank
    dist.all_reduce(flat(module))
    stats = training.stats()
    if before:  # the models of the start are not part of what is timed
        stats["ring_bytes"] -= before["ring_bytes"]
    end = {"bytes": total, "averaging": time.monotonic() - began, "stats": stats}
    training.close()
    (folder / f"end-{job.rank}.json").write_text(json.dumps(end))


def step_on(training: Training, x: torch.Tensor, y: torch.Tensor) -> None:
    loss = F.cross_entropy(training.model(x), y)
    loss.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


def warm_up(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """What the first steps of a process cost beyond others, on a copy of the model."""
    throwaway = copy.deepcopy(module)
    training = Training(throwaway, adam(throwaway))
    for _ in range(3):
        step_on(training, x, y)


def sent(counter: int) -> int:
    return int(os.pread(counter, 32, 0))


if __name__ == "__main__":
    main()
