"""A fleet of which no worker waits for all others, each in a process of its own."""

from __future__ import annotations

from torch import Tensor

from tacit.fleet.attended import AttendedFleet
from tacit.fleet.ledger import Kind


class PeerFleet(AttendedFleet):
    """One worker a process. Nobody is asked who takes part: who is away, or gone, is silent."""

    def roll_call(self, kind: Kind = "control") -> None:
        """Nobody waits for an answer."""

    def heard(self) -> Tensor:
        """What this worker itself has said :attr:`aside`."""
        assert self.aside is not None
        return self.aside

    def hang_up(self, linger: float = 30.0) -> None:
        """End all connections, as ``Mailbox.close`` does. Those who go on hear of it at once.
        Idempotent."""
        for mailboxes in self._mailboxes.values():
            for mailbox in mailboxes.values():
                mailbox.close(linger)
