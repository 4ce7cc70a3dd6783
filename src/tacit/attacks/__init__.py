"""What Byzantine workers send."""

from tacit.attacks.base import Attack, Sight
from tacit.attacks.copies import Mimic
from tacit.attacks.crude import Gaussian, Huge, Inf, NaN, Silence
from tacit.attacks.hidden import MinMax, MinSum
from tacit.attacks.liars import Liars
from tacit.attacks.means import Alie, Foe, LabelFlip, SignFlip
from tacit.attacks.registry import ATTACKS, as_attack, attack
from tacit.attacks.search import maximise
from tacit.attacks.states import Deflate, Inflate
from tacit.attacks.victims import Dissensus, Spectral

__all__ = [
    "ATTACKS",
    "Alie",
    "Attack",
    "Deflate",
    "Dissensus",
    "Foe",
    "Gaussian",
    "Huge",
    "Inf",
    "Inflate",
    "LabelFlip",
    "Liars",
    "Mimic",
    "MinMax",
    "MinSum",
    "NaN",
    "Sight",
    "SignFlip",
    "Silence",
    "Spectral",
    "as_attack",
    "attack",
    "maximise",
]
