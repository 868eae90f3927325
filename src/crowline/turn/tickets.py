"""Mobility tickets (RFC 8016): random names of allocations that their clients may move.

A ticket is worth one move. The one before is kept for a while beside it, because its answer may be lost; it
then gets the same answer from the same place, and nothing anywhere else. One is enough: whoever shows the
next ticket has had that answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crowline.turn.alarms import Alarms
from crowline.turn.allocation import Allocation
from crowline.turn.five_tuple import FiveTuple

TICKET_SIZE = 16  # bytes; nobody guesses 128 bits
OLD_TICKET_LIFETIME = 30.0  # seconds, RFC 8016 §3.2.2


@dataclass(frozen=True, slots=True)
class UsedTicket:
    """A ticket that moved an allocation to `five_tuple`."""

    value: bytes
    five_tuple: FiveTuple
    allocation: Allocation


class Tickets:
    """Each allocation has one ticket that moves it, and at most one that did."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.alarms = Alarms[bytes]()
        self._entropy = entropy
        self._by_value: dict[bytes, Allocation] = {}
        self._values: dict[Allocation, bytes] = {}
        self._used: dict[bytes, UsedTicket] = {}
        self._last_used: dict[Allocation, bytes] = {}

    def __len__(self) -> int:
        """Tickets in memory."""
        return len(self._by_value) + len(self._used)

    def issue(self, allocation: Allocation) -> bytes:
        """A ticket for an allocation that has none."""
        value = self._entropy(TICKET_SIZE)
        self._by_value[value] = allocation
        self._values[allocation] = value
        return value

    def of(self, allocation: Allocation) -> bytes | None:
        """The ticket that moves it, if it has one."""
        return self._values.get(allocation)

    def find(self, value: bytes) -> Allocation | None:
        """The allocation that the ticket moves, or moved a moment ago."""
        used = self._used.get(value)
        return used.allocation if used is not None else self._by_value.get(value)

    def was_used_by(self, value: bytes, five_tuple: FiveTuple) -> bool:
        """Whether that old ticket moved its allocation to that 5-tuple."""
        used = self._used.get(value)
        return used is not None and used.five_tuple == five_tuple

    def is_used(self, value: bytes) -> bool:
        return value in self._used

    def use(self, value: bytes, five_tuple: FiveTuple, now: float) -> bytes:
        """Spend the ticket of a live allocation; the next one."""
        allocation = self._by_value.pop(value)
        self._forget_used(allocation)
        self._used[value] = UsedTicket(value, five_tuple, allocation)
        self._last_used[allocation] = value
        self.alarms.set(value, now + OLD_TICKET_LIFETIME)
        return self.issue(allocation)

    def forget(self, allocation: Allocation) -> None:
        """Nothing leads to an allocation that is over."""
        value = self._values.pop(allocation, None)
        if value is not None:
            del self._by_value[value]
        self._forget_used(allocation)

    def handle_timeout(self, now: float) -> None:
        for value in self.alarms.take_due(now):
            self._last_used.pop(self._used.pop(value).allocation)

    def _forget_used(self, allocation: Allocation) -> None:
        value = self._last_used.pop(allocation, None)
        if value is not None:
            del self._used[value]
            self.alarms.cancel(value)
