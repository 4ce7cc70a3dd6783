"""Which messages belong together."""

from __future__ import annotations


class Correspondence:
    """What workers write to each other in one run: see ``Fleet.gather_first``.

    Whoever begins a run, or begins it again from a checkpoint, takes a new one, as all workers do.
    It hears nothing of what was sent in another, whose steps mean other models. The connections of
    one that nobody refers to any more end.
    """
