"""Which workers lie, and where their lies enter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tacit.aggregators import Aggregator
from tacit.attacks.base import Attack, Sight
from tacit.attacks.registry import as_attack
from tacit.errors import UserError
from tacit.fleet import Fleet, Kind
from tacit.setting import Setting


class Liars:
    """The last ``count`` workers of a simulation are Byzantine: they hold no data, do not train,
    know all that the honest are about to send, and say what ``attack`` makes of it.

    ``attack``: on models and gradients; ``states``: on the states that a trigger asks for. Where
    there is none, they say what the honest say on average, so that nothing gives them away.
    Texts are names with options, as on the command line: ``alie:z=1.5``.

    They enter where messages leave (``Fleet.said``), so every method can be attacked, in one
    process or in many; the ledger charges them like all others. What they overhear is not charged.
    """

    def __init__(
        self,
        count: int,
        attack: str | Attack | None = None,
        states: str | Attack | None = None,
    ) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"the number of liars is a whole number, at least 1, not {count!r}")
        self.count = count
        self.attack, self.states = as_attack(attack), as_attack(states)
        if self.states is not None and self.states.per_victim:
            raise UserError("an attack on the trigger tells everybody the same; take another one")
        if self.states is not None and self.states.needs_poisoned:
            raise UserError("a trigger's states have no labels to flip; take another attack on it")
        self.honest = torch.empty(0, dtype=torch.bool)
        #: The hosted workers' gradients for wrong labels ``(L, d)`` and the rate of their
        #: optimizer, for attacks that ask for them (``needs_poisoned``).
        self.flipped: Tensor | None = None
        self.rate = 0.0

    @property
    def silent(self) -> bool:
        """See ``Voice``."""
        return self.attack is not None and self.attack.silent

    @property
    def needs_flipped(self) -> bool:
        """Whether :attr:`flipped` is wanted at every step."""
        return self.attack is not None and self.attack.needs_poisoned

    def check(self, workers: int) -> None:
        """Raise UserError where less than two of so many workers are honest."""
        if workers - self.count < 2:
            raise UserError(f"{self.count} of {workers} workers lie; at least 2 must be honest")

    def start(
        self,
        setting: Setting,
        rules: Mapping[Kind, Aggregator],
        peers: bool,
        partial: bool = False,
    ) -> None:
        """Begin a run. ``rules``: what receivers do with what they get. ``peers``: each honest
        worker does so by itself. ``partial``: some workers rest. Raises UserError where less than
        two workers are honest, for an attack that needs another method, and where some rest: lies
        are made from what all honest workers say."""
        self.check(setting.workers)
        if partial:
            raise UserError(
                "liars need a method in which all workers take part; leave out its fraction, or "
                "the liars"
            )
        if self.attack is not None and self.attack.per_victim and not peers:
            raise UserError(
                f"{type(self.attack).__name__} tells every honest worker something else, which "
                "needs a method without a server, such as monna; take another attack"
            )
        self.honest = torch.arange(setting.workers) < setting.workers - self.count
        self._seed, self._rules, self._peers, self._d = setting.seed, rules, peers, setting.d
        for attack in (self.attack, self.states):
            if attack is not None:
                attack.start(setting)

    def say(self, fleet: Fleet, rows: Tensor, kind: Kind) -> Tensor:
        """See ``Voice``. The attack runs in every process, on the same vectors."""
        every = fleet.overhear(rows)
        attack = self._attack(kind)
        honest = every[: len(every) - self.count]
        if attack is None or attack.per_victim:
            word = honest.mean(dim=0)
        else:
            poisoned = self._poisoned(fleet, honest, kind) if attack.needs_poisoned else None
            word = attack(self._sight(honest, kind, fleet.ledger.step, poisoned))
        mine = ~self.honest[fleet.hosted.start : fleet.hosted.stop].to(rows.device)
        if not mine.any():
            return rows
        said = rows.clone()
        said[mine] = word
        return said

    def tell(self, every: Tensor, kind: Kind, step: int) -> Tensor | None:
        """See ``Voice``."""
        attack = self._attack(kind)
        if attack is None or not attack.per_victim:
            return None
        return attack(self._sight(every[: len(every) - self.count], kind, step, None))

    def _attack(self, kind: Kind) -> Attack | None:
        if kind == "monitoring":
            return self.states
        return self.attack if kind in ("model", "gradient") else None

    def _sight(self, honest: Tensor, kind: Kind, step: int, poisoned: Tensor | None) -> Sight:
        rule = self._rules.get(kind)
        return Sight(honest, self.count, kind, step, self._seed, rule, self._peers, poisoned)

    def _poisoned(self, fleet: Fleet, honest: Tensor, kind: Kind) -> Tensor:
        """What the honest would send had their last gradients been those of wrong labels: these,
        or models that go once more, by plain SGD (as in MoNNA's published code)."""
        assert self.flipped is not None, "the simulation gives these"
        gradients = fleet.overhear(self.flipped)[: len(honest)]
        if kind == "gradient":
            if gradients.shape != honest.shape:
                raise UserError(
                    "label_flip needs gradients that travel whole, and this compressor picks the "
                    "same entries from all; take another attack or compressor"
                )
            return gradients
        poisoned = honest.clone()
        if honest.shape[1] >= self._d:  # buffers may travel behind the parameters, or alone
            poisoned[:, : self._d] -= self.rate * gradients
        return poisoned

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """What the attacks remember."""
        named = {"attack": self.attack, "states": self.states}
        return {name: attack.state_dict() for name, attack in named.items() if attack is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.attack is not None and "attack" in state:
            self.attack.load_state_dict(state["attack"])
        if self.states is not None and "states" in state:
            self.states.load_state_dict(state["states"])
