"""Run a function in several processes joined by gloo, as a cluster would."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

#: Imported once, by the server from which all processes are forked; torch._dynamo is what the first
#: step of an optimizer imports.
_PRELOAD = ["torch", "torch.distributed", "torch._dynamo", "tacit.sketches.kernel", "helpers.warm"]


def run_processes(
    function: Callable[..., Any], processes: int, *arguments: Any, timeout: float = 120.0
) -> list[Any]:
    """``function(rank, *arguments)`` in each of ``processes`` processes; their results by rank.

    ``function`` must be importable (module level). Every process has one thread and a gloo group
    of all of them. Raises the first failure of a process with its traceback, TimeoutError after
    ``timeout`` seconds; no process is left behind.
    """
    _start_server()
    with tempfile.TemporaryDirectory(prefix="tacit-test-") as folder:
        context = mp.start_processes(
            _child,
            args=(processes, folder, function, arguments),
            nprocs=processes,
            join=False,
            start_method="forkserver",
        )
        deadline = time.monotonic() + timeout
        try:
            while not context.join(timeout=1.0):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{function.__name__} did not end within {timeout:g} s")
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
                process.join()
        return [pickle.loads((Path(folder) / f"{r}.pkl").read_bytes()) for r in range(processes)]


def run_survivors(
    function: Callable[..., Any], processes: int, *arguments: Any, timeout: float = 60.0
) -> list[Any]:
    """Like :func:`run_processes`, but processes may die: their result is None."""
    _start_server()
    starter = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory(prefix="tacit-test-") as folder:
        children = [
            starter.Process(target=_child, args=(r, processes, folder, function, arguments, False))
            for r in range(processes)
        ]
        try:
            for child in children:
                child.start()
            deadline = time.monotonic() + timeout
            for child in children:
                child.join(max(0.0, deadline - time.monotonic()))
        finally:
            for child in children:
                child.kill()
                child.join()
        files = [Path(folder) / f"{r}.pkl" for r in range(processes)]
        return [pickle.loads(f.read_bytes()) if f.exists() else None for f in files]


def _start_server() -> None:
    """Once. It finds what it imports by its environment alone."""
    multiprocessing.set_forkserver_preload(_PRELOAD)
    before, tests = os.environ.get("PYTHONPATH"), str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = tests if before is None else f"{tests}{os.pathsep}{before}"
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _child(
    rank: int,
    processes: int,
    folder: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    together: bool = True,
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes
    )
    result = function(rank, *arguments)
    # A result may hold tensors; plain pickle keeps them by value, beyond this process's end.
    (Path(folder) / f"{rank}.pkl").write_bytes(pickle.dumps(result))
    if not together:
        os._exit(0)  # others may be dead
    dist.barrier()
    dist.destroy_process_group()
