"""The compressors by name, as on the command line: ``topk:density=0.01,values=int8``."""

from __future__ import annotations

from collections.abc import Callable

from tacit.calls import call, parse_call
from tacit.compressors.base import Compressor
from tacit.compressors.coded import Identity, Sign, Uniform
from tacit.compressors.lowrank import LowRank
from tacit.compressors.natural import Natural
from tacit.compressors.qsgd import QSGD
from tacit.compressors.randomk import RandomK
from tacit.compressors.topk import BlockTopK, SampledTopK, Threshold, TopK
from tacit.errors import UserError, unknown

COMPRESSORS: dict[str, Callable[..., Compressor]] = {
    "block_topk": BlockTopK,
    "identity": Identity,
    "lowrank": LowRank,
    "natural": Natural,
    "qsgd": QSGD,
    "randomk": RandomK,
    "sampled_topk": SampledTopK,
    "sign": Sign,
    "threshold": Threshold,
    "topk": TopK,
    "uniform": Uniform,
}


def compressor(text: str) -> Compressor:
    """A new compressor from its name and options. Raises UserError for an unknown name or option,
    and for a value that is refused."""
    name, options = parse_call(text)
    if name not in COMPRESSORS:
        raise unknown("compressor", name, COMPRESSORS)
    return call(f"compressor {name}", COMPRESSORS[name], options)


def as_compressor(what: str | Compressor | None) -> Compressor | None:
    """A compressor, from its text or as it is. Raises UserError for anything else."""
    if isinstance(what, str):
        return compressor(what)
    if what is not None and not isinstance(what, Compressor):
        raise UserError(f"a compressor is written as topk(density=0.01), not {what!r}")
    return what
