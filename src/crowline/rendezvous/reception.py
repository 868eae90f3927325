"""A connection's first message: what it wants, and whether it gets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from crowline.rendezvous import wire
from crowline.rendezvous.carriage import Carriage
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.mailbox import Mailbox, Side
from crowline.rendezvous.mailboxes import Mailboxes
from crowline.rendezvous.numbers import Numbers
from crowline.rendezvous.post import NORMAL, POLICY_VIOLATION, Post, Visitor
from crowline.rendezvous.rate import Bucket, SourceRate
from crowline.rendezvous.sent import SentLog
from crowline.rendezvous.store import Store

_TOKEN_BYTES = 16


class Reception:
    """`grant` makes the TURN credentials of a user name, once both sides of a meeting are there."""

    def __init__(
        self,
        store: Store,
        numbers: Numbers,
        limits: HubLimits,
        post: Post,
        mailboxes: Mailboxes,
        carriage: Carriage,
        counters: Counter[str],
        entropy: Callable[[int], bytes],
        grant: Callable[[str], wire.TurnGrant | None],
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._limits = limits
        self._post = post
        self._mailboxes = mailboxes
        self._carriage = carriage
        self._counters = counters
        self._entropy = entropy
        self._grant = grant
        self._claims = SourceRate(limits.claims_per_minute)
        self._allocations = SourceRate(limits.allocations_per_minute)
        self._meets = SourceRate(limits.meets_per_minute)
        self._looks = SourceRate(limits.looks_per_minute)

    def hear(self, visitor: Visitor, message: wire.ClientMessage, now: float) -> None:
        if isinstance(message, wire.Relay | wire.Burn | wire.Leave | wire.Ping | wire.Vouch):
            self._counters["out of turn"] += 1
            self.refuse(visitor, wire.Error("malformed"))
        elif message.v != wire.VERSION:
            self.refuse(visitor, wire.Error("version"))
        elif isinstance(message, wire.Resume):
            self._resume(visitor, message)
        elif wait := 0 if visitor.is_exempt else self._rate(message).refuse(visitor.source, now):
            self.refuse(visitor, wire.Error("slow-down", wait))
        elif isinstance(message, wire.Allocate):
            self._allocate(visitor, message, now)
        elif isinstance(message, wire.Claim):
            self._claim(visitor, message, now)
        elif isinstance(message, wire.Meet):
            self._meet(visitor, message, now)
        else:
            self._look(visitor, message)

    def refuse(self, visitor: Visitor, error: wire.Error) -> None:
        """Say why, and close the connection."""
        self._post.deliver(visitor.number, wire.encode(error))
        self._post.drop(visitor.number, POLICY_VIOLATION if error.code == "malformed" else NORMAL)

    def _rate(self, message: wire.Allocate | wire.Claim | wire.Meet | wire.Look) -> SourceRate:
        if isinstance(message, wire.Allocate):
            return self._allocations
        if isinstance(message, wire.Claim):
            return self._claims
        return self._meets if isinstance(message, wire.Meet) else self._looks

    # By a code --------------------------------------------------------------------------------------

    def _allocate(self, visitor: Visitor, message: wire.Allocate, now: float) -> None:
        number = self._numbers.draw(lambda drawn: self._store.by_number(drawn) is not None, now)
        if number is None or self._is_full(visitor):
            self.refuse(visitor, wire.Error("full"))
            return
        side = self._new_side(visitor, "host", message)
        lifetime = self._limits.code_lifetime
        self._open(visitor, side, Mailbox(number, visitor.source, now + lifetime, side, self._text(now)))
        self._post.tell(side, wire.Allocated(number, side.token, int(lifetime)))

    def _claim(self, visitor: Visitor, message: wire.Claim, now: float) -> None:
        box = self._store.by_number(message.number)
        side = self._new_side(visitor, "join", message)
        if box is None or box.host.gone or not self._store.join(box, side):
            self._counters["no such code"] += 1
            self.refuse(visitor, wire.Error("no-such-code"))
            return
        self._begin(visitor, box, side, now)
        self._post.tell(side, wire.Claimed(box.host.element, side.token, self._grant(side.user)))
        self._post.tell_logged(box.host, wire.Joined(side.element, self._grant(box.host.user)))

    # By a name --------------------------------------------------------------------------------------

    def _meet(self, visitor: Visitor, message: wire.Meet, now: float) -> None:
        side = self._new_side(visitor, message.place, message)
        box = self._store.by_name(message.name)
        if box is not None and not self._is_waiting(box, message.place):
            self._clear(box, message.place, now)
            box = None
        if box is not None and self._store.join(box, side):
            self._begin(visitor, box, side, now)
            self._post.tell(side, wire.Placed(side.token, int(self._limits.grace)))
            for each, other in ((side, box.host), (box.host, side)):
                self._post.tell_logged(each, wire.Met(other.element, self._grant(each.user)))
        elif self._is_full(visitor):
            self.refuse(visitor, wire.Error("full"))
        else:
            expires = now + self._limits.idle
            self._open(
                visitor, side, Mailbox(0, visitor.source, expires, side, self._text(now), message.name)
            )
            self._post.tell(side, wire.Placed(side.token, int(self._limits.grace)))

    def _is_waiting(self, box: Mailbox, place: wire.Place) -> bool:
        """Whether somebody is there, connected, who waits for the side that has `place`."""
        return box.join is None and box.host.place != place and box.host.connection is not None

    def _clear(self, box: Mailbox, place: wire.Place, now: float) -> None:
        """Who comes anew has nothing to do with an earlier life of the same mailbox."""
        for side in box.sides():
            self._mailboxes.dismiss(side, "replaced" if side.place == place else "renewed")
        self._mailboxes.remove(box, now)

    def _look(self, visitor: Visitor, message: wire.Look) -> None:
        found = (self._store.by_name(name) for name in message.names)
        places = tuple(() if box is None else box.places_taken() for box in found)
        self._post.deliver(visitor.number, wire.encode(wire.Waiting(places)))

    # Again ------------------------------------------------------------------------------------------

    def _resume(self, visitor: Visitor, message: wire.Resume) -> None:
        found = self._store.by_token(message.token)
        missed = None if found is None or found[1].gone else found[1].log.since(message.received)
        if found is None or missed is None:
            self.refuse(visitor, wire.Error("lost"))
            return
        box, side = found
        self._post.part(side)
        side.connection, side.return_by, side.is_silent = visitor.number, None, False
        visitor.box, visitor.side = box, side
        side.see(visitor.host)
        self._post.tell(side, wire.Resumed(side.received))
        for data in missed:
            self._post.deliver(visitor.number, data)
        other = box.other(side)
        self._post.tell(other, wire.Back())
        if other is not None and other.connection is None:
            self._post.tell(side, wire.Left(final=other.gone, silent=other.is_silent))

    # ------------------------------------------------------------------------------------------------

    def _open(self, visitor: Visitor, side: Side, box: Mailbox) -> None:
        """`side` is the first one in `box`."""
        visitor.box, visitor.side = box, side
        side.see(visitor.host)
        self._mailboxes.add(box)

    def _begin(self, visitor: Visitor, box: Mailbox, side: Side, now: float) -> None:
        """`side` is the second one in `box`."""
        visitor.box, visitor.side = box, side
        self._carriage.open(box, now)
        side.see(visitor.host)
        self._mailboxes.begin(box, now)

    def _is_full(self, visitor: Visitor) -> bool:
        hosted = 0 if visitor.is_exempt else self._store.count_source(visitor.source)
        return len(self._store) >= self._limits.mailboxes or hosted >= self._limits.mailboxes_per_source

    def _text(self, now: float) -> Bucket:
        return Bucket(self._limits.text_bytes, self._limits.text_rate, now)

    def _new_side(
        self, visitor: Visitor, place: wire.Place, message: wire.Allocate | wire.Claim | wire.Meet
    ) -> Side:
        return Side(
            token=self._entropy(_TOKEN_BYTES).hex(),
            user=self._entropy(_TOKEN_BYTES).hex(),
            log=SentLog(self._limits.mailbox_bytes // 2),
            connection=visitor.number,
            place=place,
            element=message.element,
            is_hidden=message.hidden,
        )
