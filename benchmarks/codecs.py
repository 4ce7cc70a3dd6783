"""Passes over memory that a sparse message costs, and its length against the entropy.

A pass is ``torch.abs(x, out=y)`` over the same float32 vector of n = 10^7 numbers, on one thread.
Of it the k = 10^4 with the largest magnitude (0.1 %) are sent. "Encode" is all a sender does with
its memory of unsent updates: select, write positions and values, and subtract what was sent.
"Decode" is all a receiver does with one message: read it and add it into a dense vector.

The lengths are of sets without structure, the worst case; ``entropy`` is log2 C(n, k).

    python benchmarks/codecs.py [--quick]
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from _harness import check, paired, report

import tacit
from tacit.codecs import (
    add_at,
    decode_positions,
    decode_values,
    encode_positions,
    encode_values,
    sampled_top_k,
    take_top_k,
    top_k,
)
from tacit.errors import UserError
from tacit.rng import numpy_stream, torch_stream
from tacit.tasks import load

N, K = 10_000_000, 10_000
DENSITIES = (0.0001, 0.001, 0.01, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, same size")
    repeats = 11 if parser.parse_args().quick else 41
    torch.set_num_threads(1)
    passes = timings(repeats)
    over = lengths()
    clustered()
    report(
        {
            "topk.passes": check(passes["top k"], at_most=4.0),
            "encode.passes": check(
                max(passes["encode, fp16"], passes["encode, int8"]), at_most=6.0
            ),
            "decode.passes": check(
                max(passes["decode, fp16"], passes["decode, int8"]), at_most=0.2
            ),
            "codec.index_vs_entropy": check(over, at_most=1.05),
        }
    )


def timings(repeats: int) -> dict[str, float]:
    """The median passes of each case."""
    x = torch.randn(N, generator=torch_stream(0, "benchmark", "codecs"))
    memory, out, dense = x.clone(), torch.empty(N), torch.zeros(N)
    rng = numpy_stream(0, "benchmark", "codecs")
    messages = {code: encode(memory, code) for code in ("fp16", "int8")}
    memory.copy_(x)

    def encode_again(code: str) -> None:
        encode(memory, code)

    def restore() -> None:
        memory.copy_(x)

    # Each encoding takes the top away, so the memory is restored in a case of its own: only what
    # is timed under "encode" counts.
    seconds = paired(
        {
            "pass: torch.abs(x, out=y)": lambda: torch.abs(x, out=out),
            "top k": lambda: top_k(x, K),
            "top k, plain numpy": lambda: top_k(x, K, kernel=False),
            "DGC's sampled top k": lambda: sampled_top_k(x, K, K / N, rng),
            "torch.topk(torch.abs(x, out=y))": lambda: torch.topk(
                torch.abs(x, out=out), K, sorted=False
            ),
            "encode, fp16": lambda: encode_again("fp16"),
            "(restore the memory)": restore,
            "encode, int8": lambda: encode_again("int8"),
            "(restore it again)": restore,
            "decode, fp16": lambda: decode(*messages["fp16"], "fp16", dense),
            "decode, int8": lambda: decode(*messages["int8"], "int8", dense),
        },
        repeats,
    )
    unit = seconds["pass: torch.abs(x, out=y)"]
    print(f"n = {N:,}, k = {K:,}")
    print(f"{'':40}{'ms':>9}{'passes':>9}")
    for name, value in seconds.items():
        print(f"{name:40}{1e3 * value:9.2f}{value / unit:9.2f}")
    for code, (positions, values) in messages.items():
        size = len(positions) + len(values)
        print(f"{code}: {size:,} bytes, {4 * N / size:.0f} times fewer than dense float32")
    return {name: value / unit for name, value in seconds.items()}


def encode(memory: torch.Tensor, code: str) -> tuple[bytes, bytes]:
    """The message of the memory's top k; what rounding left out stays in the memory."""
    positions, values = take_top_k(memory, K, clear=True)
    body = encode_values(code, values)
    add_at(memory, positions, values - decode_values(code, body, K))
    return encode_positions(positions, N), body


def decode(positions: bytes, values: bytes, code: str, dense: torch.Tensor) -> None:
    """Add one message into a dense vector."""
    add_at(dense, decode_positions(positions, K, N), decode_values(code, values, K))


def lengths() -> float:
    """Print bits per position at some densities; returns the worst ratio to the entropy."""
    print(f"\n{'density':>8}{'entropy':>10}{'best Rice':>11}{'written':>9}{'of entropy':>12}")
    worst = 0.0
    for density in DENSITIES:
        k = int(N * density)
        chosen = numpy_stream(0, "benchmark", k).choice(N, k, replace=False, shuffle=False)
        positions = np.sort(chosen)
        gaps = np.diff(positions, prepend=-1) - 1
        rice = min(k * (b + 1) + int((gaps >> b).sum()) for b in range(N.bit_length()))
        bits, least = 8 * len(encode_positions(positions, N)), entropy(N, k)
        row = (least / k, rice / k, bits / k, bits / least)
        print(f"{density:8.2%}{row[0]:10.3f}{row[1]:11.3f}{row[2]:9.3f}{row[3]:12.4f}")
        worst = max(worst, row[3])
    return worst


def clustered() -> None:
    """Print bits per position of the largest entries of a real memory: DGC's, after 200 steps of
    LeNet-5 on MNIST, where entries of one layer are of one size."""
    try:
        task = load("mnist")
    except (UserError, OSError) as error:
        print(f"\nno real gradient: {error}")
        return
    simulation = tacit.Simulation(task, tacit.dgc(lr=0.05), tacit.LocalFleet(4), seed=0)
    for _ in range(200):
        simulation.step()
    exchange = simulation.recipe.gradients
    assert exchange is not None
    assert exchange.compression is not None
    memory = exchange.compression.memory.rows()["unsent"][0]
    n = len(memory)
    print(f"\nthe memory of a worker, LeNet-5, {n:,} entries")
    print(f"{'density':>8}{'entropy':>10}{'written':>9}{'of entropy':>12}")
    for density in DENSITIES[1:]:
        positions = top_k(memory.contiguous(), round(n * density))
        k = len(positions)
        bits, least = 8 * len(encode_positions(positions, n)), entropy(n, k)
        print(f"{density:8.2%}{least / k:10.3f}{bits / k:9.3f}{bits / least:12.4f}")


def entropy(n: int, k: int) -> float:
    """Of k positions among n, all sets being equally likely, bits."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


if __name__ == "__main__":
    main()
