"""How two sides meet, and meet again: what hubs say in the life of one session.

The first meeting is at the place that people chose. Its key is the session's, and names the mailbox at which
the two look for each other whenever the meeting that they have is lost for good, or when nothing works any
more. Links that work are not touched by that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from crowline.api.carriers import Carriers
from crowline.api.continuity import Continuity, Relation
from crowline.api.hub_line import HubLine
from crowline.api.key_point import ByKey
from crowline.api.meeting_point import Callbacks, MeetingPoint, Place
from crowline.api.rejoin_owner import RejoinOwner
from crowline.base.errors import CrowlineError, NobodyCame, PeerRestarted, ServerUnreachable, WrongCode
from crowline.base.secrets import Secret
from crowline.link.hub import HubLink
from crowline.net.chores import Chores
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import (
    CodeReady,
    HostVouched,
    Keyed,
    MeetingEvent,
    MeetingFailed,
    PeerLeft,
    PeerPresent,
    PeerReturned,
    PlaceReady,
    Signalled,
    TokenReady,
    Welcomed,
)
from crowline.rendezvous.failures import Displaced
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Bye, Continuation, Description, Signal
from crowline.rendezvous.wire import TurnGrant

if TYPE_CHECKING:
    from crowline.api.traversal.traversal import Traversal


class Rejoin:
    """`place`: of the first meeting. `hides`: hubs are to confirm no address of this side. `carries`: they
    may carry the session.
    """

    def __init__(
        self,
        owner: RejoinOwner,
        carriers: Carriers,
        place: Place,
        role: Role,
        code: Code | None,
        *,
        hides: bool,
        carries: bool,
    ) -> None:
        self.key: Secret | None = None
        self._owner = owner
        self._carriers = carriers
        self._place = place
        self._role = role
        self._hides = hides
        self._carries = carries
        self._traversal: Traversal | None = None
        self._continuity = Continuity()
        # The key of the meeting that goes on, for its link zero; what may be asked of its relays.
        self._meeting_key: Secret | None = None
        self._grant: TurnGrant | None = None
        # Whether the other side has said, in this meeting, that it is the right one.
        self._is_right = False
        # Whether anybody is there; whether this side has got to where it has an appointment.
        self._is_present = self._was_placed = False
        # Whether link zero of this meeting has ended; another meeting has another one.
        self._is_hub_used_up = False
        # Another program on this side has taken over.
        self._displaced: Displaced | None = None
        self._words: tuple[str, ...] = ()
        self._chores = Chores()
        callbacks = Callbacks(
            on_event=self._on_event,
            on_link_data=owner.on_hub_data,
            on_link_down=self._link_lost,
            on_link_room=owner.flush,
            on_broken=self._on_broken,
            on_returned=self._on_returned,
            on_closed=self._on_closed,
            on_warning=owner.on_warning,
        )
        self._line = HubLine(place, role, code, callbacks, on_next=self._begin)

    @property
    def point(self) -> MeetingPoint | None:
        return self._line.point

    @property
    def link(self) -> HubLink | None:
        """Link zero, while there is one."""
        return self._line.point.link if self._line.point is not None else None

    @property
    def is_lasting(self) -> bool:
        """Whether the two can meet again."""
        return self._place.has_server

    @property
    def secret(self) -> Secret | None:
        """What the two meet again by, in this process or in a later one."""
        if isinstance(self._place, ByKey) and self._place.lasts:
            return self._place.secret
        return derive(self.key, "rejoin") if self.key is not None else None

    async def open(self) -> MeetingPoint:
        """Reach the first meeting point. Raises what `Place.open` raises."""
        return await self._line.open()

    def start(self, traversal: Traversal) -> None:
        """Begin."""
        self._traversal = traversal
        self._begin()
        self._line.start(traversal)

    def meet_again(self) -> None:
        """This meeting leads to nobody: look for the other side where both know to look."""
        place = self._next_place()
        if place is not None and not self._line.is_seeking and not self._owner.is_over:
            self._carriers.hub_down("the two sides meet anew")
            self._is_right = False
            self._line.seek(place)

    def signal(self, signal: Signal) -> None:
        self._line.signal(signal)

    def vouch(self, host: str) -> None:
        self._line.vouch(host)

    def verify(self) -> None:
        """Nothing works any more: see whether the way to the hub does."""
        self._line.verify()

    def begin_anew(self) -> None:
        """Nothing works any more: have both sides look for all pairs anew, as far as they can say so."""
        if self._is_right and self._traversal is not None:
            self._traversal.meet_again()

    def seek(self, *, is_absent: bool) -> None:
        """Nothing works any more. `is_absent`: the hub does not see the other side either. Where this meeting
        cannot help, the next one may.
        """
        if self._displaced is not None:
            self._owner.end(self._displaced)
        elif self._is_right and (is_absent or (self._carries and self._is_hub_used_up)):
            self.meet_again()

    def follow(self, gone: Collection[str]) -> None:
        self._line.follow(gone)

    def flush_link(self) -> None:
        self._line.flush_link()

    def say_goodbye(self, code: int, sentence: str) -> None:
        if self.key is not None:
            self._line.signal(Bye(code=code, sentence=sentence[:500]))

    async def close(self) -> None:
        await self._chores.close()
        await self._line.close()

    # One meeting ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Queue the first words."""
        self._meeting_key = None
        self._grant = None
        if self.is_lasting:
            self._line.signal(self._continuity.words(self.key))

    def _on_event(self, event: MeetingEvent) -> None:
        assert self._traversal is not None
        if isinstance(event, Welcomed):
            self._on_welcome(event)
        elif isinstance(event, CodeReady):
            self._owner.on_code(event.code)
        elif isinstance(event, TokenReady):
            self._owner.on_token(event.text)
        elif isinstance(event, PlaceReady):
            self._was_placed = True
            self._owner.on_ready()
        elif isinstance(event, PeerPresent):
            self._on_present(event)
        elif isinstance(event, Keyed):
            self._on_key(event)
        elif isinstance(event, Signalled):
            self._on_signal(event.signal)
        elif isinstance(event, HostVouched):
            self._traversal.vouched(event.host)
        elif isinstance(event, PeerLeft):
            self._on_left(event)
        elif isinstance(event, PeerReturned):
            self._on_back()
        elif isinstance(event, MeetingFailed):
            self._on_failed(event.error)

    def _on_welcome(self, event: Welcomed) -> None:
        assert self._traversal is not None
        if event.welcome.motd and self._line.is_first:
            self._owner.on_warning(event.welcome.motd)
        ask = self._traversal.query_stun if self._line.is_first else self._traversal.query_other_stun
        self._chores.beside(ask(event.welcome.stun))

    def _on_present(self, event: PeerPresent) -> None:
        assert self._traversal is not None and self._line.point is not None
        self._grant = event.turn
        if not self._owner.is_usable and not self._is_present:
            self._is_present = True
            self._owner.on_present(self._line.point.received_at)
            self._traversal.meet()
            self._chores.beside(self._traversal.allocate(event.turn if self._carries else None))

    def _on_key(self, event: Keyed) -> None:
        """At a code only the two can be who are meant; elsewhere their first words tell."""
        self._meeting_key, self._words = event.key, event.verifier
        if not isinstance(self._place, ByKey) and self._line.is_first:
            self._settle()

    def _on_signal(self, signal: Signal) -> None:
        assert self._traversal is not None
        if isinstance(signal, Continuation):
            self._on_continuation(signal)
        elif not self._is_right:
            # Of a session that this side has no part in.
            return
        elif isinstance(signal, Description):
            self._owner.on_description(signal)
        elif isinstance(signal, Bye):
            self._owner.on_goodbye(signal.code, signal.sentence)
        else:
            self._traversal.hear(signal)

    def _on_continuation(self, words: Continuation) -> None:
        relation = self._continuity.hear(words, self.key)
        if relation is Relation.RESTARTED:
            self._owner.end(PeerRestarted())
        elif relation is Relation.STALE:
            self._wait_on()
        elif not self._is_right:
            self._settle()

    def _settle(self) -> None:
        """The other side is there, and is the one that is meant."""
        assert self._meeting_key is not None and self._traversal is not None
        self._is_right, self._is_hub_used_up = True, False
        self._line.settled()
        if self.key is None:
            self.key = self._meeting_key
            self._owner.on_key(self._words)
        if self._carries and self._line.point is not None:
            link = self._line.point.open_link(self._role, self._meeting_key)
            if link is not None:
                self._carriers.hub_up(link)
        if not self._line.is_first:
            self._owner.on_met_again()
            self._traversal.meet_again()
            self._chores.beside(self._traversal.allocate(self._grant if self._carries else None))

    # What ends, and what follows --------------------------------------------------------------------

    def _on_left(self, event: PeerLeft) -> None:
        """The other side's WebSocket is gone; its other links may live, which they must show now."""
        if not self._is_right:
            # It may come back and prove itself; the meeting knows how long to wait for that.
            if event.final and self.is_waiting:
                self._wait_on()
            return
        self._link_lost("the other side left the server")
        self._owner.on_left(is_silent=event.is_silent)
        if event.final and self._owner.is_usable:
            self.meet_again()

    def _on_back(self) -> None:
        """Link zero is not by its new WebSocket; the hub may have seen nothing of the old one's end."""
        self._link_lost("the other side had to reach the server again")
        self._owner.on_back()

    def _link_lost(self, reason: str) -> None:
        self._is_hub_used_up = True
        self._carriers.hub_down(reason)

    def _on_broken(self) -> None:
        if self._place.has_server and not self._owner.is_usable and not self._owner.is_over:
            self._owner.on_warning("The connection to the server broke; trying again.")

    def _on_returned(self) -> None:
        if self._traversal is None:
            return
        if self._owner.is_lost:
            self._traversal.meet_again()
        else:
            self._traversal.restart()

    def _on_failed(self, error: CrowlineError) -> None:
        if isinstance(error, Displaced):
            self._displaced = error
        if self.key is not None:
            self._on_hub_gone()
        elif self.is_waiting and not isinstance(error, Displaced | WrongCode):
            self._wait_on()
        else:
            self._owner.end(error)

    def _on_closed(self) -> None:
        """The hub is gone; what does not need it goes on."""
        if self.key is not None:
            self._on_hub_gone()
        elif self.is_waiting:
            self._wait_on()
        elif self._place.has_server:
            unreachable = ServerUnreachable(
                "The server closed the connection.", hint="Try again in a moment."
            )
            self._owner.end(unreachable)
        else:
            self._owner.end(NobodyCame("The other side went away before a connection was made."))

    def _on_hub_gone(self) -> None:
        self._link_lost("the connection to the server ended")
        if self._displaced is not None and self._owner.is_lost:
            self._owner.end(self._displaced)
        else:
            self.meet_again()

    @property
    def is_waiting(self) -> bool:
        """Whether this side has been at an appointment, and the other one has not come yet."""
        return self._was_placed and self.key is None

    def _wait_on(self) -> None:
        """Who came was not the one, or has gone again."""
        self._is_present = False
        self._owner.on_absent_again()
        self.meet_again()

    def _next_place(self) -> Place | None:
        if self.is_waiting:
            return self._place
        secret = self.secret
        if secret is None or self._displaced is not None or not self.is_lasting:
            return None
        return ByKey(self._place.url, secret, hides=self._hides)
