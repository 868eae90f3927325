"""A client transaction: when to send a request again, and when to give up (RFC 8489 §6.2)."""

from __future__ import annotations

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport


class Schedule(Struct, frozen=True):
    """RFC 8489 §6.2.1: `rc` sends, the gap doubling from `rto` seconds; failure `rm` × `rto` after the last.

    The defaults send at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s and give up at 39.5 s.
    """

    rto: float = 0.5
    rc: int = 7
    rm: float = 16

    def send_time(self, count: int) -> float:
        """Seconds from the first send to send number `count`, counted from 0."""
        return self.rto * ((1 << count) - 1)

    @property
    def patience(self) -> float:
        """Seconds from the first send to giving up."""
        return self.send_time(self.rc - 1) + self.rto * self.rm


UDP = Schedule()
# Over a reliable transport a request is sent once, and waits as long as one over UDP (RFC 8489 §6.2.2).
RELIABLE = Schedule(rto=39.5, rc=1, rm=1)


class Transaction:
    """One request on its way: its bytes, where it goes, and the times of its sends.

    `due` gives what is to be sent now. A response belongs to it if `matches` says so: it came from exactly
    where the request went, to where it left (RFC 8489 §6.3.3; ICE asks for it in RFC 8445 §7.2.5.2.1).
    """

    __slots__ = ("_end", "_next_send", "destination", "local", "request", "schedule", "sends", "started",
                 "transaction_id", "transport")  # fmt: skip

    def __init__(
        self,
        transaction_id: bytes,
        request: bytes,
        destination: Address,
        now: float,
        *,
        schedule: Schedule = UDP,
        local: Address | None = None,
        transport: Transport = Transport.UDP,
    ) -> None:
        self.transaction_id = transaction_id
        self.request = request
        self.destination = destination
        self.local = local
        self.transport = transport
        self.schedule = schedule
        self.started = now
        self.sends = 0
        self._next_send: float | None = now
        self._end = now + schedule.patience

    def due(self, now: float) -> Transmit | None:
        """The request, when it is time to send it; once a call, whatever sends were missed."""
        if self._next_send is None or now < self._next_send:
            return None
        while self._next_send is not None and self._next_send <= now:
            self.sends += 1
            later = self.sends < self.schedule.rc
            self._next_send = self.started + self.schedule.send_time(self.sends) if later else None
        return Transmit(self.request, self.destination, self.local, transport=self.transport)

    def next_timeout(self) -> float:
        """When to call `due` again, or, with no send left, when the transaction has failed."""
        return self._end if self._next_send is None else min(self._next_send, self._end)

    def is_expired(self, now: float) -> bool:
        """Whether nobody answered in time."""
        return now >= self._end

    def stop_retransmitting(self) -> None:
        """Send no more, but keep waiting for an answer until the end (RFC 8445 §7.3.1.4)."""
        self._next_send = None

    def postpone(self, seconds: float) -> None:
        """Let everything come later by that: the machine slept, and time stood still for this transaction."""
        self.started += seconds
        self._end += seconds
        if self._next_send is not None:
            self._next_send += seconds

    def matches(self, transaction_id: bytes, source: Address, local: Address | None = None) -> bool:
        """Whether a response with that id, from `source` to `local`, answers this request."""
        return transaction_id == self.transaction_id and source == self.destination and local == self.local

    def round_trip(self, now: float) -> float | None:
        """Seconds from request to response, or ``None`` when it is unclear which send was answered."""
        return now - self.started if self.sends == 1 else None
