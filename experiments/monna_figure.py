"""The curves of monna_mnist.py as a picture (needs matplotlib).

python experiments/monna_figure.py RESULTS.json OUT.svg [--alpha 5]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLOURS = {
    "D-SGD": "#888888", "MoNNA": "#0b6e4f", "NNA": "#73b49f", "MoCWTM": "#3a5fcd",
    "BRIDGE": "#9fb3e8", "MoGM": "#c2571a", "GM": "#e5b48f", "SCC": "#8a3ffc", "LEARN": "#d12771",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results")
    parser.add_argument("out")
    parser.add_argument("--alpha", type=float, default=5.0)
    args = parser.parse_args()
    content = json.loads(Path(args.results).read_text())
    runs = [
        run
        for run in content["monna_mnist"]["runs"]
        if run["case"]["alpha"] == args.alpha and run["case"]["seed"] == 0
    ]
    draw(runs, Path(args.out))


def draw(runs: list[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "monna"})
    from matplotlib import pyplot

    attacks = list(dict.fromkeys(r["case"]["attack"] for r in runs if r["case"]["attack"]))
    figure, axes = pyplot.subplots(1, len(attacks), figsize=(11, 3.2), sharey=True)
    for axis, attack in zip(axes, attacks, strict=True):
        for run in runs:
            if run["case"]["attack"] not in (None, attack):
                continue
            method, honest = run["case"]["method"], run["case"]["attack"] is None
            steps, values = zip(*run["curve"], strict=True)
            axis.plot(
                steps,
                [100 * value for value in values],
                color=COLOURS[method],
                linestyle="--" if honest else "-",
                linewidth=2 if method == "MoNNA" else 1.2,
                label=f"{method}, no liars" if honest else method,
            )
        axis.set_title(attack)
        axis.set_xlabel("steps")
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("test accuracy of worker 0, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    partial = out.with_suffix(".partial")
    figure.savefig(partial, format="svg", metadata={"Date": None})
    partial.rename(out)


if __name__ == "__main__":
    main()
