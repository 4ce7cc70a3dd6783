"""Does partial balancing earn its place? Against a full synchronisation at every violation.

    python experiments/dynamic_averaging_balancing.py [--quick] [--drifts common] [--learners 10,30]
        [--out FILE]

The random graphical model, 3000 rounds; B = 10, b = 10, SGD at 0.1; every augmentation strategy,
with and without the violation counter, at the same deltas. Drifts are ``common`` to all learners,
at rounds 1000 and 2000, or each learner's ``own``, with probability 0.0005 a round.

balancing.fewer_bytes   of the cells (delta, learners), the part in which the paper's protocol (one
                        at random, with the counter) sends fewer bytes, words of control included,
                        than a full synchronisation at every violation
balancing.loss_ratio    its cumulative loss over the other's, the worst cell
"""

from __future__ import annotations

import argparse

from _streams import Case, Outcome, check, finish, show, sweep

FULL, PAPER = "augmentation=all", "augmentation=one"
VARIANTS = (
    FULL,
    PAPER,
    "augmentation=one,counter=false",
    "augmentation=nearest",
    "augmentation=double",
    "augmentation=hedge,counter=false",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 learners, few rounds")
    parser.add_argument("--drifts", choices=["common", "own"], default="common")
    parser.add_argument("--learners", default="10,30")
    parser.add_argument("--deltas", default="0.1,0.3,1,3,10")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out")
    args = parser.parse_args()
    learners, gap = [int(m) for m in args.learners.split(",")], 1000
    deltas = [float(delta) for delta in args.deltas.split(",")]
    seeds = [int(seed) for seed in args.seeds.split(",")]
    if args.quick:
        learners, gap, deltas, seeds = [10], 100, [0.3, 1.0], [0]
    task = "graphical:local=true,drift=0.0005"
    if args.drifts == "common":
        task = f"graphical:at={gap}/{2 * gap}"
    cases = [
        Case(task, f"dynamic_averaging:delta={delta:g},{variant}", m, 3 * gap, seed)
        for m in learners
        for seed in seeds
        for delta in deltas
        for variant in VARIANTS
    ]
    outcomes = sweep(cases, args.processes)
    show(outcome for outcome in outcomes if outcome.case.seed == seeds[0])
    cells = [cell(outcomes, m, delta) for m in learners for delta in deltas]
    print(f"\n{'m':>4} {'delta':>6}  of bytes and loss with every violation a full one")
    for one in cells:
        versus = "  ".join(
            f"{variant.removeprefix('augmentation=')} {ratios['bytes']:.2f} {ratios['loss']:.3f}"
            for variant, ratios in one["versus_full"].items()
        )
        print(f"{one['learners']:4d} {one['delta']:6g}  {versus}")
    paper = [one["versus_full"][PAPER] for one in cells]
    checks = {
        "balancing.fewer_bytes": check(
            sum(ratios["bytes"] < 1 for ratios in paper) / len(paper), at_least=1
        ),
        "balancing.loss_ratio": check(max(ratios["loss"] for ratios in paper), at_most=1),
    }
    finish("dynamic_averaging_balancing", outcomes, checks, args.out, cells=cells)


def cell(outcomes: list[Outcome], m: int, delta: float) -> dict:
    """Sums over seeds, as ratios to those of a full synchronisation at every violation."""

    def total(variant: str) -> tuple[int, float]:
        recipe = f"dynamic_averaging:delta={delta:g},{variant}"
        chosen = [o for o in outcomes if (o.case.workers, o.case.recipe) == (m, recipe)]
        return sum(o.total for o in chosen), sum(o.loss for o in chosen)

    spent, loss = total(FULL)
    versus = {}
    for variant in VARIANTS[1:]:
        own_bytes, own_loss = total(variant)
        versus[variant] = {
            "bytes": round(own_bytes / spent, 4),
            "loss": round(own_loss / loss, 5),
        }
    return {"learners": m, "delta": delta, "full_bytes": spent, "versus_full": versus}


if __name__ == "__main__":
    main()
