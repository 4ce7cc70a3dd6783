"""How robust are the rules? The worst inputs found, against the bound that no rule is below.

    python experiments/robustness_bounds.py [--quick] [--seed 0] [--out FILE]

kappa, for rules that combine all vectors (see ``tacit.aggregators.guarantees.kappa``): with every
set of n - f vectors for (n, f) = (10, 2) and (12, 3), with some of them for (26, 5). What is found
is a lower bound of kappa: a smaller figure is no proof of a better rule.

Mixing among peers (see ``reduction``): alpha, how much of the honest models' spread is left, and
lambda, how far their mean has moved, for n / f from 3.5 to 12 at f = 2; 1000 draws each.

*quoted* are bounds from memory of the papers, unverified: printed, and part of no check.

kappa.RULE.nN.fF            found; ok if it is finite, and f senders on a line can do no less than
                            f / (n - 2 f)
reduction.nna.contracts_from  the smallest n / f from which on alpha < 1; ok if there is one
reduction.nna.invariant     the largest part of |y - h| <= 2 f / (n - 2 f) max |x_j - x_i| reached
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict
from typing import Any

import _cells
import torch

from tacit.aggregators import Robust, aggregator
from tacit.aggregators.guarantees import Kappa, Reduction, kappa, reduction
from tacit.errors import UserError

RULES = {
    "mean": "mean",
    "median": "median:f={f}",
    "trimmed_mean": "trimmed_mean:f={f}",
    "meamed": "meamed:f={f}",
    "geometric_median": "geometric_median:f={f}",
    "krum": "krum:f={f}",
    "multi_krum": "multi_krum:f={f}",
    "bulyan": "bulyan:f={f}",
    "mda": "mda:f={f}",
    "smea": "smea:f={f}",
    "caf": "caf:f={f}",
    "dnc": "dnc:f={f}",
    "cge": "cge:f={f}",
    "ctma_median": "ctma:f={f},first=median",
    "centered_clipping": "centered_clipping:tau=1,rounds=3,f={f}",
    "nnm_median": "nnm:f={f},then=median",
    "nnm_trimmed_mean": "nnm:f={f},then=trimmed_mean",
    "nnm_geometric_median": "nnm:f={f},then=geometric_median",
    "nnm_krum": "nnm:f={f},then=krum",
    "nnm_multi_krum": "nnm:f={f},then=multi_krum",
    "nnm_caf": "nnm:f={f},then=caf",
    "arc_nnm_trimmed_mean": "arc:f={f},then=nnm(then=trimmed_mean)",
}
#: Rules with no kappa at all: the mean; by design those that go by norms, clip at a fixed radius,
#: or see one direction at a time.
UNBOUNDED = {"mean", "cge", "centered_clipping", "dnc"}
SIZES = ((10, 2), (12, 3), (26, 5))
#: The last two trust no row more than another.
PEERS = {
    "nna": "nna:f={f}",
    "cs_plus": "cs_plus:f={f}",
    "self_clipping": "self_clipping:tau=1,rounds=3,f={f}",
    "trimmed_mean": "trimmed_mean:f={f}",
    "geometric_median": "geometric_median:f={f}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer inputs, n = 10, some n / f")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="a file for everything that was found, JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    effort = {"draws": 1, "steps": 30} if args.quick else {"draws": 6, "steps": 200}
    checks: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for n, f in SIZES[:1] if args.quick else SIZES:
        found |= kappas(n, f, args.seed, effort, checks)
    workers = (8, 16, 24) if args.quick else (7, *range(8, 25, 2))
    found |= reductions(workers, 2, 90 if args.quick else 1000, args.seed, checks)
    print(f"\n{time.perf_counter() - began:.0f} s")
    _cells.finish("robustness_bounds", [], checks, args.out, found=found)


def kappas(n: int, f: int, seed: int, effort: dict[str, int], checks: dict[str, Any]) -> Any:
    """A table for all rules; returns what was found, by name."""
    print(f"\nkappa, n = {n}, f = {f}; no rule is below f / (n - 2 f) = {f / (n - 2 * f):.4f}")
    print(f"{'':22}{'found':>9}{'line':>9}{'quoted':>9}  attained by")
    all_found = {}
    for name, text in RULES.items():
        try:
            result = kappa(aggregator(text.format(f=f)), n, f, seed=seed, **effort)
        except UserError as error:
            print(f"{name:22}{'-':>9}{'':18}  {error}")
            continue
        quoted = "-" if result.quoted is None else f"{result.quoted:.3f}"
        most = "> 1000" if 1000 < result.found < math.inf else f"{result.found:.3f}"
        print(f"{name:22}{most:>9}{result.line:9.4f}{quoted:>9}  {result.family}",
              flush=True)  # fmt: skip
        key = f"kappa.{name}.n{n}.f{f}"
        all_found[key] = kappa_cell(result)
        if name not in UNBOUNDED:
            checks[key] = within(result)
    return all_found


def within(result: Kappa) -> dict[str, Any]:
    """The largest ratio above its lower bound; there is no upper one to check."""
    fine = result.line >= result.lower * (1 - 1e-9) and math.isfinite(result.found)
    bounds = [round(result.lower, 4), None]
    return {"value": finite(round(result.found, 4)), "bar": bounds, "ok": fine}


def kappa_cell(result: Kappa) -> dict[str, Any]:
    cell = {"n": result.n, "f": result.f, "family": result.family, "lower": result.lower}
    families = {name: finite(value) for name, value in result.families.items()}
    figures = {"found": finite(result.found), "line": finite(result.line)}
    return {**cell, **figures, "quoted": result.quoted, "families": families}


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def reductions(
    workers: tuple[int, ...], f: int, draws: int, seed: int, checks: dict[str, Any]
) -> dict[str, Any]:
    """A table over n / f; returns what was found, by name."""
    print(f"\nmixing among peers, f = {f}, {draws} draws; n / f = 3 leaves too few honest vectors")
    print(f"{'':17}{'n':>4}{'n / f':>7}{'alpha':>9}{'lambda':>9}{'quoted':>8}{'invariant':>11}  "
          "attained by")  # fmt: skip
    all_found: dict[str, Any] = {}
    for name, text in PEERS.items():
        rule, results = aggregator(text.format(f=f)), []
        assert isinstance(rule, Robust)
        for n in workers:
            result = reduction(rule, n, f, draws=draws, seed=seed)
            results.append(result)
            quoted = "-" if result.quoted is None else f"{result.quoted:.3f}"
            limit = "-" if result.invariant is None else f"{result.invariant:.6f}"
            print(
                f"{name:17}{n:4d}{n / f:7.1f}{result.alpha:9.3f}{result.bias:9.3f}{quoted:>8}"
                f"{limit:>11}  {result.alpha_family}",
                flush=True,
            )
            all_found[f"reduction.{name}.n{n}.f{f}"] = asdict(result)
        if name == "nna":
            checks |= nna_checks(results)
    return all_found


def nna_checks(results: list[Reduction]) -> dict[str, Any]:
    spreads = [result for result in results if result.alpha >= 1]
    above = [r.n / r.f for r in results if not spreads or r.n > spreads[-1].n]
    first = above[0] if above else None
    limit = max(result.invariant or 0.0 for result in results)
    most = results[-1].n / results[-1].f
    return {
        "reduction.nna.contracts_from": {"value": first, "bar": most, "ok": first is not None},
        "reduction.nna.invariant": {"value": limit, "bar": 1, "ok": limit <= 1 + 1e-9},
    }


if __name__ == "__main__":
    main()
