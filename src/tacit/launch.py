"""Start this run once for each of several processes on this machine, and wait for them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: How long the others may go on by themselves once one has failed, in seconds.
_GRACE = 5.0


def launch(arguments: list[str], processes: int) -> int:
    """Run ``python -m tacit ARGUMENTS`` in ``processes`` processes that form a process group.

    Only the first one prints to the terminal; of the others, the errors of the first that fails are
    shown. When one fails the rest are stopped. Returns 0, or the exit status of a failed process.
    """
    with tempfile.TemporaryDirectory(prefix="tacit-") as scratch:
        children = [_start(arguments, rank, processes, Path(scratch)) for rank in range(processes)]
        try:
            return _wait(children, Path(scratch))
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()


def _start(arguments: list[str], rank: int, size: int, scratch: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "TACIT_RENDEZVOUS": f"file://{scratch / 'rendezvous'}",
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // size)),
    }
    command = [sys.executable, "-m", "tacit", *arguments]
    if rank == 0:
        return subprocess.Popen(command, env=environment)
    with _log(scratch, rank).open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _wait(children: list[subprocess.Popen[bytes]], scratch: Path) -> int:
    while True:
        codes = [child.poll() for child in children]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            break
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(0.05)
    first = failed[0]
    if first != 0:
        sys.stderr.write(_log(scratch, first).read_text(errors="replace"))
    return children[first].returncode or 1


def _log(scratch: Path, rank: int) -> Path:
    return scratch / f"rank-{rank}.log"
