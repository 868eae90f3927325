"""One meeting from the first packet to the last: hub, traversal, links and the session above them.

Data flows one way: messages and datagrams go into machines, machines' events come here, and what they decide
goes on to the session, whose events go to the streams. Nothing below this file knows of its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from crowline.api.carriers import Carriers
from crowline.api.hub_channel import AtServer
from crowline.api.introduction import Introduction
from crowline.api.meeting_point import MeetingPoint, Place
from crowline.api.observers import Observers
from crowline.api.options import Options
from crowline.api.rejoin import Rejoin
from crowline.api.timing import Timing
from crowline.api.token_point import TokenPoint
from crowline.api.traversal.traversal import Traversal
from crowline.api.watch import PATH_BROKE, PATH_BROKE_HINT, Watch
from crowline.base.errors import CrowlineError, ProtocolViolation, UsageError, error_for
from crowline.base.machine import Buffer
from crowline.base.secrets import Secret
from crowline.link.choice import HUB_LINK
from crowline.link.identity import Identity
from crowline.net.chores import Chores
from crowline.net.patience import within
from crowline.net.pump import Pump
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Description
from crowline.session.events import (
    DatagramReceived,
    LinkChosen,
    LinkSought,
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
        # When something came from the other side itself, by any link.
        self.heard_at = 0.0
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
        self._rejoin = Rejoin(
            self,
            self.carriers,
            self._place,
            role,
            code,
            hides=options.relay_only,
            carries=not options.direct_only,
        )
        self._traversal: Traversal | None = None
        self._introduction: Introduction | None = None
        self._watch: Watch | None = None
        self._farewell = asyncio.Event()
        self._chores = Chores()

    @property
    def silence(self) -> float:
        """Seconds since anything came from the other side, by any link."""
        return self._loop.time() - self.heard_at

    @property
    def key(self) -> Secret | None:
        """The key of the first meeting, once the other side has proven it."""
        return self._rejoin.key

    @property
    def resume_secret(self) -> Secret | None:
        """By which the two meet again, in this process or in a later one; None where they cannot."""
        return self._rejoin.secret if self._rejoin.is_lasting else None

    @property
    def _hub(self) -> MeetingPoint | None:
        return self._rejoin.point

    # Opening and closing ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the hub and begin; `code_ready`, `opened` and `ended` tell the rest."""
        point = await self._rejoin.open()
        self._traversal = Traversal(
            self,
            self.carriers,
            self._options,
            identity=self._identity,
            controlling=self.role is Role.JOIN,
            hub_host=point.server_host,
            loopback=point.is_loopback,
            signal=self._rejoin.signal,
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
        self._rejoin.start(self._traversal)
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
            self.end(None)
        await self._release()

    async def _release(self) -> None:
        if self._watch is not None:
            self._watch.close()
        await self._chores.close()
        self._session_pump.close()
        self.carriers.close()
        farewells = [self._rejoin.close()]
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
        self._rejoin.say_goodbye(code, sentence)
        self.flush()

    def fail(self, error: CrowlineError) -> None:
        """End with an error that the other side should hear too."""
        self._say_goodbye(error.exit_code, error.message)
        self.end(error)

    def end(self, error: CrowlineError | None) -> None:
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
            self.end(self._place.nobody_came())

    # What meetings say ------------------------------------------------------------------------------

    def on_code(self, code: Code) -> None:
        self.code = code
        self.on_ready()

    def on_token(self, token: str) -> None:
        self.token = token
        self.on_ready()

    def on_ready(self) -> None:
        if not self.code_ready.done():
            self.code_ready.set_result(None)

    def on_present(self, at: float) -> None:
        self.timing.present = at
        self._watch = Watch(
            is_stuck=self._is_stuck,
            direct_only=self._options.direct_only,
            on_verdict=self.fail,
            no_path=None if self._place.has_server else self._place.no_path,
            rescuer=self if self._rejoin.is_lasting else None,
            lost_since=lambda: self.session.unheard_since,
            deadline=self._options.deadline,
        )

    def on_absent_again(self) -> None:
        self.timing.present = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def on_key(self, words: tuple[str, ...]) -> None:
        self.words = words

    def on_description(self, description: Description) -> None:
        assert self._introduction is not None and self.key is not None
        if not self._introduction.hear(description, self.key):
            self.fail(ProtocolViolation("The other side's description makes no sense."))

    def on_left(self, *, is_silent: bool) -> None:
        """Its other links must show now that they live."""
        if self._watch is not None:
            self._watch.left(is_silent=is_silent)
        self.session.links.ping(self._loop.time() + 1.0)
        self.flush()

    def on_back(self) -> None:
        if self._watch is not None:
            self._watch.returned()

    on_met_again = on_back

    def on_hub_data(self, data: Buffer) -> None:
        self._receive(HUB_LINK, data)

    @property
    def is_usable(self) -> bool:
        return self.timing.usable is not None

    @property
    def is_lost(self) -> bool:
        return self.session.unheard_since is not None

    @property
    def is_over(self) -> bool:
        return self.ended.done()

    # What can be done while nothing works -----------------------------------------------------------

    def tell_lost(self) -> None:
        self.observers.tell_warning(f"{PATH_BROKE} {PATH_BROKE_HINT}")

    def verify(self) -> None:
        self._rejoin.verify()

    def begin_anew(self) -> None:
        self._rejoin.begin_anew()

    def seek(self, *, is_absent: bool) -> None:
        self._rejoin.seek(is_absent=is_absent)

    def on_goodbye(self, code: int, sentence: str) -> None:
        self._farewell.set()
        self._chores.later(_LINGER, self.end, error_for(code, sentence) if code else None)

    # What the traversal says ------------------------------------------------------------------------

    def on_network_changed(self, gone: Collection[str]) -> None:
        self._rejoin.follow(gone)
        if (pairs := self.carriers.pairs) is not None:
            pairs.hosts_lost(gone, "this side's address is gone")

    def vouch(self, host: str) -> None:
        self._rejoin.vouch(host)

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
        if self.key is None or self.carriers.paths.up:
            return False
        link = self._rejoin.link
        if link is None:
            # Between two meetings there is none, and the next one has another.
            return not self.is_usable
        return link.is_exhausted

    # What the session says --------------------------------------------------------------------------

    def _on_session_event(self, event: SessionEvent) -> None:
        if isinstance(event, LinkChosen):
            self._on_link_chosen(event)
        elif isinstance(event, LinkSought):
            self.carriers.on_link_sought()
        elif isinstance(event, StreamOpened):
            self.observers.on_stream_opened(event.stream)
        elif isinstance(event, StreamsAllowed):
            self.observers.on_streams_allowed()
        elif isinstance(event, DatagramReceived):
            self.observers.on_datagram(event.data)
        elif isinstance(event, SessionClosed):
            self.on_goodbye(event.code, event.sentence)
        elif isinstance(event, SessionBroken):
            self.fail(ProtocolViolation(f"The other side broke the protocol: {event.reason}."))
        elif handler := self.observers.streams.get(event.stream):
            handler(event)

    def _on_link_chosen(self, event: LinkChosen) -> None:
        if self._farewell.is_set():
            # Links end one after the other now; none of that is a path to tell of.
            return
        if self._traversal is not None and (silent := self.carriers.silent_pair(event)) is not None:
            self._traversal.fell_silent(silent)
        if self._watch is not None and event.link not in (None, HUB_LINK):
            self._watch.has_had_pair = True
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
        self._rejoin.flush_link()

    def _receive(self, number: int, data: Buffer) -> None:
        now = self.heard_at = self._loop.time()
        if self._watch is not None:
            self._watch.heard(now)
        self.session.receive(data, number, now)
        if number == HUB_LINK:
            self.flush()
