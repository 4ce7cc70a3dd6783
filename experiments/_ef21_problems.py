"""The problems on which EF21's step sizes are compared, their constants, and the methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _ef21 import Method
from torch import Tensor

from tacit.memory import theory
from tacit.memory.theory_sampled import partial_step, stochastic_step
from tacit.tasks.libsvm import load_libsvm
from tacit.tasks.smooth import Logistic, Objective
from tacit.tasks.synthetic import least_squares

LAM = 1e-3
PRESENT, BATCH, GRID = 0.5, 0.25, 0.01

#: LIBSVM sets: clients, rounds of a full run, and the step ratio that the specification measured,
#: with how far from it ours may be.
SETS = {
    "a9a": (1000, 2000, 1.00, 0.01),
    "w8a": (1000, 2000, 1.26, 0.02),
    "mushrooms": (1000, 4000, 1.00, 0.01),
    "phishing": (1000, 4000, 1.00, 0.01),
    "splice": (100, 10000, 1.00, 0.01),
    "australian": (100, 20000, 5.41, 0.02),
}
#: Synthetic problems with this L_QM / L_AM.
SPREADS = (1, 2, 5, 10)


@dataclass
class Problem:
    """``own_features``: the regulariser of a client counts only its features, as EF21-RF needs.
    ``sampled``: also with absent clients, and with minibatches. No ``rounds``: only its constants
    are of interest."""

    name: str
    objective: Objective
    rounds: int = 0
    own_features: bool = False
    sampled: bool = False

    @property
    def alpha(self) -> float:
        """Of Top-1."""
        return 1 / self.objective.d

    def constants(self) -> dict[str, Any]:
        """For the table. ``weights``: least, median and largest n w_i; 1: all clients are alike."""
        objective, constants = self.objective, self.objective.client_smoothness.numpy()
        means = theory.means(constants)
        share = objective.sharing / objective.n
        weights = theory.weights(constants) * objective.n
        bound = theory.rare_bound(constants, objective.clients.supports.numpy())
        L, alpha = objective.smoothness, self.alpha
        old = theory.ef21_step(L, means.quadratic, alpha)
        rare = theory.rare_step(L, bound, share, alpha)
        weighted_rare = theory.weighted_rare_step(L, objective.shared_smoothness, alpha)
        new = theory.ef21_w_step(L, means.arithmetic, alpha)
        clones = theory.cloned(constants, theory.clones(constants))
        return {
            "problem": self.name,
            "n": objective.n,
            "d": objective.d,
            "L": L,
            "L_AM": means.arithmetic,
            "L_QM": means.quadratic,
            "L_var": means.variance,
            "weights": [float(np.quantile(weights, q)) for q in (0, 0.5, 1)],
            "c/n": share,
            "M": objective.shared_smoothness,
            "clones": len(clones),
            "old": old,
            "new": new,
            "ratio": new / old,
            "cloned_ratio": theory.ef21_step(L, theory.means(clones).quadratic, alpha) / old,
            "rare_ratio": rare / old,
            "weighted_rare_ratio": weighted_rare / old,
            # constants that nobody has checked; not run
            "stochastic": stochastic_step(L, means.arithmetic, alpha).step,
        }

    def methods(self) -> list[Method]:
        """The first is what the others are compared with; see :func:`baseline`."""
        objective, alpha = self.objective, self.alpha
        L, AM, QM = objective.smoothness, objective.mean_smoothness, objective.quadratic_smoothness
        old, new = theory.ef21_step(L, QM, alpha), theory.ef21_w_step(L, AM, alpha)
        if self.own_features:
            share = objective.sharing / objective.n
            holders = objective.clients.supports.numpy()
            bound = theory.rare_bound(objective.client_smoothness.numpy(), holders)
            M = objective.shared_smoothness
            return [
                Method("EF21", old),
                Method("EF21 new step", new),
                Method("EF21-RF", theory.rare_step(L, bound, share, alpha)),
                Method("EF21-RF weighted", theory.weighted_rare_step(L, M, alpha)),
            ]
        # Top-1 whose value is rounded to a power of two keeps a part 7/8 of what Top-1 keeps
        coarse = theory.ef21_w_step(L, AM, alpha * 7 / 8)
        methods = [
            Method("EF21", old),
            Method("EF21 new step", new),
            Method("EF21-W", new, weighted=True),
            Method("EF21 natural", theory.ef21_step(L, QM, alpha * 7 / 8), values="natural"),
            Method("EF21 natural new step", coarse, values="natural"),
            Method("EF21-W natural", coarse, values="natural", weighted=True),
        ]
        if self.sampled:
            absent_old, absent_new = (partial_step(L, m, alpha, PRESENT).step for m in (QM, AM))
            methods += [
                Method("EF21-PP", absent_old, present=PRESENT),
                Method("EF21-W-PP", absent_new, weighted=True, present=PRESENT),
                Method("EF21-SGD", old, batch=BATCH),
                Method("EF21-W-SGD", new, weighted=True, batch=BATCH),
                Method("EF21 grid", old, grid=GRID),
                Method("EF21 grid new step", new, grid=GRID),
                Method("EF21-W grid", new, weighted=True, grid=GRID),
            ]
        return methods


def baseline(method: Method) -> str:
    """The method with the old step that this one is compared with."""
    if method.values == "natural":
        return "EF21 natural"
    if method.present < 1:
        return "EF21-PP"
    if method.grid:
        return "EF21 grid"
    return "EF21-SGD" if method.batch < 1 else "EF21"


def problems(data: str | None, seed: int, divisor: int) -> list[Problem]:
    """All; rounds divided by ``divisor``."""
    found, loaded = [], {}
    for name, (clients, rounds, _, _) in SETS.items():
        loaded[name] = load_libsvm(name, data)
        objective = Logistic(*loaded[name], clients, LAM)
        sampled = name in ("w8a", "australian")
        found.append(Problem(name, objective, rounds // divisor, sampled=sampled))
    rare = Logistic(*loaded["w8a"], 1000, LAM, own_features=True)
    found.append(Problem("w8a, own features", rare, 2000 // divisor, own_features=True))
    for ratio in SPREADS:
        objective = least_squares(1000, 10, 10, 10.0, 100.0 * (ratio**2 - 1), seed=seed)
        name = f"synthetic {ratio}"
        found.append(Problem(name, objective, 3000 // divisor, sampled=ratio == 5))
    objective = least_squares(100, 500, 12, 20.0, 400.0 * 3, rare=0.05, lam=LAM, seed=seed)
    found.append(Problem("synthetic rare", objective, 10000 // divisor, own_features=True))
    # how the gain depends on the order of rows and on the scale of features
    for name in ("w8a", "australian"):
        clients = SETS[name][0]
        found.append(Problem(f"{name}, sorted", Logistic(*_sorted(*loaded[name]), clients, LAM)))
    matrix, targets = loaded["australian"]
    matrix = (matrix - matrix.amin(0)) / (matrix.amax(0) - matrix.amin(0))
    found.append(Problem("australian, scaled", Logistic(matrix, targets, 100, LAM)))
    return found


def _sorted(matrix: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in order of their norms, the largest first."""
    order = torch.argsort(matrix.norm(dim=1), descending=True, stable=True)
    return matrix[order], targets[order]
