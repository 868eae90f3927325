"""The ports that a virtual peer has its gateway open: `net/router.py` without sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.lab.network import Host, Packet
from crowline.lab.upnp_device import SSDP_PORT
from crowline.lab.upnp_http import HttpAsked, read_reply
from crowline.lab.virtual import Internet
from crowline.lab.virtual_gateway import VirtualGateway
from crowline.lab.virtual_ports import free_address
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_tcp import Connection, TcpHost
from crowline.portmap.router_client import RouterClient
from crowline.portmap.router_events import Lost, Opened, RouterEvent
from crowline.portmap.router_port import OpenPort
from crowline.portmap.upnp.events import HttpRequest

_GROUPS = ("239.255.255.250", "ff02::c")  # of gateways that are searched for


@dataclass(frozen=True, slots=True)
class MappedPort:
    """`port` of the gateway leads to `base`. `outside` is where everybody reaches it, if the gateway knows:
    an address that only a carrier's network can reach is none."""

    transport: Transport
    base: Address
    port: int
    outside: Address | None


class VirtualPortMapping:
    """Asks the site's gateway, if it has one that opens ports; otherwise nothing happens.

    `on_mapped` is told what is open, and anew when something of that has changed; `on_lost` what is no more.
    """

    def __init__(
        self,
        internet: Internet,
        site: VirtualSite,
        tcp: TcpHost,
        *,
        on_mapped: Callable[[MappedPort], None],
        on_lost: Callable[[MappedPort], None],
    ) -> None:
        self.events: list[RouterEvent] = []
        self._router: _Router | None = None
        self._wanted: dict[int, tuple[Transport, Address]] = {}
        self._opened: dict[int, MappedPort] = {}
        self._on_mapped, self._on_lost = on_mapped, on_lost
        self._internet, self._site, self._tcp = internet, site, tcp

    @property
    def client(self) -> RouterClient | None:
        """What speaks with the gateway, from the first port on."""
        return None if self._router is None else self._router.client

    def opened(self) -> list[MappedPort]:
        """What is open now."""
        return list(self._opened.values())

    def open(self, transport: Transport, base: Address) -> None:
        """Have the port of `base` opened, and kept open."""
        gateway = self._site.router
        if gateway is None or base.is_ipv6 != (":" in gateway.host):
            return
        if self._router is None:
            self._router = _Router(
                self._internet, self._site.host, base.host, gateway, self._tcp, self._on_event
            )
        number = self._router.client.open(OpenPort(transport, base.port), self._internet.now)
        self._wanted[number] = transport, base
        self._router.flush()

    def close(self) -> None:
        """Have everything closed."""
        if self._router is not None:
            self._router.client.close_all(self._internet.now)
            self._router.flush()

    def _on_event(self, event: RouterEvent) -> None:
        self.events.append(event)
        if isinstance(event, Opened):
            outside = event.outside
            if outside is not None and classify(outside.host) is not AddressClass.OPEN:
                outside = None
            opened = MappedPort(*self._wanted[event.number], event.port, outside)
            if self._opened.get(event.number) != opened:
                self._opened[event.number] = opened
                self._on_mapped(opened)
        elif isinstance(event, Lost) and (lost := self._opened.pop(event.number, None)) is not None:
            self._on_lost(lost)


class _Router:
    """The client of a gateway with its socket, its HTTP requests and its pump."""

    def __init__(
        self,
        internet: Internet,
        place: Host,
        host: str,
        gateway: VirtualGateway,
        tcp: TcpHost,
        on_event: Callable[[RouterEvent], None],
    ) -> None:
        self.client = RouterClient(host, gateway.host, internet.random.randbytes, internet.now)
        self._internet = internet
        self._tcp = tcp
        self._place = place
        self._gateway = gateway
        self._local = free_address(internet, place, host)
        self._pump: VirtualPump[Transmit | HttpRequest, RouterEvent] = VirtualPump(
            internet, _Asking(self.client), self._send, on_event
        )
        internet.listen(self._place, self._local, self._received)

    def flush(self) -> None:
        self._pump.flush()

    def answered(self, number: int, answer: tuple[int, bytes] | None) -> None:
        """The answer to a request, or that there is none."""
        if answer is None:
            self.client.receive_failure(number, self._internet.now)
        else:
            self.client.receive_answer(number, *answer, self._internet.now)
        self.flush()

    def _send(self, asked: Transmit | HttpRequest) -> None:
        if isinstance(asked, HttpRequest):
            _Fetch(self, self._tcp, asked, self._local.host)
            return
        destination = asked.destination
        if destination.host in _GROUPS:
            destination = Address(self._gateway.host, SSDP_PORT)
        self._internet.launch(self._place, Packet.udp(self._local, destination, bytes(asked.data)))

    def _received(self, packet: Packet) -> None:
        self.client.receive(packet.data, packet.source, self._internet.now, packet.destination)
        self.flush()


class _Asking:
    """The client as a pump wants it: its HTTP requests are among what it sends."""

    def __init__(self, client: RouterClient) -> None:
        self._client = client

    def handle_timeout(self, now: float) -> None:
        self._client.handle_timeout(now)

    def next_timeout(self) -> float | None:
        return self._client.next_timeout()

    def next_transmit(self) -> Transmit | HttpRequest | None:
        return self._client.next_transmit() or self._client.next_request()

    def next_event(self) -> RouterEvent | None:
        return self._client.next_event()


class _Fetch:
    """One request on a connection of its own."""

    def __init__(self, router: _Router, tcp: TcpHost, request: HttpRequest, host: str) -> None:
        self._router = router
        self._request = request
        self._is_over = False
        headers = dict(request.headers)
        asked = HttpAsked(request.method, request.url.target, headers, request.body)
        self.connection: Connection = tcp.connect(request.url.address, Address(host, 0), self)
        self.connection.send(asked.encode(str(request.url.address)))

    def on_open(self) -> None:
        """The request waits in the connection, and leaves by itself."""

    def on_message(self, data: bytes) -> None:
        reply = read_reply(data)
        self._end(None if reply is None else (reply[0], reply[1][: self._request.limit]))

    def on_closed(self, reason: str) -> None:
        self._end(None)

    def _end(self, answer: tuple[int, bytes] | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._router.answered(self._request.number, answer)
