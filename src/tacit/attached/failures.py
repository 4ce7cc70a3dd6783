"""When an exchange fails: who is still there?"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import torch.distributed as dist

#: How long survivors wait for each other's sign of life, in seconds.
PATIENCE = 10.0


def survivors(token: str, ranks: Sequence[int], step: int) -> dict[int, int] | None:
    """The ranks that notice the same failure within ``PATIENCE``, and the step each is at.

    Each leaves a note in the process group's store, which outlives a rank unless that rank hosts
    it; None where the store does not answer.
    """
    mine = dist.get_rank()
    alive = {mine: step}
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(_key(token, mine), str(step))
        deadline = time.monotonic() + PATIENCE
        while len(alive) < len(ranks) and time.monotonic() < deadline:
            for rank in ranks:
                if rank not in alive and store.check([_key(token, rank)]):
                    alive[rank] = int(store.get(_key(token, rank)))
            time.sleep(0.05)
    except (RuntimeError, ValueError):
        return None
    return alive


def _key(token: str, rank: int) -> str:
    return f"tacit/{token}/{rank}"


def say_gone(gone: Sequence[int], size: int) -> str:
    if len(gone) == 1:
        return f"rank {gone[0]} of {size} did not answer"
    names = ", ".join(map(str, gone))
    # on a ring only a lost rank's neighbours notice at once
    return f"ranks {names} of {size} did not answer (some may only not have noticed yet)"


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore SIGTERM meanwhile: torchrun sends it to the survivors of a failure at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
