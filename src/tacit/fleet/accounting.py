"""The byte accounting of each paper, by name, for reproductions.

Tacit's own figures come from the ledger. These functions charge a run the way its paper did.
"""

from __future__ import annotations

from typing import Literal


def fda_paper(
    method: Literal["fda", "fedopt", "synchronous"],
    *,
    workers: int,
    parameters: int,
    synchronisations: int,
    steps: int,
    state_bytes: int = 0,
) -> int:
    """Bytes of all workers together as Theologitis et al. (EDBT 2025) count them.

    Model traffic is ``rounds * 4 d * K * 2`` (upload and download), where ``rounds`` as logged is
    one more than the completed synchronisations for FDA and FedOpt and exactly ``steps`` for
    Synchronous. Monitoring is ``steps * K * state_bytes`` (upload only), for FDA alone.
    Evaluation, optimizer state and batch-norm statistics are not charged.
    """
    rounds = steps if method == "synchronous" else synchronisations + 1
    monitoring = steps * workers * state_bytes if method == "fda" else 0
    return rounds * 4 * parameters * workers * 2 + monitoring
