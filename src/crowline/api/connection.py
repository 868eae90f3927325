"""One meeting from the first packet to the last: hub, candidates, checks, links and the session above them.

Data flows one way: datagrams and messages go into machines, machines' events come here, and what they decide
goes on to the session, whose events go to `peer`. Nothing below this file knows of its neighbours.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from crowline.api.candidates import from_signal, may_be_checked, to_signal
from crowline.api.gatherer import Gatherer
from crowline.api.hub_channel import HubChannel
from crowline.api.links import LinkSecrets, LinkTable, PairLink
from crowline.api.options import Options
from crowline.api.path import Path
from crowline.api.paths import HUB_LINK, PathBook
from crowline.api.watch import Watch
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, NobodyCame, ServerUnreachable, error_for
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.events import IceEvent, PairLost, PairValid
from crowline.ice.pair import ValidPair
from crowline.link.identity import Identity
from crowline.link.quic import warm_up
from crowline.net.interfaces import local_addresses
from crowline.net.pump import Pump
from crowline.net.resolver import resolve
from crowline.net.websocket import HubSocket
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import (
    CodeReady,
    Keyed,
    MeetingEvent,
    MeetingFailed,
    PeerLeft,
    PeerPresent,
    Signalled,
    Welcomed,
)
from crowline.rendezvous.keys import derive
from crowline.rendezvous.meeting import Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Bye, CandidateSignal, Description, EndOfCandidates, Signal
from crowline.session.events import (
    LinkChosen,
    SessionBroken,
    SessionClosed,
    SessionEvent,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamWritable,
)
from crowline.session.links import Carrier
from crowline.session.session import LinkTransmit, Session

# Preference between kinds of link; within one kind the pair's priority decides, which both sides agree on.
_RANKS = {"hub": 1 << 64, "relay": 2 << 64, "direct": 3 << 64}
# Seconds between checks that our own two sides agree on: the floor of RFC 8445 §14.2.
TA = 0.005
# Seconds that a side waits for its last words to be heard.
FAREWELL_LIMIT = 1.0


@dataclass(slots=True)
class Timing:
    """When things happened, in seconds of the loop's clock."""

    present: float | None = None
    usable: float | None = None
    direct: float | None = None

    @property
    def setup_ms(self) -> float | None:
        return _milliseconds(self.present, self.usable)

    @property
    def direct_ms(self) -> float | None:
        return _milliseconds(self.present, self.direct)


@dataclass(slots=True)
class Observers:
    """Whom a connection tells what; each is called in the event loop."""

    on_code: list[Callable[[Code], None]] = field(default_factory=list)
    on_path: list[Callable[[Path | None, Path | None], None]] = field(default_factory=list)
    on_warning: list[Callable[[str], None]] = field(default_factory=list)


class Connection:
    """The conductor of one meeting, for one side of it.

    `opened` is done when the session may carry streams, `ended` when it is over, with its error or None.
    """

    def __init__(self, role: Role, options: Options, code: Code | None = None) -> None:
        self.role = role
        self.options = options
        self.observers = Observers()
        self.timing = Timing()
        self.words: tuple[str, ...] = ()
        self.code = code
        self._loop = asyncio.get_running_loop()
        self.code_ready: asyncio.Future[Code] = self._loop.create_future()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[CrowlineError | None] = self._loop.create_future()
        self.session = Session(initiator=role is Role.HOST)
        self._session_pump = Pump[LinkTransmit, SessionEvent](
            self.session, self._send_frames, self._on_session_event
        )
        self._identity = Identity.generate()
        self._agent = IceAgent(
            role is Role.JOIN,
            entropy=os.urandom,
            ta=TA,
            renominate=True,
            permits=self._may_check,
        )
        self._agent_pump = Pump[Transmit, IceEvent](self._agent, self._send_datagram, self._on_ice_event)
        self._hub: HubChannel | None = None
        self._gatherer: Gatherer | None = None
        self._links: LinkTable | None = None
        self._paths = PathBook(self.session, options.server)
        self._key: Secret | None = None
        self._budget = 0
        self._path: Path | None = None
        self._loopback = False
        self._addresses: list[str] = []
        self._watch: Watch | None = None
        self._farewell: asyncio.Event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.stream_events: dict[int, Callable[[SessionEvent], None]] = {}
        self.on_stream_opened: Callable[[int], None] = lambda _: None

    # Opening and closing ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the hub and begin; `code_ready`, `opened` and `ended` tell the rest."""
        connecting = asyncio.create_task(HubSocket.connect(self.options.server))
        try:
            await asyncio.sleep(0)
            # What would cost the meeting milliseconds later is done while the server is being reached.
            warm_up()
            socket = await connecting
        finally:
            connecting.cancel()
        self._loopback = socket.is_loopback
        self._addresses = local_addresses(loopback=self._loopback)
        self._gatherer = Gatherer(self, self._addresses, offer_host=not self.options.relay_only)
        meeting = Meeting(self.role, pake_factory=Spake2Pake, entropy=os.urandom, code=self.code)
        self._hub = HubChannel(
            socket,
            meeting,
            on_event=self._on_meeting_event,
            on_link_data=lambda data: self._receive(HUB_LINK, data),
            on_link_down=lambda reason: self._detach(HUB_LINK, reason),
            on_link_room=self.flush,
            on_closed=self._on_hub_closed,
        )
        self._hub.start()
        self._hub.signal(
            Description(
                ufrag=self._agent.ufrag,
                pwd=self._agent.pwd,
                fingerprint=self._identity.fingerprint.hex(),
                ta_ms=round(TA * 1000),
                renominate=True,
            )
        )
        self._gatherer.offer_hosts()
        if self.options.timeout is not None:
            self._loop.call_later(self.options.timeout, self._give_up_waiting)

    async def close(self, code: int = 0, sentence: str = "") -> None:
        """Tell the other side, wait a moment for it to hear, and release everything."""
        if not self.ended.done():
            self.session.close(code, sentence)
            if self._hub is not None and self._key is not None:
                self._hub.signal(Bye(code=code, sentence=sentence))
            self.flush()
            if self.session.chosen is not None:
                try:
                    async with asyncio.timeout(FAREWELL_LIMIT):
                        await self._farewell.wait()
                except TimeoutError:
                    pass
            self._end(None)
        await self._release()

    async def _release(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._session_pump.close()
        self._agent_pump.close()
        self._agent.close()
        if self._links is not None:
            self._links.close()
        if self._gatherer is not None:
            self._gatherer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._hub is not None:
            await self._hub.close()

    def _end(self, error: CrowlineError | None) -> None:
        """The meeting is over; everybody who waits hears of it."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        reason = error or CrowlineError("The connection was closed.")
        for future in (self.code_ready, self.opened):
            if not future.done():
                future.set_exception(reason)
                future.exception()
        for handler in list(self.stream_events.values()):
            handler(SessionBroken(reason.message))
        self._farewell.set()

    # What the other rooms say -----------------------------------------------------------------------

    def _on_meeting_event(self, event: MeetingEvent) -> None:
        if isinstance(event, Welcomed):
            self._on_welcome(event)
        elif isinstance(event, CodeReady):
            self.code = event.code
            if not self.code_ready.done():
                self.code_ready.set_result(event.code)
        elif isinstance(event, PeerPresent):
            self._on_present(event)
        elif isinstance(event, Keyed):
            self._on_key(event)
        elif isinstance(event, Signalled):
            self._on_signal(event.signal)
        elif isinstance(event, PeerLeft):
            self._on_left()
        elif isinstance(event, MeetingFailed):
            if self._key is None:
                self._end(event.error)
            else:
                self._on_hub_closed()

    def _on_welcome(self, event: Welcomed) -> None:
        self._budget = event.welcome.budget
        for line in event.welcome.motd.splitlines()[:3]:
            self._warn(line)
        self._spawn(self._query_stun([(each.host, each.port) for each in event.welcome.stun]))

    async def _query_stun(self, servers: list[tuple[str, int]]) -> None:
        assert self._hub is not None
        addresses = await resolve(servers, self._hub.socket.server_host)
        if self._gatherer is not None:
            self._gatherer.query_stun(addresses)

    async def _allocate(self, servers: list[tuple[str, int]], username: str, password: str) -> None:
        assert self._hub is not None
        addresses = await resolve(servers, self._hub.socket.server_host)
        if self._gatherer is not None:
            self._gatherer.allocate(addresses, username, password)

    def _on_present(self, event: PeerPresent) -> None:
        self.timing.present = self._loop.time()
        self._watch = Watch(
            is_stuck=self._is_stuck, direct_only=self.options.direct_only, on_verdict=self._fail
        )
        if event.turn is not None and not self.options.direct_only:
            grant = event.turn
            servers = [(each.host, each.port) for each in grant.servers]
            self._spawn(self._allocate(servers, grant.username, grant.password))

    def _on_key(self, event: Keyed) -> None:
        assert self._hub is not None
        self._key = event.key
        self.words = event.verifier
        if not self.options.direct_only:
            link = self._hub.open_link(self.role, event.key, self._budget)
            self._paths.add_hub()
            self._attach(HUB_LINK, link, _RANKS["hub"])

    def _on_signal(self, signal: Signal) -> None:
        now = self._loop.time()
        if isinstance(signal, Description):
            self._on_description(signal)
        elif isinstance(signal, CandidateSignal):
            candidate = from_signal(signal)
            if candidate is None or (self.options.relay_only and candidate.type is not CandidateType.RELAYED):
                return
            if self._gatherer is not None and self._may_check(candidate.address):
                self._gatherer.permit(candidate.address)
            self._agent.add_remote_candidate(candidate, now)
        elif isinstance(signal, EndOfCandidates):
            self._agent.end_of_remote_candidates(now)
        elif isinstance(signal, Bye):
            self._on_goodbye(signal.code, signal.sentence)
        self._agent_pump.flush()

    def _on_description(self, signal: Description) -> None:
        if self._links is not None or self._key is None:
            return
        secrets = LinkSecrets(
            self._identity, bytes.fromhex(signal.fingerprint), derive(self._key, "client-auth")
        )
        self._links = LinkTable(
            client=self.role is Role.JOIN,
            secrets=secrets,
            entropy=os.urandom,
            send=self._send_datagram,
            find_pair=self._find_pair,
            on_up=self._on_link_up,
            on_data=lambda link, data: self._receive(link.number, data),
            on_down=self._on_link_down,
        )
        self._agent.set_remote(signal.ufrag, signal.pwd, self._loop.time())

    def _on_ice_event(self, event: IceEvent) -> None:
        if self._links is None:
            return
        if isinstance(event, PairValid):
            if self._allows(event.pair):
                self._links.pair_valid(event.pair)
        elif isinstance(event, PairLost):
            self._links.pair_lost(event.pair.key, event.reason.value)

    def _on_link_up(self, link: PairLink) -> None:
        if self._gatherer is not None and link.category == "relay":
            self._gatherer.bind(link.pair.base, link.pair.remote.address)
        self._agent.use(link.pair, self._loop.time())
        self._agent_pump.flush()
        self._paths.add(link)
        self._attach(link.number, link, _RANKS[link.category] + link.pair.priority)

    def _on_link_down(self, link: PairLink, reason: str) -> None:
        self._agent.release(link.pair)
        if self._paths.remove(link.number):
            self._detach(link.number, reason)

    def _on_hub_closed(self) -> None:
        """The hub is gone; what does not need it goes on."""
        if self._key is None:
            self._end(ServerUnreachable("The server closed the connection.", hint="Try again in a moment."))
            return
        self._detach(HUB_LINK, "the connection to the server ended")

    def _on_left(self) -> None:
        """The other side's WebSocket is gone; its other links may live, which they must show now."""
        self._detach(HUB_LINK, "the other side left the server")
        if self._watch is not None:
            self._watch.left()
        self.session.ping(self._loop.time() + 1.0)
        self._session_pump.flush()

    def _on_goodbye(self, code: int, sentence: str) -> None:
        self._farewell.set()
        self._loop.call_later(0.2, self._end, error_for(code, sentence) if code else None)

    def _on_session_event(self, event: SessionEvent) -> None:
        if isinstance(event, LinkChosen):
            self._on_link_chosen(event)
        elif isinstance(event, StreamOpened):
            self.on_stream_opened(event.stream)
        elif isinstance(event, StreamReadable | StreamWritable | StreamReset):
            if handler := self.stream_events.get(event.stream):
                handler(event)
        elif isinstance(event, SessionClosed):
            self._on_goodbye(event.code, event.sentence)
        else:
            self._end(CrowlineError(f"The other side broke the protocol: {event.reason}."))

    # Paths ------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The path that carries the streams now."""
        return None if self.session.chosen is None else self._path

    @property
    def paths(self) -> PathBook:
        """Every path, and what each kind has carried."""
        return self._paths

    def _on_link_chosen(self, event: LinkChosen) -> None:
        was = self._path
        self._path = None if event.link is None else self._paths.describe(event.link, event.reason)
        if self._path is not None and self._path.is_direct and self.timing.direct is None:
            self.timing.direct = self._loop.time()
        for tell in self.observers.on_path:
            tell(self._path, was)

    def _allows(self, pair: ValidPair) -> bool:
        if self.options.direct_only:
            return pair.kind != "relay"
        return not self.options.relay_only or pair.kind == "relay"

    def _attach(self, number: int, carrier: Carrier, rank: int) -> None:
        self.session.attach(number, carrier, rank, self._loop.time())
        if not self.opened.done():
            self.timing.usable = self._loop.time()
            if self._watch is not None:
                self._watch.usable = True
            self.opened.set_result(None)
        self.flush()

    def _detach(self, number: int, reason: str) -> None:
        if number == HUB_LINK:
            self._paths.remove_hub()
        self.session.detach(number, self._loop.time(), reason)
        self.flush()

    def _find_pair(self, local: Address, remote: Address) -> ValidPair | None:
        found = (pair for pair in self._agent.valid_pairs() if pair.key == (local, remote))
        return next((pair for pair in found if self._allows(pair)), None)

    # Datagrams (the gatherer's owner) ---------------------------------------------------------------

    def on_candidate(self, candidate: Candidate) -> None:
        if self.options.relay_only and candidate.type is not CandidateType.RELAYED:
            return
        self._agent.add_local_candidate(candidate, self._loop.time())
        if self._hub is not None:
            self._hub.signal(to_signal(candidate, private=self.options.relay_only))
        self._agent_pump.flush()

    def on_gathered(self) -> None:
        if self.timing.present is None:
            return
        if self._hub is not None:
            self._hub.signal(EndOfCandidates())
        self._agent.end_of_local_candidates(self._loop.time())
        self._agent_pump.flush()

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None:
        self._agent.receive(data, source, self._loop.time(), local)
        self._agent_pump.flush()

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        if self._links is not None:
            self._links.packet(data, segment_size, source, local)

    def on_drained(self) -> None:
        self.flush()

    def _send_datagram(self, transmit: Transmit) -> None:
        if self._gatherer is not None:
            self._gatherer.send(transmit)

    # Pumping ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand on what arrived, then send what there is."""
        if self._links is not None:
            self._links.flush()
        self._session_pump.flush()
        if self._links is not None:
            self._links.flush()
        if self._hub is not None:
            self._hub.flush_link()

    def _receive(self, number: int, data: Buffer) -> None:
        now = self._loop.time()
        if self._watch is not None:
            self._watch.heard(now)
        self.session.receive(data, number, now)
        if number == HUB_LINK:
            self.flush()

    def _send_frames(self, transmit: LinkTransmit) -> None:
        now = self._loop.time()
        if transmit.link == HUB_LINK:
            if self._hub is not None and self._hub.link is not None:
                for part in transmit.data:
                    self._hub.link.send(part, now)
        elif link := self._paths.up.get(transmit.link):
            for part in transmit.data:
                link.send(part, now)

    # The end ----------------------------------------------------------------------------------------

    def _is_stuck(self) -> bool:
        """Whether nothing but an exhausted or forbidden link zero is left."""
        link = self._hub.link if self._hub is not None else None
        return not self._paths.up and (link is None or link.is_exhausted)

    def _fail(self, error: CrowlineError) -> None:
        """End with an error that the other side should hear too."""
        self.session.close(error.exit_code, error.message)
        if self._hub is not None and self._key is not None:
            self._hub.signal(Bye(code=error.exit_code, sentence=error.message))
        self.flush()
        self._end(error)

    def _give_up_waiting(self) -> None:
        if self.timing.present is None:
            self._end(NobodyCame(hint="Is the code still the one on the other screen?"))

    def _warn(self, text: str) -> None:
        for tell in self.observers.on_warning:
            tell(text)

    def _may_check(self, address: Address) -> bool:
        return may_be_checked(address, own=self._addresses, loopback=self._loopback)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _milliseconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000
