"""Checks on their way: retransmitted, superseded, answered or given up."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.base.machine import Transmit
from crowline.ice.pair import CandidatePair, Way
from crowline.stun.transaction import Transaction

MAX_OUTSTANDING = 100  # bounds memory and traffic, RFC 8445 §19.5.1


@dataclass(slots=True, eq=False)
class Check:
    """One request, with what it claimed: roles and wishes may have changed when its answer comes."""

    pair: CandidatePair
    transaction: Transaction
    priority: int
    controlling: bool
    use_candidate: bool
    # An ordinary check, but one that nominates too: with this rank.
    rank: int = 0
    superseded: bool = False
    # How many of its first sends have not left: refused by this machine, or held back.
    unsent: int = 0

    @property
    def never_left(self) -> bool:
        """Whether no send of it has left this machine."""
        return self.unsent == self.transaction.sends


class OutstandingChecks:
    """Each pair has at most one check that is retransmitted; superseded ones wait for their answers."""

    def __init__(self) -> None:
        self._checks: dict[bytes, Check] = {}

    def __len__(self) -> int:
        return len(self._checks)

    def has_room(self) -> bool:
        return len(self._checks) < MAX_OUTSTANDING or self._oldest_superseded() is not None

    def add(self, check: Check) -> None:
        """Add a check, in place of the oldest superseded one when there is no room."""
        if len(self._checks) >= MAX_OUTSTANDING:
            oldest = self._oldest_superseded()
            if oldest is not None:
                self.remove(oldest)
        self._checks[check.transaction.transaction_id] = check

    def find(self, transaction_id: bytes, way: Way) -> Check | None:
        """The check that a response belongs to, by the rule of symmetry (RFC 8445 §7.2.5.2.1)."""
        check = self._checks.get(transaction_id)
        return None if check is None or check.pair.way != way else check

    def asked_elsewhere(self, transaction_id: bytes) -> bool:
        """Whether there is a check with this id, whatever its addresses."""
        return transaction_id in self._checks

    def refused(self, way: Way) -> None:
        """The latest send of the check of that pair has not left this machine."""
        for check in self._checks.values():
            if check.pair.way == way and check.unsent == check.transaction.sends - 1:
                check.unsent += 1

    def remove(self, check: Check) -> None:
        self._checks.pop(check.transaction.transaction_id, None)

    def supersede(self, pair: CandidatePair) -> None:
        """Stop sending for this pair; answers still count (RFC 8445 §7.3.1.4)."""
        for check in self._checks.values():
            if check.pair is pair and not check.superseded:
                check.superseded = True
                check.transaction.stop_retransmitting()

    def forget(self, pair: CandidatePair) -> None:
        """Answers to checks of this pair no longer matter."""
        for check in [check for check in self._checks.values() if check.pair is pair]:
            self.remove(check)

    def void_nominations(self) -> None:
        """Ordinary checks on their way nominate no more: roles have changed."""
        for check in self._checks.values():
            check.rank = 0

    def clear(self) -> None:
        """No answer matters any more."""
        self._checks.clear()

    def cease(self) -> None:
        """Stop every retransmission; answers still count (RFC 8445 §8.1.2).

        A nomination that was passed over goes on: if the other side has heard it, it counts.
        """
        for check in self._checks.values():
            if not (check.use_candidate and check.pair.nominating):
                check.transaction.stop_retransmitting()

    def postpone(self, seconds: float) -> None:
        """So much time has passed that does not count."""
        for check in self._checks.values():
            check.transaction.postpone(seconds)

    def next_timeout(self) -> float | None:
        if not self._checks:
            return None
        return min([check.transaction.next_timeout() for check in self._checks.values()])

    def due(self, now: float) -> list[Transmit]:
        """What is to be sent again now."""
        transmits = [check.transaction.due(now) for check in self._checks.values()]
        return [transmit for transmit in transmits if transmit is not None]

    def expired(self, now: float) -> list[Check]:
        """Checks that nobody answered in time, taken off the list."""
        over = [check for check in self._checks.values() if check.transaction.is_expired(now)]
        for check in over:
            self.remove(check)
        return over

    def _oldest_superseded(self) -> Check | None:
        return next((check for check in self._checks.values() if check.superseded), None)
