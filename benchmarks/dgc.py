"""How much Deep Gradient Compression sends, and what a step of it costs, on 25 million parameters.

    python benchmarks/dgc.py [--quick]

One worker's exchange as it is in training, memory, message and all, on one thread. Gradients are
Gaussian, so the positions have no structure, which is the worst case for their code. Bytes are the
ledger's: of the message, header included. A pass is ``torch.abs(x, out=y)`` over the same vector.

dgc.ratio_fp16, dgc.ratio_int8    dense float32 bytes over those of a message at a density of 0.1 %
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _harness import check, paired, report

import tacit
from tacit.rng import torch_stream
from tacit.setting import Setting

N, DENSITY = 25_000_000, 0.001


class Model:
    """One worker's row, as an exchange sees it."""

    def __init__(self) -> None:
        self.parameters = torch.zeros(1, N)
        self.gradients = torch.empty(1, N)
        self.buffers = torch.empty(1, 0)


class Worker:
    """A worker that has sent some gradients before, so that its memory holds something."""

    def __init__(self, values: str, noise: torch.Tensor) -> None:
        recipe = tacit.dgc(density=DENSITY, values=values, per_tensor=False)
        assert recipe.gradients is not None
        self.exchange, self.noise = recipe.gradients, noise
        self.model, self.fleet = Model(), tacit.LocalFleet(1)
        self.exchange.start(self.fleet, self.model, Setting(workers=1, d=N))
        self.present = torch.ones(1, dtype=torch.bool)

    def step(self) -> None:
        self.fleet.ledger.step += 1
        self.model.gradients[0] = self.noise
        self.exchange.step(self.present)

    def message(self) -> int:
        """Bytes of the last message."""
        before = int(self.fleet.ledger.sent("gradient")[0])
        self.step()
        return int(self.fleet.ledger.sent("gradient")[0]) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, same size")
    repeats = 3 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    noise = torch.randn(N, generator=torch_stream(0, "benchmark", "dgc"))
    out = torch.empty(N)
    workers = {values: Worker(values, noise) for values in ("fp32", "fp16", "int8")}
    seconds = paired(
        {
            "pass: torch.abs(x, out=y)": lambda: torch.abs(noise, out=out),
            "momentum SGD's update": lambda: out.mul_(0.9).add_(noise),
            **{f"a step, {values}": worker.step for values, worker in workers.items()},
        },
        repeats,
    )
    print(f"n = {N:,}, density {DENSITY:.1%}")
    unit = seconds["pass: torch.abs(x, out=y)"]
    for name, value in seconds.items():
        print(f"{name:28}{1e3 * value:9.1f} ms{value / unit:8.2f} passes")
    ratios = {}
    for values, worker in workers.items():
        size = worker.message()
        ratios[values] = 4 * N / size
        print(f"{values}: {size:,} bytes, {ratios[values]:,.0f} times fewer than dense float32")
    report(
        {
            "dgc.ratio_fp16": check(ratios["fp16"], at_least=1100),
            "dgc.ratio_int8": check(ratios["int8"], at_least=1500),
        }
    )


if __name__ == "__main__":
    main()
