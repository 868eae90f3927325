"""The server's side of all meetings: mailboxes with two places, and what passes between them.

A hub has many connections, so each verb names one; the driver numbers them. It relays what the sides say
without being able to read it, knows by itself who said it, and answers alike for codes that are unknown,
expired and used.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.rendezvous import wire
from crowline.rendezvous.carriage import Carriage
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.mailbox import Mailbox, Side
from crowline.rendezvous.numbers import Numbers
from crowline.rendezvous.rate import Bucket, SourceRate, source_of
from crowline.rendezvous.sent import SentLog
from crowline.rendezvous.store import MemoryStore, Store

NORMAL = 1000
POLICY_VIOLATION = 1008
"""Close codes of RFC 6455 §7.4.1."""

_TOKEN_BYTES = 16

ENVELOPE = 128
"""Bytes that a signal costs beside its body, on its way and while it is kept: empty ones are not free."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one connection, or, with `close`, the order to close it with that code."""

    connection: int
    data: Buffer = b""
    is_binary: bool = False
    close: int | None = None


@dataclass(slots=True)
class _Connection:
    host: str
    source: str
    is_exempt: bool
    box: Mailbox | None = None
    side: Side | None = None


class Hub:
    """The verbs of a machine, with connections in place of source addresses. `counters`: what was dropped.

    `grant` makes the TURN credentials of a user name, once both sides of a meeting are there;
    `has_relay_client(user, host)` says whether that user has a relayed address, for a client at that IP.
    """

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        limits: HubLimits | None = None,
        store: Store | None = None,
        grant: Callable[[str], wire.TurnGrant | None] | None = None,
        has_relay_client: Callable[[str, str], bool] = lambda user, host: False,
        stun: tuple[wire.ServerAddress, ...] = (),
        motd: str = "",
        numbers: Numbers | None = None,
    ) -> None:
        self.limits = limits or HubLimits()
        self.counters: Counter[str] = Counter()
        self._entropy = entropy
        self._store: Store = MemoryStore() if store is None else store
        self._grant = grant or (lambda user: None)
        self._has_relay_client = has_relay_client
        self._carriage = Carriage(self.limits, self._tell, self._at)
        self._welcome = wire.encode(
            wire.Welcome(
                v=wire.VERSION,
                stun=stun,
                budget=self.limits.budget,
                credit=self._carriage.credit,
                rate=self._carriage.rate,
                motd=motd,
                vouches=True,
            )
        )
        self._numbers = numbers or Numbers(entropy, self.limits.number_rest)
        self._claims = SourceRate(self.limits.claims_per_minute)
        self._allocations = SourceRate(self.limits.allocations_per_minute)
        self._connections: dict[int, _Connection] = {}
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._timer_count = 0
        self._deliveries: deque[Delivery] = deque()

    def __len__(self) -> int:
        """Meetings that exist."""
        return len(self._store)

    @property
    def is_in_use(self) -> bool:
        """Whether anybody who is connected is in a meeting of two."""
        boxes = (known.box for known in self._connections.values())
        return any(box is not None and box.join is not None for box in boxes)

    def permits(self, user: str, peer: Address) -> bool:
        """Whether a TURN user (with or without its expiry) may send to `peer`: a side was seen at that IP."""
        box = self._box_of(user)
        return box is not None and box.has_seen(peer.host)

    def knows(self, user: str) -> bool:
        """Whether the meeting of a TURN user still goes on."""
        return self._box_of(user) is not None

    def connect(self, connection: int, source: Address, now: float) -> None:
        """A WebSocket is open."""
        is_loopback = ipaddress.ip_address(source.host).is_loopback
        self._connections[connection] = _Connection(
            source.host, source_of(source.host), is_loopback and self.limits.exempt_loopback
        )
        self._deliver(connection, self._welcome)
        self._at(now + self.limits.first_message, partial(self._check_connection, connection))

    def disconnect(self, connection: int, now: float, *, is_clean: bool = False) -> None:
        """A WebSocket is gone. One that was closed properly (`is_clean`) does not come back."""
        known = self._connections.pop(connection, None)
        if known is None or known.box is None or known.side is None:
            return
        box, side = known.box, known.side
        if side.connection != connection:
            return
        side.connection = None
        if is_clean:
            self._leave(box, side, now)
            return
        side.return_by = now + self.limits.grace
        self._at(side.return_by, partial(self._check_side, side.token))
        self._tell(box.other(side), wire.Left(final=False))

    def receive(self, connection: int, data: Buffer, now: float) -> None:
        """One text message."""
        known = self._connections.get(connection)
        if known is None:
            return
        try:
            message = wire.decode_client(data)
        except wire.MalformedWire:
            self.counters["malformed"] += 1
            self._refuse(connection, wire.Error("malformed"), now)
            return
        if known.box is None or known.side is None:
            self._begin(connection, known, message, now)
        else:
            self._go_on(known.box, known.side, message, now)

    def receive_binary(self, connection: int, data: Buffer, now: float) -> None:
        """One frame of link zero: handed to the other side, as far as the sender's credit goes."""
        known = self._connections.get(connection)
        if known is None or known.box is None or known.side is None:
            self.counters["binary too early"] += 1
            return
        box, other = known.box, known.box.other(known.side)
        if not 0 < len(data) <= wire.MAX_MESSAGE or other is None or other.connection is None:
            self.counters["binary dropped"] += 1
            return
        if not self._carriage.spend(box, known.side, len(data), now):
            self.counters["over budget"] += 1
            return
        box.expires = now + self.limits.idle
        self._deliveries.append(Delivery(other.connection, data, is_binary=True))

    def handle_timeout(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, check = heapq.heappop(self._timers)
            check(now)

    def next_timeout(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def next_transmit(self) -> Delivery | None:
        return self._deliveries.popleft() if self._deliveries else None

    def _box_of(self, user: str) -> Mailbox | None:
        return self._store.by_user(user.rpartition(":")[2])

    def _begin(self, connection: int, known: _Connection, message: wire.ClientMessage, now: float) -> None:
        """The first message of a connection."""
        if isinstance(message, wire.Allocate | wire.Claim | wire.Resume) and message.v != wire.VERSION:
            self._refuse(connection, wire.Error("version"), now)
        elif isinstance(message, wire.Allocate):
            self._allocate(connection, known, message, now)
        elif isinstance(message, wire.Claim):
            self._claim(connection, known, message, now)
        elif isinstance(message, wire.Resume):
            self._resume(connection, known, message, now)
        else:
            self.counters["out of turn"] += 1
            self._refuse(connection, wire.Error("malformed"), now)

    def _allocate(self, connection: int, known: _Connection, message: wire.Allocate, now: float) -> None:
        wait = 0 if known.is_exempt else self._allocations.refuse(known.source, now)
        if wait:
            self._refuse(connection, wire.Error("slow-down", wait), now)
            return
        hosted = 0 if known.is_exempt else self._store.count_source(known.source)
        is_full = len(self._store) >= self.limits.mailboxes or hosted >= self.limits.mailboxes_per_source
        number = self._numbers.draw(lambda drawn: self._store.by_number(drawn) is not None, now)
        if number is None or is_full:
            self._refuse(connection, wire.Error("full"), now)
            return
        side = self._new_side(connection, is_hidden=message.hidden)
        box = Mailbox(
            number=number,
            source=known.source,
            element=message.element,
            expires=now + self.limits.code_lifetime,
            host=side,
            text=Bucket(self.limits.text_bytes, self.limits.text_rate, now),
        )
        side.see(known.host)
        self._store.add(box)
        known.box, known.side = box, side
        self._at(box.expires, partial(self._check_box, box.host.token))
        self._tell(side, wire.Allocated(number, side.token, int(self.limits.code_lifetime)))

    def _claim(self, connection: int, known: _Connection, message: wire.Claim, now: float) -> None:
        wait = 0 if known.is_exempt else self._claims.refuse(known.source, now)
        if wait:
            self._refuse(connection, wire.Error("slow-down", wait), now)
            return
        box = self._store.by_number(message.number)
        side = self._new_side(connection, is_hidden=message.hidden)
        if box is None or box.host.gone or not self._store.join(box, side):
            self.counters["no such code"] += 1
            self._refuse(connection, wire.Error("no-such-code"), now)
            return
        known.box, known.side = box, side
        self._carriage.open(box)
        side.see(known.host)
        box.expires = now + self.limits.idle
        self._at(box.expires, partial(self._check_box, box.host.token))
        self._tell(side, wire.Claimed(box.element, side.token, self._grant(side.user)))
        self._tell_logged(box.host, wire.Joined(message.element, self._grant(box.host.user)))

    def _resume(self, connection: int, known: _Connection, message: wire.Resume, now: float) -> None:
        found = self._store.by_token(message.token)
        if found is None or found[1].gone:
            self._refuse(connection, wire.Error("lost"), now)
            return
        box, side = found
        missed = side.log.since(message.received)
        if missed is None:
            self._refuse(connection, wire.Error("lost"), now)
            return
        if side.connection is not None:
            self._drop(side.connection)
        side.connection, side.return_by = connection, None
        known.box, known.side = box, side
        side.see(known.host)
        self._tell(side, wire.Resumed(side.received))
        for data in missed:
            self._deliver(connection, data)
        other = box.other(side)
        self._tell(other, wire.Back())
        if other is not None and other.connection is None:
            self._tell(side, wire.Left(final=other.gone))

    def _go_on(self, box: Mailbox, side: Side, message: wire.ClientMessage, now: float) -> None:
        if box.join is not None:
            box.expires = now + self.limits.idle
        if isinstance(message, wire.Relay):
            self._relay(box, side, message, now)
        elif isinstance(message, wire.Ping):
            self._tell(side, wire.Pong())
        elif isinstance(message, wire.Vouch):
            self._vouch(box, side, message.host)
        elif isinstance(message, wire.Leave):
            self._leave(box, side, now)
        elif isinstance(message, wire.Burn):
            self.counters["burned"] += 1
            self._end(box, "burned", now)
        else:
            self.counters["out of turn"] += 1

    def _relay(self, box: Mailbox, side: Side, message: wire.Relay, now: float) -> None:
        other = box.other(side)
        if other is None:
            self.counters["relay too early"] += 1
            return
        side.received += 1
        if not box.text.take(len(message.body) + ENVELOPE, now):
            self.counters["flood"] += 1
            self._end(box, "flood", now)
        elif not other.gone:
            self._tell_logged(other, wire.Relayed(message.kind, message.body))

    def _vouch(self, box: Mailbox, side: Side, host: str) -> None:
        """Say so if the other side was seen at `host`: by its WebSocket, or by its allocation, which may be
        of the other IP family or from another address of its translator. The questions are few, lest somebody
        search by them, and about a side that hides there is no answer, lest a suspicion prove right.
        """
        other = box.other(side)
        side.vouches += 1
        if other is None or other.is_hidden or side.vouches > self.limits.vouches:
            self.counters["vouch refused"] += 1
        elif host in other.hosts or self._has_relay_client(other.user, host):
            self._tell(side, wire.Vouched(host))

    def _leave(self, box: Mailbox, side: Side, now: float) -> None:
        """`side` does not come back; the last one closes the mailbox, as does a host to whom nobody came."""
        side.gone, side.return_by = True, None
        if side.connection is not None:
            self._drop(side.connection)
            side.connection = None
        other = box.other(side)
        if other is None or other.gone:
            self._remove(box, now)
            return
        self._tell(other, wire.Left(final=True))

    def _end(self, box: Mailbox, reason: wire.Ending, now: float) -> None:
        """Close the mailbox and tell both sides why."""
        for side in box.sides():
            side.gone = True
            if side.connection is not None:
                self._tell(side, wire.Gone(reason))
                self._drop(side.connection)
                side.connection = None
        self._remove(box, now)

    def _remove(self, box: Mailbox, now: float) -> None:
        self._store.remove(box)
        self._numbers.retire(box.number, now)

    def _check_connection(self, connection: int, now: float) -> None:
        known = self._connections.get(connection)
        if known is not None and known.box is None:
            self.counters["silent"] += 1
            self._drop(connection, POLICY_VIOLATION)

    # Timers know sides by their tokens: a mailbox that is over must not be kept until its timers go off.

    def _check_box(self, token: str, now: float) -> None:
        found = self._store.by_token(token)
        if found is None:
            return
        box, _ = found
        if now < box.expires:
            self._at(box.expires, partial(self._check_box, token))
            return
        self._end(box, "expired", now)

    def _check_side(self, token: str, now: float) -> None:
        found = self._store.by_token(token)
        if found is not None and found[1].return_by is not None and now >= found[1].return_by:
            self._leave(*found, now)

    def _new_side(self, connection: int, *, is_hidden: bool) -> Side:
        return Side(
            token=self._entropy(_TOKEN_BYTES).hex(),
            user=self._entropy(_TOKEN_BYTES).hex(),
            log=SentLog(self.limits.mailbox_bytes // 2),
            connection=connection,
            is_hidden=is_hidden,
        )

    def _tell_logged(self, side: Side, message: wire.HubMessage) -> None:
        """What a side must get even if it has to come back for it."""
        data = wire.encode(message)
        side.log.append(data, len(data) + ENVELOPE)
        if side.connection is not None:
            self._deliver(side.connection, data)

    def _tell(self, side: Side | None, message: wire.HubMessage) -> None:
        if side is not None and side.connection is not None:
            self._deliver(side.connection, wire.encode(message))

    def _refuse(self, connection: int, error: wire.Error, now: float) -> None:
        self._deliver(connection, wire.encode(error))
        self.disconnect(connection, now)
        self._drop(connection, POLICY_VIOLATION if error.code == "malformed" else NORMAL)

    def _deliver(self, connection: int, data: bytes) -> None:
        self._deliveries.append(Delivery(connection, data))

    def _drop(self, connection: int, code: int = NORMAL) -> None:
        """Have the driver close a connection, which the hub forgets at once."""
        self._connections.pop(connection, None)
        self._deliveries.append(Delivery(connection, close=code))

    def _at(self, time: float, check: Callable[[float], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (time, self._timer_count, check))
