"""How fast a simulation is, against the learning that it contains.

    python benchmarks/simulation.py [--quick]

sim.step_ratio           an FDA step, LeNet-5, K=30, b=32, over its bare forward and backward passes
sim.two_process_speedup  one process with two threads over two processes with one thread each
sim.mlp_speedup          a Python loop over K=100 workers with a module and an Adam each, over ours
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from _harness import check, paired, report
from torch import nn

import tacit
from tacit.fleet import ProcessGroupFleet
from tacit.tasks import Task, TensorData
from tacit.tasks.models.lenet import LeNet5
from tacit.tasks.models.mlp import mlp

ADAM = partial(torch.optim.Adam, lr=1e-3, eps=1e-7)
#: Never reached: a step with its check, as nearly all steps are.
THETA = 1e9


def lenet_task(samples: int = 6000) -> Task:
    """Random images: the speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 1, 28, 28, generator=generator)
    y = torch.randint(10, (samples,), generator=generator)
    data = TensorData(x, y)
    return Task("images", data, data, LeNet5, ADAM)


def bare_passes(task: Task, workers: int) -> Callable[[], None]:
    """The forward and backward passes of one step, and nothing else."""
    module = task.model()
    batches = [task.train.batch(torch.arange(k * 32, k * 32 + 32).numpy()) for k in range(workers)]

    def passes() -> None:
        for x, y in batches:
            module.zero_grad()
            task.loss(module(x), y).backward()

    return passes


def step_ratio(repeats: int) -> float:
    """A simulated step over its bare passes."""
    task = lenet_task()
    simulation = tacit.Simulation(task, tacit.fda(THETA), tacit.LocalFleet(30))
    times = paired(
        {"bare passes": bare_passes(task, 30), "simulated step": simulation.step}, repeats
    )
    return times["simulated step"] / times["bare passes"]


def mlp_speedup(repeats: int) -> float:
    """A plain loop over workers, each with a module and an optimizer, over a simulated step."""
    workers = 100
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, 64, generator=generator)
    y = torch.randint(10, (20_000,), generator=generator)
    task = Task("vectors", TensorData(x, y), TensorData(x, y), mlp, ADAM)
    simulation = tacit.Simulation(task, tacit.fda(THETA), tacit.LocalFleet(workers))
    modules = [mlp() for _ in range(workers)]
    optimizers = [ADAM(module.parameters()) for module in modules]

    def plain_loop() -> None:
        for k, (module, optimizer) in enumerate(zip(modules, optimizers, strict=True)):
            chosen = 200 * k + torch.randperm(200)[:32]
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[chosen]), y[chosen]).backward()
            optimizer.step()

    times = paired({"plain loop": plain_loop, "simulated step": simulation.step}, repeats)
    return times["plain loop"] / times["simulated step"]


def two_process_speedup(steps: int, repeats: int) -> float:
    """Wall time of the same run: one process with two threads over two with one thread each."""
    ratios = []
    for _ in range(repeats):
        one = run_processes(1, threads=2, steps=steps)
        two = run_processes(2, threads=1, steps=steps)
        ratios.append(one / two)
        print(f"one process {one:.2f} s, two processes {two:.2f} s", flush=True)
    return sorted(ratios)[len(ratios) // 2]


def run_processes(processes: int, threads: int, steps: int) -> float:
    """Seconds that ``steps`` steps of K=30 take, spread over processes; start-up not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        children = [
            subprocess.Popen(
                [sys.executable, __file__, "--member", f"{rank},{processes},{steps},{scratch}"],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(processes)
        ]
        outputs = [child.communicate()[0] for child in children]
    return max(float(output.split()[-1]) for output in outputs)


def member(description: str) -> None:
    """One process of :func:`run_processes`."""
    rank, processes, steps, scratch = description.split(",")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group(
        "gloo",
        init_method=f"file://{Path(scratch) / 'rendezvous'}",
        rank=int(rank),
        world_size=int(processes),
    )
    fleet = ProcessGroupFleet(30 // int(processes))
    simulation = tacit.Simulation(lenet_task(), tacit.fda(THETA), fleet)
    for _ in range(3):
        simulation.step()
    fleet.barrier()
    began = time.perf_counter()
    for _ in range(int(steps)):
        simulation.step()
    fleet.barrier()
    print(time.perf_counter() - began)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, under a minute")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.member:
        return member(args.member)
    two = two_process_speedup(steps=20 if args.quick else 100, repeats=1 if args.quick else 5)
    torch.set_num_threads(1)
    step = step_ratio(repeats=20 if args.quick else 100)
    mlp = mlp_speedup(repeats=30 if args.quick else 200)
    report(
        {
            "sim.step_ratio": check(step, at_most=1.25),
            "sim.two_process_speedup": check(two, at_least=1.0),
            "sim.mlp_speedup": check(mlp, at_least=8.0),
        }
    )


if __name__ == "__main__":
    main()
