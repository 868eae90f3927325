"""The server's side of all meetings: mailboxes with two places, and what passes between them.

A hub has many connections, so each verb names one; the driver numbers them. It relays what the sides say
without being able to read it, knows by itself who said it, and answers alike for codes that are unknown,
expired and used.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from functools import partial

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.rendezvous import wire
from crowline.rendezvous.alarms import Alarms
from crowline.rendezvous.carriage import Carriage
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.mailbox import Mailbox
from crowline.rendezvous.mailboxes import Mailboxes
from crowline.rendezvous.numbers import Numbers
from crowline.rendezvous.post import NORMAL, POLICY_VIOLATION, Delivery, Post, Visitor
from crowline.rendezvous.rate import source_of
from crowline.rendezvous.reception import Reception
from crowline.rendezvous.store import MemoryStore, Store

__all__ = ["NORMAL", "POLICY_VIOLATION", "Delivery", "Hub"]


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
        self._store: Store = MemoryStore() if store is None else store
        self._visitors: dict[int, Visitor] = {}
        self._alarms = Alarms()
        self._post = Post(self._visitors)
        self._carriage = Carriage(self.limits, self._post.tell, self._alarms.at)
        numbers = numbers or Numbers(entropy, self.limits.number_rest)
        self._mailboxes = Mailboxes(
            self._store, numbers, self.limits, self._post, self._alarms, self.counters, has_relay_client
        )
        self._reception = Reception(
            self._store,
            numbers,
            self.limits,
            self._post,
            self._mailboxes,
            self._carriage,
            self.counters,
            entropy,
            grant or (lambda user: None),
        )
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

    def __len__(self) -> int:
        """Meetings that exist."""
        return len(self._store)

    @property
    def is_in_use(self) -> bool:
        """Whether anybody who is connected is in a meeting of two."""
        boxes = (visitor.box for visitor in self._visitors.values())
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
        self._visitors[connection] = Visitor(
            connection, source.host, source_of(source.host), is_loopback and self.limits.exempt_loopback
        )
        self._post.deliver(connection, self._welcome)
        self._alarms.at(now + self.limits.first_message, partial(self._check_visitor, connection))

    def disconnect(
        self, connection: int, now: float, *, is_clean: bool = False, is_silent: bool = False
    ) -> None:
        """A WebSocket is gone. One that was closed properly (`is_clean`) does not come back; of one that
        `is_silent` nobody knows whether its other end still lives.
        """
        visitor = self._visitors.pop(connection, None)
        if visitor is None or visitor.box is None or visitor.side is None:
            return
        box, side = visitor.box, visitor.side
        if side.connection != connection:
            return
        side.connection = None
        if is_clean:
            self._mailboxes.leave(box, side, now)
        else:
            self._mailboxes.lost(box, side, now, is_silent=is_silent)

    def receive(self, connection: int, data: Buffer, now: float) -> None:
        """One text message."""
        visitor = self._visitors.get(connection)
        if visitor is None:
            return
        try:
            message = wire.decode_client(data)
        except wire.MalformedWire:
            self.counters["malformed"] += 1
            self.disconnect(connection, now)
            self._reception.refuse(visitor, wire.Error("malformed"))
            return
        if visitor.box is None or visitor.side is None:
            self._reception.hear(visitor, message, now)
        else:
            self._mailboxes.hear(visitor.box, visitor.side, message, now)

    def receive_binary(self, connection: int, data: Buffer, now: float) -> None:
        """One frame of link zero: handed to the other side, as far as the sender's credit goes."""
        visitor = self._visitors.get(connection)
        if visitor is None or visitor.box is None or visitor.side is None:
            self.counters["binary too early"] += 1
            return
        box, other = visitor.box, visitor.box.other(visitor.side)
        if not 0 < len(data) <= wire.MAX_MESSAGE or other is None or other.connection is None:
            self.counters["binary dropped"] += 1
            return
        if not self._carriage.spend(box, visitor.side, len(data), now):
            self.counters["over budget"] += 1
            return
        box.expires = now + self.limits.idle
        self._post.deliver(other.connection, data, is_binary=True)

    def handle_timeout(self, now: float) -> None:
        self._alarms.ring(now)

    def next_timeout(self) -> float | None:
        return self._alarms.next_time()

    def next_transmit(self) -> Delivery | None:
        return self._post.next()

    def _box_of(self, user: str) -> Mailbox | None:
        return self._store.by_user(user.rpartition(":")[2])

    def _check_visitor(self, connection: int, now: float) -> None:
        """Who is here and wants nothing keeps the place of somebody who does."""
        visitor = self._visitors.get(connection)
        if visitor is not None and visitor.box is None:
            self.counters["silent"] += 1
            self._post.drop(connection, POLICY_VIOLATION)
