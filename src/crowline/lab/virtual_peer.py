"""One side of a meeting in a virtual internet: the machines of the product, composed as `api/` does it.

`api/connection.py` and `api/traversal/` say why each step is where it is; here the same steps run in virtual
time, with a PAKE that costs nothing and links that draw no randomness of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate
from crowline.ice.events import IceEvent, PairLost, PairNominated, PairReclassified, PairValid
from crowline.ice.pair import ValidPair
from crowline.lab.virtual import Internet
from crowline.lab.virtual_hub_channel import VirtualHubChannel
from crowline.lab.virtual_links import VirtualLink, VirtualLinks
from crowline.lab.virtual_mapped_ports import HOST_DELAY, JOINER_DELAY, VirtualMappedPorts
from crowline.lab.virtual_offers import VirtualOffers
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_punching import VirtualPunching
from crowline.lab.virtual_renewal import VirtualRenewal
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_sockets import VirtualSockets
from crowline.lab.virtual_tcp_ways import VirtualTcpWays
from crowline.link.choice import HUB_LINK, HUB_RANK, rank_of
from crowline.punch.punch_signals import PunchSignal
from crowline.rendezvous.candidates import REFRESH_INTERVAL, from_signal, may_be_checked
from crowline.rendezvous.code import Code
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import (
    CandidateFading,
    CandidateGone,
    CandidateSignal,
    Description,
    EndOfCandidates,
    Signal,
)
from crowline.session.events import LinkChosen, SessionEvent, StreamReadable
from crowline.session.links import Carrier, Hints, LinkTransmit
from crowline.session.session import Session

GREETING = b"hello"  # the application's first bytes, from the host and back
FINGERPRINT = "00" * 32  # stand-in links have no certificate


class VirtualPeer:
    """Begins at once. The times are those of the internet, ``None`` until it happened.

    `present`: the hub said that both are there; `usable`: bytes could be sent; `direct`: the first direct
    link was in use; `greeted`: the other side's first bytes were read.
    """

    def __init__(
        self,
        internet: Internet,
        site: VirtualSite,
        hub: Address,
        *,
        code: Code | None = None,
        on_code: Callable[[Code], None],
        on_progress: Callable[[], None],
    ) -> None:
        """The host, who gets a code and gives it to `on_code`, or with `code` the joining side.

        `on_progress` is called after each change of what can be read here.
        """
        self.role = Role.HOST if code is None else Role.JOIN
        self.present: float | None = None
        self.usable: float | None = None
        self.direct: float | None = None
        self.greeted: float | None = None
        self.failure = ""
        self.up: dict[int, VirtualLink] = {}
        self._internet = internet
        self._on_progress = on_progress
        self._addresses = list(site.addresses)
        self._has_proxy = site.proxy is not None
        self._key: Secret | None = None
        self._links: VirtualLinks | None = None
        entropy = internet.random.randbytes
        self._session = Session(initiator=self.role is Role.HOST)
        self._session_pump: VirtualPump[LinkTransmit, SessionEvent] = VirtualPump(
            internet, self._session, self._send_frames, self._on_event
        )
        self._agent = IceAgent(
            self.role is Role.JOIN, entropy=entropy, ta=MIN_TA, renominate=True, permits=self._may_check
        )
        self._agent_pump: VirtualPump[Transmit, IceEvent] = VirtualPump(
            internet, self._agent, self._send, self._on_ice_event
        )
        self._offers = VirtualOffers(
            internet, self._agent, searches=2, signal=self._signal, flush=self._agent_pump.flush
        )
        self._sockets = VirtualSockets(internet, site, self)
        self.punching = VirtualPunching(
            internet,
            site,
            self._sockets,
            self._agent,
            self._agent_pump,
            leads=self.role is Role.JOIN,
            signal=self._signal,
            vouch=lambda host: self._hub.vouch(host),
        )
        self._renewal = VirtualRenewal(
            internet,
            self._sockets,
            self._agent,
            self._offers.own,
            in_use=lambda: [] if self.link is None else [self.link.pair.base],
            signal=self._signal,
            on_fading=self._fade,
            on_retired=self._agent_pump.flush,
        )
        self._hub = VirtualHubChannel(internet, site, hub, self, code=code, on_code=on_code)
        self._tcp = VirtualTcpWays(
            internet, self._hub.tcp, self, self._agent, self._agent_pump, self._sockets.factory
        )
        self.mapped = VirtualMappedPorts(
            internet, site, self._hub.tcp, self._sockets.factory, on_candidate=self.on_candidate
        )
        ta, own = round(MIN_TA * 1000), self._agent
        self._signal(
            Description(own.ufrag, own.pwd, FINGERPRINT, ta, renominate=True, regains=True, punches=True)
        )
        self._sockets.offer_hosts()

    @property
    def chosen(self) -> int | None:
        """The number of the link that carries the streams; `HUB_LINK` is link zero."""
        return self._session.chosen

    @property
    def link(self) -> VirtualLink | None:
        """The link that carries the streams, where it is not link zero."""
        chosen = self._session.chosen
        return None if chosen is None else self.up.get(chosen)

    @property
    def reached_server_by_udp(self) -> bool:
        """Whether the server answered any datagram."""
        return self._sockets.was_answered

    # --- the hub (`virtual_hub_channel.HubOwner`) ---------------------------------------------------------

    def on_welcome(self, stun: Address) -> None:
        self._stun = stun
        self._refresh()
        if self.role is Role.HOST:
            self.punching.measure(stun)
            self.mapped.open_later(HOST_DELAY, self._map_ports)

    def on_present(self, turn: Address, username: str, password: str) -> None:
        self.present = self._internet.now
        self._on_progress()
        self._offers.meet()
        self.punching.measure(self._stun)
        # The proxy of a site leads to port 443 only, where TURN is not.
        self._sockets.allocate(turn, username, password, None if self._has_proxy else self._hub.tcp)

    def on_key(self, key: Secret) -> None:
        self._key = key
        assert self._hub.link_zero is not None
        self._attach(HUB_LINK, self._hub.link_zero, HUB_RANK, Hints(makeshift=True))

    def on_host_vouched(self, host: str) -> None:
        self._tcp.seen_at(host)
        self.punching.host_vouched(host)

    def on_link_zero_data(self, data: Buffer) -> None:
        self._session.receive(data, HUB_LINK, self._internet.now)

    def on_link_zero_down(self, reason: str) -> None:
        self._detach(HUB_LINK, reason)

    def on_link_zero_news(self) -> None:
        self._session_pump.flush()

    def on_failure(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._on_progress()

    def _signal(self, signal: Signal) -> None:
        self._hub.signal(signal)

    def on_signal(self, signal: Signal) -> None:
        now = self._internet.now
        if isinstance(signal, Description):
            self._on_description(signal)
        elif isinstance(signal, CandidateSignal):
            candidate = from_signal(signal)
            if candidate is None:
                return
            if self._may_check(candidate.address):
                self._sockets.permit(candidate.address)
            self._agent.add_remote_candidate(candidate, now)
        elif isinstance(signal, CandidateGone):
            transport = Transport(signal.transport)
            self._agent.remove_remote_candidate(Address(signal.host, signal.port), now, transport=transport)
        elif isinstance(signal, CandidateFading):
            self._fade(Address(signal.host, signal.port))
        elif isinstance(signal, EndOfCandidates):
            self._agent.end_of_remote_candidates(now)
        elif isinstance(signal, PunchSignal):
            self.punching.receive(signal)
        self._agent_pump.flush()

    def _on_description(self, signal: Description) -> None:
        assert self._key is not None
        internet = self._internet
        self._links = VirtualLinks(
            internet,
            is_client=self.role is Role.JOIN,
            key=derive(self._key, "client-auth"),
            send=self._send,
            valid_pairs=self._agent.valid_pairs,
            on_open=self._use,
            is_ailing=self._session.links.is_ailing,
            on_up=self._on_link_up,
            on_data=lambda link, data: self._session.receive(data, link.number, internet.now),
            on_down=self._on_link_down,
        )
        if signal.regains:
            self._agent.agree_to_regain()
        self._agent.set_remote(signal.ufrag, signal.pwd, self._internet.now)
        self._tcp.open(self._addresses, self._stun)
        if signal.punches:
            self.punching.meet()
        self.mapped.open_later(0.0 if self.role is Role.HOST else JOINER_DELAY, self._map_ports)

    # --- the sockets (`virtual_sockets.Datagrams`) --------------------------------------------------------

    def on_candidate(self, candidate: Candidate) -> None:
        if not self._renewal.is_renewed(candidate.sending_base):
            self._offers.add(candidate)

    def _refresh(self) -> None:
        """Ask for the mappings, and again as long as nobody is there."""
        if not self._offers.own.met:
            self._sockets.query_stun(self._stun)
            self._internet.call_at(self._internet.now + REFRESH_INTERVAL, self._refresh)

    def _map_ports(self) -> None:
        """Ask the site's gateway for what leads to the sockets, unless nothing better can come of it."""
        if self.direct is None:
            self.mapped.open(Transport.UDP, self._sockets.bases)
            self.mapped.open(Transport.TCP, self._tcp.bases)

    def on_gathered(self) -> None:
        self._offers.gathered()

    def on_stun(self, data: Buffer, source: Address, local: Address) -> None:
        self._agent.receive(data, source, self._internet.now, local)
        self._agent_pump.flush()

    def on_packet(self, data: Buffer, source: Address, local: Address) -> None:
        if self._links is not None:
            self._links.packet(data, source, local)
            self._session_pump.flush()

    def _send(self, transmit: Transmit) -> None:
        if not self._tcp.send(transmit) and not transmit.transport.is_stream:
            self._sockets.send(transmit)

    def _may_check(self, address: Address) -> bool:
        return may_be_checked(address, own=self._addresses, loopback=False)

    # --- pairs and links --------------------------------------------------------------------------------

    def _on_ice_event(self, event: IceEvent) -> None:
        self._tcp.on_event(event)
        if self._links is None:
            return
        if isinstance(event, PairNominated) and event.pair.transport.is_stream:
            self._tcp.nominate(event.pair)
            self._links.pair_valid(event.pair)
        elif isinstance(event, PairValid):
            self._links.pair_valid(event.pair)
        elif isinstance(event, PairReclassified):
            self._links.pair_reclassified(event.pair, self._session.rerank)
            self._session_pump.flush()
        elif isinstance(event, PairLost):
            self._links.pair_lost(event.pair.key, event.reason.value)
        if isinstance(event, PairValid | PairReclassified | PairLost):
            self.punching.look()

    def on_connection_lost(self, local: Address, remote: Address) -> None:
        if self._links is not None:
            self._links.pair_lost((local, remote), "the connection broke off")

    def _use(self, pair: ValidPair) -> None:
        if not pair.transport.is_stream:
            self._agent.use(pair, self._internet.now)
        self._sockets.bind(pair.base, pair.remote.address)
        self._agent_pump.flush()

    def _on_link_up(self, link: VirtualLink) -> None:
        self.up[link.number] = link
        is_fading = self._links is not None and self._links.is_fading(link.pair)
        hints = Hints(link.pair.priority, link.pair.rtt, is_fading=is_fading)
        self._attach(link.number, link, rank_of(link.pair), hints)

    def _on_link_down(self, link: VirtualLink, reason: str) -> None:
        self._agent.release(link.pair)
        self._tcp.end(link.pair)
        if self.up.pop(link.number, None) is not None:
            self._detach(link.number, reason)

    # --- sockets that are renewed -----------------------------------------------------------------------

    def on_seen(self, base: Address, address: Address) -> None:
        self._renewal.seen(base, address)
        self.mapped.saw(base, address.host)

    def _fade(self, end: Address) -> None:
        """What begins or ends there will not last."""
        if self._links is not None:
            for number in self._links.fade(end):
                self._session.links.fade(number)
            self._session_pump.flush()

    # --- the session ------------------------------------------------------------------------------------

    def _attach(self, number: int, carrier: Carrier, rank: int, hints: Hints) -> None:
        self._session.attach(number, carrier, rank, self._internet.now, hints)
        if self.usable is None:
            self.usable = self._internet.now
            if self.role is Role.HOST:
                self._session.write(self._session.open_stream(), GREETING)
        self._session_pump.flush()

    def _detach(self, number: int, reason: str) -> None:
        self._session.detach(number, self._internet.now, reason)
        self._session_pump.flush()

    def _send_frames(self, transmit: LinkTransmit) -> None:
        is_zero = transmit.link == HUB_LINK
        carrier: Carrier | None = self._hub.link_zero if is_zero else self.up.get(transmit.link)
        if carrier is not None:
            carrier.send(b"".join(transmit.data), self._internet.now)

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, LinkChosen) and self._links is not None:
            self._links.chosen(event.link)
            was = None if event.was is None else self.up.get(event.was)
            if was is not None and self._session.links.is_ailing(was.number):
                self._renewal.fell_silent(was.pair.base)
        self._on_session_event(event)

    def _on_session_event(self, event: SessionEvent) -> None:
        if isinstance(event, LinkChosen):
            link = self.up.get(event.link) if event.link is not None else None
            if link is not None and link.category == "direct" and self.direct is None:
                self.direct = self._internet.now
            self._on_progress()
        elif isinstance(event, StreamReadable) and self._session.read(event.stream, len(GREETING)):
            self.greeted = self._internet.now
            if self.role is Role.JOIN:
                self._session.write(event.stream, GREETING)
            self._on_progress()
