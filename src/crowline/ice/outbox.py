"""What an agent wants to send and to say, and the bounds on what leaves unasked for."""

from __future__ import annotations

from collections import Counter, deque

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.budget import KEPT_FOR_HEARD, Budget
from crowline.ice.events import IceEvent, Noticed, Oddity, SendRefused

MAX_ADDRESSES = 512  # remote addresses whose datagrams are counted: more than all candidates together
MAX_REFUSED = 128  # ways on which this machine's refusals are told: more than all pairs together


class Outbox:
    """Datagrams and events until the driver takes them, and the counts of what was dropped, by reason."""

    def __init__(self) -> None:
        self.transmits: deque[Transmit] = deque()
        self.events: deque[IceEvent] = deque()
        self.counters: Counter[str] = Counter()
        self._budget = Budget(MAX_ADDRESSES, KEPT_FOR_HEARD)
        self._refusals = Budget(MAX_ADDRESSES)
        self._noticed: set[Oddity] = set()
        self._refused: set[SendRefused] = set()

    def ask(self, transmit: Transmit) -> bool:
        """Send a request or a keepalive, within what its destination may get before it has answered.

        False when it is held back. Whoever has accepted a TCP connection has answered: what may be sent to
        others was spent on dialling.
        """
        may_leave = transmit.transport.is_stream or self._budget.spend(transmit.destination)
        if may_leave:
            self.transmits.append(transmit)
        else:
            self.counters["held back"] += 1
            self.notice(Oddity.SILENT_ADDRESS)
        return may_leave

    def answer(self, transmit: Transmit) -> None:
        """Send an answer to somebody who knows the password."""
        self.transmits.append(transmit)

    def refuse(self, transmit: Transmit) -> None:
        """Send an unsigned refusal: it goes to whoever the packet says it came from, a few times at most."""
        if self._refusals.spend(transmit.destination):
            self.transmits.append(transmit)

    def say(self, event: IceEvent) -> None:
        self.events.append(event)

    def notice(self, oddity: Oddity) -> None:
        """Say it, the first time."""
        if oddity not in self._noticed:
            self._noticed.add(oddity)
            self.say(Noticed(oddity))

    def refused(self, refusal: SendRefused) -> None:
        """This machine did not let a datagram out: say so, the first time on that way."""
        self.counters["refused by this machine"] += 1
        if refusal not in self._refused and len(self._refused) < MAX_REFUSED:
            self._refused.add(refusal)
            self.say(refusal)

    def heard(self, address: Address) -> None:
        """An authenticated check came from `address`: it may be asked with what was kept for that."""
        self._budget.heard(address)

    def proven(self, address: Address) -> None:
        """An authenticated answer came from `address`: no limit any more."""
        self._budget.answered(address)

    def renew(self) -> None:
        """This side begins anew: every address may be asked as if for the first time."""
        self._budget = Budget(MAX_ADDRESSES, KEPT_FOR_HEARD)

    def forget_proven(self) -> None:
        """The other side begins anew: what it has proven makes room, what it has used up does not."""
        self._budget.forget_answered()

    def clear(self) -> None:
        self.transmits.clear()
        self.events.clear()
