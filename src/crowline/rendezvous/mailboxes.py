"""The life of mailboxes, from the first side's coming to the last one's going."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from crowline.rendezvous import wire
from crowline.rendezvous.alarms import Alarms
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.mailbox import Mailbox, Side
from crowline.rendezvous.numbers import Numbers
from crowline.rendezvous.post import ENVELOPE, Post
from crowline.rendezvous.store import Store


class Mailboxes:
    """`has_relay_client(user, host)`: whether that TURN user has a relayed address, for a client at that
    IP.
    """

    def __init__(
        self,
        store: Store,
        numbers: Numbers,
        limits: HubLimits,
        post: Post,
        alarms: Alarms,
        counters: Counter[str],
        has_relay_client: Callable[[str, str], bool],
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._limits = limits
        self._post = post
        self._alarms = alarms
        self._counters = counters
        self._has_relay_client = has_relay_client

    def add(self, box: Mailbox) -> None:
        """Keep it until it `expires`."""
        self._store.add(box)
        self._watch(box)

    def begin(self, box: Mailbox, now: float) -> None:
        """Both are there."""
        box.expires = now + self._limits.idle
        self._watch(box)

    def hear(self, box: Mailbox, side: Side, message: wire.ClientMessage, now: float) -> None:
        """What a side says once it is in."""
        if box.join is not None or box.name:
            box.expires = now + self._limits.idle
        if isinstance(message, wire.Relay):
            self._relay(box, side, message, now)
        elif isinstance(message, wire.Ping):
            self._post.tell(side, wire.Pong())
        elif isinstance(message, wire.Vouch):
            self._vouch(box, side, message.host)
        elif isinstance(message, wire.Leave):
            self.leave(box, side, now)
        elif isinstance(message, wire.Burn):
            self._counters["burned"] += 1
            self.end(box, "burned", now)
        else:
            self._counters["out of turn"] += 1

    def lost(self, box: Mailbox, side: Side, now: float, *, is_silent: bool) -> None:
        """The WebSocket of `side` broke; it may come back."""
        side.is_silent = is_silent
        side.return_by = now + self._limits.grace
        self._alarms.at(side.return_by, partial(self._check_side, side.token))
        self._post.tell(box.other(side), wire.Left(final=False, silent=is_silent))

    def leave(self, box: Mailbox, side: Side, now: float) -> None:
        """`side` does not come back; the last one closes the mailbox, as does a host to whom nobody came."""
        side.gone, side.return_by = True, None
        self._post.part(side)
        other = box.other(side)
        if other is None or other.gone:
            self.remove(box, now)
            return
        self._post.tell(other, wire.Left(final=True, silent=side.is_silent))

    def end(self, box: Mailbox, reason: wire.Ending, now: float) -> None:
        """Close the mailbox and tell both sides why."""
        for side in box.sides():
            self.dismiss(side, reason)
        self.remove(box, now)

    def dismiss(self, side: Side, reason: wire.Ending) -> None:
        """Tell a side of a mailbox that closes why."""
        side.gone = True
        self._post.tell(side, wire.Gone(reason))
        self._post.part(side)

    def remove(self, box: Mailbox, now: float) -> None:
        self._store.remove(box)
        if not box.name:
            self._numbers.retire(box.number, now)

    # ------------------------------------------------------------------------------------------------

    def _relay(self, box: Mailbox, side: Side, message: wire.Relay, now: float) -> None:
        other = box.other(side)
        if other is None:
            self._counters["relay too early"] += 1
            return
        side.received += 1
        if not box.text.take(len(message.body) + ENVELOPE, now):
            self._counters["flood"] += 1
            self.end(box, "flood", now)
        elif not other.gone:
            self._post.tell_logged(other, wire.Relayed(message.kind, message.body))

    def _vouch(self, box: Mailbox, side: Side, host: str) -> None:
        """Say so if the other side was seen at `host`: by its WebSocket, or by its allocation, which may be
        of the other IP family or from another address of its translator. The questions are few, lest somebody
        search by them, and about a side that hides there is no answer, lest a suspicion prove right.
        """
        other = box.other(side)
        side.vouches += 1
        if other is None or other.is_hidden or side.vouches > self._limits.vouches:
            self._counters["vouch refused"] += 1
        elif host in other.hosts or self._has_relay_client(other.user, host):
            self._post.tell(side, wire.Vouched(host))

    # Alarms know sides by their tokens: a mailbox that is over must not be kept until they go off.

    def _watch(self, box: Mailbox) -> None:
        self._alarms.at(box.expires, partial(self._check_box, box.host.token))

    def _check_box(self, token: str, now: float) -> None:
        found = self._store.by_token(token)
        if found is None:
            return
        box, _ = found
        if now < box.expires:
            self._watch(box)
            return
        self.end(box, "expired", now)

    def _check_side(self, token: str, now: float) -> None:
        found = self._store.by_token(token)
        if found is not None and found[1].return_by is not None and now >= found[1].return_by:
            self.leave(*found, now)
