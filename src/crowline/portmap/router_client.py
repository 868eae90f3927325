"""All that one router is asked for one local address: PCP, NAT-PMP and UPnP beside each other.

Every protocol is looked for at the same time. A port is asked for by PCP or NAT-PMP as soon as one of them is
spoken, and by UPnP where these have said no, are silent, or take too long. What is open by one protocol is
asked of no other; what two have opened all the same stays open by both, since routers keep one table and
closing one would close the other.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.portmap import events as mapping
from crowline.portmap.client import LIFETIME, PORT, MappingClient
from crowline.portmap.events import Dialect
from crowline.portmap.lease import Wanted
from crowline.portmap.router_events import (
    Closed,
    Lost,
    Opened,
    OutsideIs,
    PortsListed,
    Protocol,
    ProtocolFound,
    Refused,
    Renewed,
    RouterEvent,
    RouterSilent,
    Settled,
)
from crowline.portmap.router_port import PROTOCOL_NUMBERS, KnownRouter, OpenPort, RouterPort, Way
from crowline.portmap.schedule import Entropy
from crowline.portmap.upnp import events as upnp
from crowline.portmap.upnp.discovery import IsGateway
from crowline.portmap.upnp.events import HttpRequest
from crowline.portmap.upnp.router import UpnpAbsent, UpnpEvent, UpnpFound, UpnpRouter

# Seconds that PCP and NAT-PMP have for themselves: a router that speaks them answers within milliseconds.
HEAD_START = 0.5
# Seconds that UPnP is not looked for where another protocol is known to be spoken: it costs packets to all.
SEARCH_DELAY = 1.0

_MappingPortEvent: TypeAlias = (
    mapping.PortOpened | mapping.PortRenewed | mapping.PortLost | mapping.PortRefused | mapping.PortClosed
)
_DIALECTS = {Dialect.PCP: Protocol.PCP, Dialect.NAT_PMP: Protocol.NAT_PMP}


class RouterClient:
    """`host` is this machine's address towards the router at `gateway`; ports are opened for `lifetime`
    seconds at a time and renewed.

    Give it every datagram that comes from the router's port 5351, or that has to do with SSDP. Its HTTP
    requests are made from `host`. `is_gateway` is `Discovery`'s. `left` counts the ports that the router was
    to close and, as far as is known, has not.
    """

    def __init__(
        self,
        host: str,
        gateway: str,
        entropy: Entropy,
        now: float,
        *,
        lifetime: int = LIFETIME,
        known: KnownRouter | None = None,
        is_gateway: IsGateway | None = None,
    ) -> None:
        self.outside_host: str | None = None
        self.left = 0
        self.host = host
        self._lifetime = lifetime
        self._ports: dict[int, RouterPort] = {}
        self._numbers = 0
        self._opened_by: Protocol | None = known.protocol if known else None
        self._is_mapping_silent = False
        self._was_silent = self._has_settled = False
        self._is_closing = False
        self._is_upnp_closed = False
        self._upnp_words = ""
        self._events: deque[RouterEvent] = deque()
        self._mapping = MappingClient(host, gateway, entropy, now, lifetime=lifetime)
        is_other_known = self._opened_by not in (None, Protocol.UPNP)
        self._upnp = UpnpRouter(
            gateway,
            entropy,
            now,
            pinholes=":" in host,
            known=known.location if known else None,
            is_gateway=is_gateway,
            search_at=now + SEARCH_DELAY if is_other_known else now,
        )
        self._work(now)

    # --- the owner ------------------------------------------------------------------------------------------

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """What the router was found to speak, the better ones first."""
        found = [_DIALECTS[self._mapping.dialect]] if self._mapping.dialect else []
        return (*found, Protocol.UPNP) if self._upnp.is_found else tuple(found)

    @property
    def is_settled(self) -> bool:
        """Whether every protocol has been tried."""
        return (self._is_mapping_silent or self._mapping.dialect is not None) and self._upnp.is_settled

    @property
    def is_idle(self) -> bool:
        """Nothing is open or being closed."""
        return not self._ports and self._mapping.is_idle and (self._is_upnp_closed or not self._is_closing)

    @property
    def known(self) -> KnownRouter | None:
        """What is worth remembering of this router."""
        if self._opened_by is None:
            return None
        return KnownRouter(self._opened_by, self._upnp.location)

    @property
    def counters(self) -> Counter[str]:
        """What was dropped of what came."""
        return self._mapping.counters + self._upnp.counters

    def open(self, wanted: OpenPort, now: float) -> int:
        """Open a port and keep it open; the number that the events name it by.

        Raises `UsageError` for what was asked before, and for too many.
        """
        if self._is_closing:
            raise UsageError("This router's client opens nothing now.")
        protocol = PROTOCOL_NUMBERS[wanted.transport]
        asked = Wanted(protocol, wanted.inside_port, wanted.outside_port, nonce=wanted.nonce)
        number = self._mapping.open(asked, now)
        self._numbers += 1
        head_start = 0.0 if self._opened_by is Protocol.UPNP else HEAD_START
        port = RouterPort(self._numbers, wanted, now + head_start)
        port.mapping.number = number
        self._ports[port.number] = port
        self._work(now)
        self._check_silence(now)
        return port.number

    def is_being_closed(self, wanted: OpenPort) -> bool:
        """Whether that port was open, and its end is not told yet: it cannot be opened until then."""
        return any(port.is_closing and port.wanted.key == wanted.key for port in self._ports.values())

    def nonce_of(self, number: int) -> bytes:
        """PCP's nonce of that port, with which another client can take it up."""
        port = self._ports.get(number)
        key = port.mapping.number if port is not None else None
        return self._mapping.nonce_of(key) if key is not None else b""

    def list_ports(self, now: float) -> None:
        """Have UPnP say what is open, for whomever; `PortsListed` follows, where UPnP is spoken."""
        self._upnp.list_ports(now)
        self._work(now)

    def close(self, number: int, now: float) -> None:
        """Close a port again: `Closed` follows. A number that is closed already says nothing."""
        port = self._ports.get(number)
        if port is None or port.is_closing:
            return
        port.is_closing = True
        if port.upnp.number is not None:
            self._upnp.close(port.upnp.number, now)
        if port.mapping.number is not None:
            self._mapping.close(port.mapping.number, now)
        self._work(now)

    def close_all(self, now: float) -> None:
        """Close what is open; over when `is_idle`, within three seconds."""
        if self._is_closing:
            return
        self._is_closing = True
        for port in list(self._ports.values()):
            port.is_closing = True
        self._upnp.close_all(now)
        self._mapping.close_all(now)
        self._work(now)

    # --- the driver -----------------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if source.port == PORT:
            self._mapping.receive(data, source, now)
        else:
            self._upnp.receive(data, source, now)
        self._work(now)

    def next_request(self) -> HttpRequest | None:
        """The HTTP request to make now."""
        return self._upnp.next_request()

    def receive_answer(self, number: int, status: int, body: bytes, now: float) -> None:
        """Take the answer to the request of that number."""
        self._upnp.receive_answer(number, status, body, now)
        self._work(now)

    def receive_failure(self, number: int, now: float) -> None:
        """That request got no answer."""
        self._upnp.receive_failure(number, now)
        self._work(now)

    def handle_timeout(self, now: float) -> None:
        self._mapping.handle_timeout(now)
        self._upnp.handle_timeout(now)
        self._work(now)

    def next_timeout(self) -> float | None:
        times = [self._mapping.next_timeout(), self._upnp.next_timeout()]
        if self._upnp.is_found:
            times += [port.upnp_at for port in self._ports.values() if not port.is_closing]
        return min((time for time in times if time is not None), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._mapping.next_transmit() or self._upnp.next_transmit()

    def next_event(self) -> RouterEvent | None:
        return self._events.popleft() if self._events else None

    # --- what the protocols say -----------------------------------------------------------------------------

    def _work(self, now: float) -> None:
        """Take what both have to say until neither has, and ask UPnP for what is its turn."""
        is_busy = True
        while is_busy:
            is_busy = False
            while (said := self._mapping.next_event()) is not None:
                is_busy = True
                self._on_mapping(said, now)
            while (heard := self._upnp.next_event()) is not None:
                is_busy = True
                self._on_upnp(heard, now)
            for port in list(self._ports.values()):
                is_busy = self._ask_upnp(port, now) or is_busy
        if self.is_settled and not self._has_settled:
            self._has_settled = True
            self._events.append(Settled())

    def _ask_upnp(self, port: RouterPort, now: float) -> bool:
        """Whether it was its turn."""
        if port.upnp_at is None or not self._upnp.is_found or port.is_closing or self._is_closing:
            return False
        is_turn = self._is_mapping_silent or port.mapping.words or port.upnp_at <= now
        if not is_turn or port.mapping.opened is not None:
            if port.upnp_at <= now:
                port.upnp_at = None
            return False
        port.upnp_at = None
        port.upnp.number = self._upnp.open(port.wanted.for_upnp(self.host, self._lifetime), now)
        return True

    def _on_mapping(self, event: mapping.PortMapEvent, now: float) -> None:
        if isinstance(event, mapping.GatewayFound):
            self._is_mapping_silent = False
            self._found(_DIALECTS[event.dialect])
        elif isinstance(event, mapping.GatewaySilent):
            self._is_mapping_silent = True
            self._upnp.search(now)
            self._check_silence(now)
        elif isinstance(event, mapping.OutsideHost):
            self._outside_is(event.host)
        else:
            self._on_mapping_port(event, now)

    def _on_mapping_port(self, event: _MappingPortEvent, now: float) -> None:
        port = self._port_by(lambda each: each.mapping.number == event.number)
        if port is None:
            return
        if isinstance(event, mapping.PortOpened) and self._mapping.dialect is not None:
            protocol = _DIALECTS[self._mapping.dialect]
            outside = event.outside
            port.mapping.words = ""
            port.mapping.opened = Opened(port.number, outside.port, outside, event.lifetime, protocol)
            self._tell(port)
        elif isinstance(event, mapping.PortRenewed) and port.told == port.mapping.opened:
            self._events.append(Renewed(port.number, event.lifetime))
        elif isinstance(event, mapping.PortLost):
            self._lose(port, port.mapping, event.reason.words, now)
        elif isinstance(event, mapping.PortRefused):
            self._refuse(port, port.mapping, event.reason.words, now)
        elif isinstance(event, mapping.PortClosed):
            self.left += port.mapping.opened is not None and not event.confirmed
            port.mapping.number = None
            self._closed(port, confirmed=event.confirmed)

    def _on_upnp(self, event: UpnpEvent, now: float) -> None:
        if isinstance(event, UpnpFound):
            self._found(Protocol.UPNP)
        elif isinstance(event, UpnpAbsent):
            self._upnp_words = event.words
            self._check_silence(now)
        elif isinstance(event, upnp.OutsideAddress):
            if self._mapping.dialect is None:
                self._outside_is(event.host)
        elif isinstance(event, upnp.Listed):
            self._events.append(PortsListed(event.ports))
        elif isinstance(event, upnp.Closed):
            self._is_upnp_closed = True
            self.left += event.left
        else:
            self._on_upnp_port(event, now)

    def _on_upnp_port(self, event: upnp.Mapped | upnp.MapFailed, now: float) -> None:
        port = self._port_by(lambda each: each.upnp.number == event.key)
        if port is None:
            return
        if isinstance(event, upnp.Mapped):
            lifetime = float(event.lease) if event.lease else float("inf")
            port.upnp.words = ""
            port.upnp.opened = Opened(port.number, event.port, event.outside, lifetime, Protocol.UPNP)
            self._tell(port)
        elif event.was_open:
            self._lose(port, port.upnp, event.words, now)
        else:
            self._refuse(port, port.upnp, event.words, now)

    # --- what the owner is told -----------------------------------------------------------------------------

    def _found(self, protocol: Protocol) -> None:
        self._was_silent = False
        self._events.append(ProtocolFound(protocol))

    def _check_silence(self, now: float) -> None:
        """Say once that nothing is spoken, when that is known of every protocol."""
        if self.is_settled and not self.protocols:
            if not self._was_silent:
                self._was_silent = True
                self._events.append(RouterSilent())
            for port in list(self._ports.values()):
                if not port.mapping.words:
                    self._refuse(port, port.mapping, "the router opens no ports by any protocol", now)
        elif self.is_settled:
            for port in list(self._ports.values()):
                self._tell(port)

    def _outside_is(self, host: str | None) -> None:
        if host != self.outside_host:
            self.outside_host = host
            self._events.append(OutsideIs(host))

    def _lose(self, port: RouterPort, way: Way, words: str, now: float) -> None:
        way.opened = None
        if way is port.mapping and port.upnp.number is None:
            port.upnp_at = now + HEAD_START
        if port.told is not None and port.opened is None and not port.is_closing:
            port.told = None
            self._events.append(Lost(port.number, words))
        else:
            self._tell(port)

    def _refuse(self, port: RouterPort, way: Way, words: str, now: float) -> None:
        """One way is closed; the owner hears of it when the other one is too."""
        way.words = words
        if way is port.mapping and port.upnp.number is None and port.upnp_at is None:
            port.upnp_at = now
        self._tell(port)

    def _tell(self, port: RouterPort) -> None:
        """Say where it is open, or that it is to be had by no protocol, unless that is known."""
        if port.is_closing:
            return
        opened = port.opened
        if opened is not None:
            if opened != port.told:
                port.told, port.told_words = opened, ""
                self._opened_by = opened.protocol
                self._events.append(opened)
            return
        words = self._refusal(port)
        if words and words != port.told_words:
            port.told_words = words
            self._events.append(Refused(port.number, words))

    def _refusal(self, port: RouterPort) -> str:
        """Why there is no hope for now; empty while there is some."""
        mapping_words = port.mapping.words
        upnp_words = port.upnp.words if self._upnp.is_found else self._upnp_words
        if not mapping_words and not self._is_mapping_silent:
            return ""
        if not upnp_words or not self._upnp.is_settled:
            return ""
        return upnp_words if self._upnp.is_found else mapping_words or upnp_words

    def _closed(self, port: RouterPort, *, confirmed: bool) -> None:
        if self._ports.pop(port.number, None) is not None:
            self._events.append(Closed(port.number, confirmed))

    def _port_by(self, is_meant: Callable[[RouterPort], bool]) -> RouterPort | None:
        return next((port for port in self._ports.values() if is_meant(port)), None)
