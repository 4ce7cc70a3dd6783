"""The attacks by name, as on the command line: ``alie:z=1.5``."""

from __future__ import annotations

from collections.abc import Callable

from tacit.attacks.base import Attack
from tacit.attacks.copies import Mimic
from tacit.attacks.crude import Gaussian, Huge, Inf, NaN, Silence
from tacit.attacks.hidden import MinMax, MinSum
from tacit.attacks.means import Alie, Foe, LabelFlip, SignFlip
from tacit.attacks.states import Deflate, Inflate
from tacit.attacks.victims import Dissensus, Spectral
from tacit.calls import call, parse_call
from tacit.errors import UserError, unknown

ATTACKS: dict[str, Callable[..., Attack]] = {
    "alie": Alie,
    "deflate": Deflate,
    "dissensus": Dissensus,
    "foe": Foe,
    "gaussian": Gaussian,
    "huge": Huge,
    "inf": Inf,
    "inflate": Inflate,
    "label_flip": LabelFlip,
    "mimic": Mimic,
    "min_max": MinMax,
    "min_sum": MinSum,
    "nan": NaN,
    "sign_flip": SignFlip,
    "silence": Silence,
    "spectral": Spectral,
}


def attack(text: str) -> Attack:
    """A new attack from its name and options. Raises UserError for an unknown name or option, and
    for a value that is refused."""
    name, options = parse_call(text)
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    return call(f"attack {name}", ATTACKS[name], options)


def as_attack(what: str | Attack | None) -> Attack | None:
    """An attack, from its text or as it is. Raises UserError for anything else."""
    if isinstance(what, str):
        return attack(what)
    if what is not None and not isinstance(what, Attack):
        raise UserError(f"an attack is written as alie(z=1.5), not {what!r}")
    return what
