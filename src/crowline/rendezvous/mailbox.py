"""What a hub knows of one meeting: no code, no key, and of what the sides say only sealed bytes."""

from __future__ import annotations

from functools import partial

from msgspec import Struct, field

from crowline.rendezvous.rate import Bucket, Pace
from crowline.rendezvous.sent import SentLog
from crowline.rendezvous.wire import Place

MAX_HOSTS = 64
"""IP addresses of one side: more networks than a traveller passes through in a day."""


class Side(Struct):
    """One of the two. `token` lets it come back, `user` is its name at the TURN server. `element` waits there
    for the other side, and `place` says which of the two it is.

    `hosts` are the IP addresses from which it has come, the last `MAX_HOSTS`; it has asked `vouches` times
    for those of the other side, which hears of none of these if it `is_hidden`. `is_silent`: its WebSocket
    ended because nothing came any more. Of link zero it has `sent` so
    many bytes, and may send `credit` in all; `is_promised`: more comes later.
    """

    token: str
    user: str
    log: SentLog[bytes]
    connection: int | None
    place: Place
    element: bytes
    received: int = 0
    return_by: float | None = None
    is_silent: bool = False
    gone: bool = False
    sent: int = 0
    credit: int = 0
    is_promised: bool = False
    hosts: dict[str, None] = field(default_factory=dict)
    vouches: int = 0
    is_hidden: bool = False

    def see(self, host: str) -> None:
        """It has come from there."""
        self.hosts.pop(host, None)
        self.hosts[host] = None
        if len(self.hosts) > MAX_HOSTS:
            del self.hosts[next(iter(self.hosts))]


class Pot(Struct):
    """The bytes of link zero's budget that neither side has been given yet."""

    left: int = 0


class Mailbox(Struct):
    """One meeting. `host` is who came first. It is found by its `number`, or by its `name` if it has one.

    `pot` is what is left of link zero's budget, `pace` is what follows it.
    """

    number: int
    source: str
    expires: float
    host: Side
    text: Bucket
    name: bytes = b""
    join: Side | None = None
    pot: Pot = field(default_factory=Pot)
    pace: Pace = field(default_factory=partial(Pace, 0))
    is_budget_told: bool = False

    def has_seen(self, host: str) -> bool:
        """Whether a side has come from that IP address."""
        return any(host in side.hosts for side in self.sides())

    def places_taken(self) -> tuple[Place, ...]:
        """The places of sides that are connected now."""
        return tuple(side.place for side in self.sides() if side.connection is not None)

    def sides(self) -> tuple[Side, ...]:
        return (self.host,) if self.join is None else (self.host, self.join)

    def other(self, side: Side) -> Side | None:
        return self.join if side is self.host else self.host
