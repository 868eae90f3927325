"""One meeting from the first packet to the last: hub, traversal, links and the session above them.

Data flows one way: messages and datagrams go into machines, machines' events come here, and what they decide
goes on to the session, whose events go to the streams. Nothing below this file knows of its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from crowline.api.carriers import Carriers
from crowline.api.chores import Chores
from crowline.api.hub_channel import AtServer
from crowline.api.introduction import Introduction
from crowline.api.meeting_point import Callbacks, MeetingPoint, Place
from crowline.api.observers import Observers
from crowline.api.options import Options
from crowline.api.timing import Timing
from crowline.api.token_point import TokenPoint
from crowline.api.traversal.traversal import Traversal
from crowline.api.watch import Watch
from crowline.base.errors import (
    CrowlineError,
    NobodyCame,
    ProtocolViolation,
    ServerUnreachable,
    UsageError,
    error_for,
)
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret
from crowline.link.choice import HUB_LINK
from crowline.link.identity import Identity
from crowline.net.patience import within
from crowline.net.pump import Pump
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
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Bye, Description, Signal
from crowline.session.events import (
    BulkIsSlow,
    DatagramReceived,
    LinkChosen,
    SessionBroken,
    SessionClosed,
    SessionEvent,
    StreamOpened,
    StreamsAllowed,
)
from crowline.session.links import LinkTransmit
from crowline.session.session import Session

# The QUIC library warns of every connection that a peer closes; links say what matters of that as events.
logging.getLogger("quic").addHandler(logging.NullHandler())

# Seconds that a side waits for its last words to be heard.
FAREWELL_LIMIT = 1.0
# Seconds between hearing the other side's last words and the end, in which the answer to them leaves.
_LINGER = 0.2


class Connection:
    """The conductor of one meeting, for one side of it.

    `code_ready` is done when the host has its code, `opened` when the session may carry streams, `ended`
    when it is over, with its error or None.
    """

    def __init__(self, role: Role, options: Options, code: Code | None = None) -> None:
        self.role = role
        self.code = code
        # Where tokens stand for the code, this side's own.
        self.token = ""
        self.observers = Observers()
        self.timing = Timing()
        self.words: tuple[str, ...] = ()
        self.session = Session(initiator=role is Role.HOST)
        if options.limit is not None:
            self.session.limit(options.limit)
        self._options = options
        self._place: Place = options.place or AtServer(options.server, hides=options.relay_only)
        self.carriers = Carriers(
            self.session,
            self._place.url,
            on_first=self._on_first_carrier,
            on_change=self.flush,
            on_reason=self._on_reason,
        )
        self._loop = asyncio.get_running_loop()
        self.code_ready: asyncio.Future[None] = self._loop.create_future()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[CrowlineError | None] = self._loop.create_future()
        self._session_pump = Pump[LinkTransmit, SessionEvent](
            self.session, self.carriers.send, self._on_session_event, on_timeout=self.flush
        )
        self._identity = Identity.generate()
        self._hub: MeetingPoint | None = None
        self._traversal: Traversal | None = None
        self._introduction: Introduction | None = None
        self._key: Secret | None = None
        self._watch: Watch | None = None
        self._farewell = asyncio.Event()
        self._chores = Chores()

    @property
    def key(self) -> Secret | None:
        """The key of the first meeting, once the other side has proven it."""
        return self._key

    # Opening and closing ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the hub and begin; `code_ready`, `opened` and `ended` tell the rest."""
        callbacks = Callbacks(
            on_event=self._on_meeting_event,
            on_link_data=lambda data: self._receive(HUB_LINK, data),
            on_link_down=self.carriers.hub_down,
            on_link_room=self.flush,
            on_broken=self._on_hub_broken,
            on_returned=self._on_hub_returned,
            on_closed=self._on_hub_closed,
            on_warning=self.on_warning,
        )
        self._hub = await self._place.open(self.role, self.code, callbacks)
        self._traversal = Traversal(
            self,
            self.carriers,
            self._options,
            identity=self._identity,
            controlling=self.role is Role.JOIN,
            hub_host=self._hub.server_host,
            loopback=self._hub.is_loopback,
            signal=self._hub.signal,
        )
        self._introduction = Introduction(
            self.carriers,
            self._traversal,
            self._identity,
            is_client=self.role is Role.JOIN,
            on_data=self._receive,
        )
        if self._place.caution:
            self.observers.tell_warning(self._place.caution)
        self._hub.start(self._traversal)
        self._traversal.begin()
        if self._options.timeout is not None:
            self._chores.later(self._options.timeout, self._give_up_waiting)

    def answer(self, token: str) -> None:
        """Take the other side's token. Raises `WrongCode` for one that does not answer this side's."""
        if not isinstance(self._hub, TokenPoint):
            raise UsageError("Only a meeting by tokens takes one.")
        self._hub.answer(token)

    async def close(self, code: int = 0, sentence: str = "") -> None:
        """Tell the other side, wait a moment for it to hear, and release everything."""
        if not self.ended.done():
            self._say_goodbye(code, sentence)
            if self.session.chosen is not None:
                await within(FAREWELL_LIMIT, self._farewell.wait())
            self._end(None)
        await self._release()

    async def _release(self) -> None:
        if self._watch is not None:
            self._watch.close()
        await self._chores.close()
        self._session_pump.close()
        self.carriers.close()
        farewells = [self._hub.close()] if self._hub is not None else []
        if self._traversal is not None:
            farewells.append(self._traversal.give_back())
        try:
            await asyncio.gather(*farewells)
        finally:
            if self._traversal is not None:
                self._traversal.close()

    def _say_goodbye(self, code: int, sentence: str) -> None:
        """By the session and by the hub: whichever is heard first will do."""
        self.session.close(code, sentence)
        if self._hub is not None and self._key is not None:
            self._hub.signal(Bye(code=code, sentence=sentence[:500]))
        self.flush()

    def _fail(self, error: CrowlineError) -> None:
        """End with an error that the other side should hear too."""
        self._say_goodbye(error.exit_code, error.message)
        self._end(error)

    def _end(self, error: CrowlineError | None) -> None:
        """The meeting is over; everybody who waits hears of it."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        reason = error or CrowlineError("The connection was closed.")
        for future in (self.code_ready, self.opened):
            if not future.done():
                future.set_exception(reason)
                # Perhaps nobody waits for this one; that is no error of its own.
                future.exception()
        for handler in list(self.observers.streams.values()):
            handler(SessionBroken(reason.message))
        self._farewell.set()

    def _give_up_waiting(self) -> None:
        if self.timing.present is None:
            self._end(self._place.nobody_came())

    # What the hub says ------------------------------------------------------------------------------

    def _on_meeting_event(self, event: MeetingEvent) -> None:
        if isinstance(event, Welcomed):
            self._on_welcome(event)
        elif isinstance(event, CodeReady):
            self.code = event.code
            self._is_ready()
        elif isinstance(event, PlaceReady):
            self._is_ready()
        elif isinstance(event, TokenReady):
            self.token = event.text
            self._is_ready()
        elif isinstance(event, PeerPresent):
            self._on_present(event)
        elif isinstance(event, Keyed):
            self._on_key(event)
        elif isinstance(event, Signalled):
            self._on_signal(event.signal)
        elif isinstance(event, HostVouched):
            assert self._traversal is not None
            self._traversal.vouched(event.host)
        elif isinstance(event, PeerLeft):
            self._on_left(event)
        elif isinstance(event, PeerReturned):
            # Link zero is not by its new WebSocket; the hub may have seen nothing of the old one's end.
            self.carriers.hub_down("the other side had to reach the server again")
        elif isinstance(event, MeetingFailed):
            if self._key is None:
                self._end(event.error)
            else:
                self._on_hub_closed()

    def _is_ready(self) -> None:
        """This side can be met."""
        if not self.code_ready.done():
            self.code_ready.set_result(None)

    def _on_welcome(self, event: Welcomed) -> None:
        assert self._traversal is not None
        if event.welcome.motd:
            self.observers.tell_warning(event.welcome.motd)
        self._chores.beside(self._traversal.query_stun(event.welcome.stun))

    def _on_present(self, event: PeerPresent) -> None:
        assert self._hub is not None and self._traversal is not None
        self.timing.present = self._hub.received_at
        self._traversal.meet()
        direct_only = self._options.direct_only
        no_path = None if self._place.has_server else self._place.no_path
        self._watch = Watch(
            is_stuck=self._is_stuck, direct_only=direct_only, on_verdict=self._fail, no_path=no_path
        )
        self._chores.beside(self._traversal.allocate(None if direct_only else event.turn))

    def _on_key(self, event: Keyed) -> None:
        assert self._hub is not None
        self._key = event.key
        self.words = event.verifier
        if not self._options.direct_only:
            link = self._hub.open_link(self.role, event.key)
            if link is not None:
                self.carriers.hub_up(link)

    def _on_signal(self, signal: Signal) -> None:
        assert self._traversal is not None
        if isinstance(signal, Description):
            self._on_description(signal)
        elif isinstance(signal, Bye):
            self._on_goodbye(signal.code, signal.sentence)
        else:
            self._traversal.hear(signal)

    def _on_description(self, signal: Description) -> None:
        assert self._introduction is not None
        if self._key is not None and not self._introduction.hear(signal, self._key):
            self._fail(ProtocolViolation("The other side's description makes no sense."))

    def _on_left(self, event: PeerLeft) -> None:
        """The other side's WebSocket is gone; its other links may live, which they must show now."""
        if self._key is None and not event.final:
            # It may come back and prove itself; the meeting knows how long to wait for that.
            return
        self.carriers.hub_down("the other side left the server")
        if self._watch is not None:
            self._watch.left()
        self.session.links.ping(self._loop.time() + 1.0)
        self.flush()

    def _on_hub_broken(self) -> None:
        if self._place.has_server and not self.opened.done() and not self.ended.done():
            self.observers.tell_warning("The connection to the server broke; trying again.")

    def _on_hub_returned(self) -> None:
        if self._traversal is not None:
            self._traversal.restart()

    def _on_hub_closed(self) -> None:
        """The hub is gone; what does not need it goes on."""
        if self._key is not None:
            self.carriers.hub_down("the connection to the server ended")
        elif self._place.has_server:
            self._end(ServerUnreachable("The server closed the connection.", hint="Try again in a moment."))
        else:
            self._end(NobodyCame("The other side went away before a connection was made."))

    def _on_goodbye(self, code: int, sentence: str) -> None:
        self._farewell.set()
        self._chores.later(_LINGER, self._end, error_for(code, sentence) if code else None)

    # What the traversal says ------------------------------------------------------------------------

    def on_network_changed(self, gone: Collection[str]) -> None:
        assert self._hub is not None
        self._hub.follow(gone)
        if (pairs := self.carriers.pairs) is not None:
            pairs.hosts_lost(gone, "this side's address is gone")

    def vouch(self, host: str) -> None:
        assert self._hub is not None
        self._hub.vouch(host)

    def on_drained(self) -> None:
        self.flush()

    def on_warning(self, sentence: str) -> None:
        self.observers.tell_warning(sentence)

    # What the links say -----------------------------------------------------------------------------

    def _on_first_carrier(self) -> None:
        self.timing.usable = self._loop.time()
        if not self.opened.done():
            self.opened.set_result(None)
        if self._watch is not None:
            self._watch.usable = True

    def _is_stuck(self) -> bool:
        """Whether no link is up but an exhausted link zero. Before there is a key, none can be."""
        if self._key is None or self.carriers.paths.up:
            return False
        link = self._hub.link if self._hub is not None else None
        return link is None or link.is_exhausted

    # What the session says --------------------------------------------------------------------------

    def _on_session_event(self, event: SessionEvent) -> None:
        if isinstance(event, LinkChosen):
            self._on_link_chosen(event)
        elif isinstance(event, BulkIsSlow):
            self.carriers.on_bulk_is_slow()
        elif isinstance(event, StreamOpened):
            self.observers.on_stream_opened(event.stream)
        elif isinstance(event, StreamsAllowed):
            self.observers.on_streams_allowed()
        elif isinstance(event, DatagramReceived):
            self.observers.on_datagram(event.data)
        elif isinstance(event, SessionClosed):
            self._on_goodbye(event.code, event.sentence)
        elif isinstance(event, SessionBroken):
            self._fail(ProtocolViolation(f"The other side broke the protocol: {event.reason}."))
        elif handler := self.observers.streams.get(event.stream):
            handler(event)

    def _on_link_chosen(self, event: LinkChosen) -> None:
        if self._farewell.is_set():
            # Links end one after the other now; none of that is a path to tell of.
            return
        if self._traversal is not None and (silent := self.carriers.silent_pair(event)) is not None:
            self._traversal.fell_silent(silent)
        now, before = self.carriers.choose(event)
        if now is not None and now.is_direct and self.timing.direct is None:
            self.timing.direct = self._loop.time()
        self.observers.tell_path(now, before)

    def _on_reason(self) -> None:
        if not self._farewell.is_set():
            self.observers.retell_path(self.carriers.paths.current)

    # Pumping ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand on what arrived, then send what there is."""
        self.carriers.flush()
        self._session_pump.flush()
        self.carriers.flush()
        if self._hub is not None:
            self._hub.flush_link()

    def _receive(self, number: int, data: Buffer) -> None:
        now = self._loop.time()
        if self._watch is not None:
            self._watch.heard(now)
        self.session.receive(data, number, now)
        if number == HUB_LINK:
            self.flush()
