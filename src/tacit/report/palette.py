"""Colours, dashes and marks that stay apart for colour-blind readers, on white and on black."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# After Paul Tol, "Colour Schemes" (SRON technical note, 2021), scheme "bright", made a little
# lighter or darker where that helps on black or white; grey is kept for the runs that others are
# held against: the synchronous one, and on streams the two without any communication.
_RUNS = ("#3F7FC1", "#EE6677", "#2B9348", "#B0468C", "#CCA300", "#2BA6C6")
_REFERENCE = "#7C828C"
_REFERENCES = ("synchronous", "serial", "no_sync")
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")

KINDS = {"model": "#7D8CA3", "gradient": "#B4BECC", "monitoring": "#EE7733", "control": "#009988"}

#: Marks on a coordinator's time line; a full synchronisation has the colour of its run.
PARTIAL = "#9AA5B4"
VIOLATION = "#EE7733"


class Style(NamedTuple):
    """How one run looks, in every figure."""

    colour: str
    mark: str
    dash: str


def styles(recipes: Sequence[str]) -> list[Style]:
    """One style for each run; after six, colours come again with another dash and mark."""
    drawn: list[Style] = []
    counts = {True: 0, False: 0}
    for recipe in recipes:
        grey = recipe in _REFERENCES
        number = counts[grey]
        counts[grey] += 1
        turn = number if grey else number // len(_RUNS)
        colour = _REFERENCE if grey else _RUNS[number % len(_RUNS)]
        # there are as many marks as colours: without a shift both would come again together
        mark = _MARKS[(number if grey else number + turn) % len(_MARKS)]
        drawn.append(Style(colour, mark, _DASHES[turn % len(_DASHES)]))
    return drawn
