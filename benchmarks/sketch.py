"""Passes over memory that a monitoring check costs: the AMS sketch and the linear estimator.

A pass is ``torch.abs(x, out=y)`` over the same float32 vector of d = 10^7 numbers, on one thread.
It reads and writes 4 d bytes; a sketch only reads them, so the limit set by memory is about half a
pass. The table shows it as ``torch.sum``. "From parameters" subtracts the reference on the way and
so reads three vectors.

    python benchmarks/sketch.py [--quick]
"""

from __future__ import annotations

import argparse

import torch
from _harness import check, paired, report

from tacit.rng import torch_stream
from tacit.sketches import AMSSketch, drift_moments, moments

D, ROWS, COLUMNS = 10_000_000, 5, 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, same size")
    repeats = 11 if parser.parse_args().quick else 41
    torch.set_num_threads(1)

    generator = torch_stream(0, "benchmark", "sketch")
    params, reference, xi = torch.randn((3, D), generator=generator)
    out = torch.empty(D)
    sketch = AMSSketch(D, ROWS, COLUMNS)
    plain = AMSSketch(D, ROWS, COLUMNS, kernel=False)
    one = params[None]

    seconds = paired(
        {
            "pass: torch.abs(x, out=y)": lambda: torch.abs(params, out=out),
            "read: torch.sum(x)": lambda: torch.sum(params),
            "sketch": lambda: sketch(params),
            "linear": lambda: moments(one, xi),
            "linear, from parameters": lambda: drift_moments(one, reference, xi),
            "sketch, plain torch": lambda: plain(params),
            "linear, plain torch": lambda: moments(one, xi, kernel=False),
        },
        repeats,
    )
    unit = seconds["pass: torch.abs(x, out=y)"]
    passes = {name: value / unit for name, value in seconds.items()}

    print(f"d = {D:,}, {ROWS} x {COLUMNS} sketch, tables of {sketch.hashing.nbytes / 1e6:.2f} MB")
    print(f"{'':40}{'ms':>9}{'passes':>9}")
    for name, value in seconds.items():
        print(f"{name:40}{1e3 * value:9.2f}{passes[name]:9.2f}")
    report(
        {
            "sketch.passes": check(passes["sketch"], at_most=6.0),
            "linear.passes": check(passes["linear"], at_most=2.5),
        }
    )


if __name__ == "__main__":
    main()
