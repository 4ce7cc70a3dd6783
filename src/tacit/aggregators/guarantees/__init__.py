"""How robust is a rule? The worst inputs found, beside what papers are said to prove.

:func:`kappa` for rules that combine everybody's vectors, :func:`reduction` for a worker's rule
among peers. What they find are lower bounds: inputs may exist that are worse.
"""

from tacit.aggregators.guarantees.kappa import Kappa, kappa, quoted
from tacit.aggregators.guarantees.reduction import Reduction, reduction

__all__ = ["Kappa", "Reduction", "kappa", "quoted", "reduction"]
