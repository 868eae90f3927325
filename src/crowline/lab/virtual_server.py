"""The Crowline server in a virtual internet: the real hub, STUN and TURN machines on one host."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.lab.address_plan import server_addresses
from crowline.lab.boundary import HTTPS
from crowline.lab.clock import Timer
from crowline.lab.network import Host
from crowline.lab.virtual import Internet, Node
from crowline.lab.virtual_tcp import Connection, TcpHost
from crowline.rendezvous.hub import Hub
from crowline.rendezvous.wire import ServerAddress, TurnGrant
from crowline.stun.attributes import FAMILY_IPV6
from crowline.stun.message import Method
from crowline.stun.responder import Alternates, Responder, bare_answer
from crowline.turn.auth import Authenticator, issue_credentials
from crowline.turn.framing import StreamFramer
from crowline.turn.server import TurnServer

STUN_PORT = 3478
STUN_PORTS = (STUN_PORT, STUN_PORT + 1)
"""The server of the product has RFC 5780's second port, whether or not it has a second address."""
RELAY_PORTS = (49152, 65535)  # RFC 8656 §7.2: the dynamic ports
GRANT_LIFETIME = 3600  # seconds, as the server of the product grants them
TEXT, BINARY = b"t", b"b"
"""The first byte of a message on a virtual WebSocket."""


class VirtualServer:
    """Hub on TCP port 443, STUN and TURN on ports 3478 and 3479 (by TCP too), on IPv4 and on IPv6.

    With `alternates` it has a second IPv4 address, and does RFC 5780 as `serve --alternate-address` does.
    """

    def __init__(self, internet: Internet, *, alternates: bool = True) -> None:
        self.ipv4, other, self.ipv6, _ = server_addresses(1, 2)
        self.host = internet.host(self.ipv4)
        internet.add_address(self.host, self.ipv6)
        if alternates:
            internet.add_address(self.host, other)
        self._internet = internet
        entropy = internet.random.randbytes
        self._secret = Secret(entropy(32))
        # An empty host says: where the hub is.
        self._services = (ServerAddress("", STUN_PORT),)
        self.hub = Hub(entropy=entropy, grant=self._grant, stun=self._services)
        self._front = StunTurn(internet, self.host, self._secret, self.hub.permits, entropy)
        self._readers: dict[int, Connection] = {}
        self._timer: Timer | None = None
        tcp = TcpHost(internet, self.host)
        for host in (self.ipv4, self.ipv6):
            tcp.listen(Address(host, HTTPS), self._accept)
        for address in self._front.addresses:
            tcp.listen(address, self._front.accept)

    def address_for(self, own_hosts: tuple[str, ...]) -> Address:
        """Where a client with those addresses reaches the hub: by IPv4 if it can, as its name has both."""
        has_ipv4 = any(":" not in host for host in own_hosts)
        return Address(self.ipv4 if has_ipv4 else self.ipv6, HTTPS)

    def _grant(self, user: str) -> TurnGrant:
        username, password = issue_credentials(self._secret, user, int(self._internet.now) + GRANT_LIFETIME)
        return TurnGrant(self._services, username, password, GRANT_LIFETIME)

    def _accept(self, connection: Connection) -> None:
        number = len(self._readers) + 1
        self._readers[number] = connection
        connection.stream = _HubStream(self, number, connection)

    def connected(self, number: int, source: Address) -> None:
        self.hub.connect(number, source, self._internet.now)
        self.flush()

    def received(self, number: int, data: bytes) -> None:
        kind, message = data[:1], data[1:]
        if kind == TEXT:
            self.hub.receive(number, message, self._internet.now)
        else:
            self.hub.receive_binary(number, message, self._internet.now)
        self.flush()

    def disconnected(self, number: int, *, is_clean: bool) -> None:
        self.hub.disconnect(number, self._internet.now, is_clean=is_clean)
        self.flush()

    def flush(self) -> None:
        """Pass on what the hub has to say, and note when it wants to be woken."""
        while (delivery := self.hub.next_transmit()) is not None:
            reader = self._readers[delivery.connection]
            if delivery.close is not None:
                reader.close()
            else:
                reader.send((BINARY if delivery.is_binary else TEXT) + bytes(delivery.data))
        at = self.hub.next_timeout()
        if self._timer is not None:
            if self._timer.time == at:
                return
            self._timer.cancel()
        self._timer = None if at is None else self._internet.call_at(at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.hub.handle_timeout(self._internet.now)
        self.flush()


class _HubStream:
    """One WebSocket at the hub. Its upgrade costs no round trip here: the hub speaks first."""

    def __init__(self, server: VirtualServer, number: int, connection: Connection) -> None:
        self._server = server
        self._number = number
        self._connection = connection

    def on_open(self) -> None:
        self._server.connected(self._number, self._connection.remote)

    def on_message(self, data: bytes) -> None:
        self._server.received(self._number, data)

    def on_closed(self, reason: str) -> None:
        self._server.disconnected(self._number, is_clean=reason == "closed")


class StunTurn:
    """STUN and TURN as one machine, with relayed addresses on the same host."""

    def __init__(
        self,
        internet: Internet,
        host: Host,
        secret: Secret,
        permits: Callable[[str, Address], bool],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._internet = internet
        self._host = host
        self._entropy = entropy
        self._node: Node = internet.attach(self)
        self.addresses = [Address(each, port) for each in host.networks for port in STUN_PORTS]
        self._responder = Responder(_alternates(host))
        self._relayed: set[Address] = set()
        self._streams: dict[tuple[Address, Address], Connection] = {}
        self._turn = TurnServer(
            Authenticator(secret, entropy=entropy, epoch=0.0),
            self,
            permits=permits,
            policy=AddressPolicy(),
            entropy=entropy,
        )
        for address in self.addresses:
            internet.bind(self._node, host, address)

    def accept(self, connection: Connection) -> None:
        """A client that comes by TCP."""
        self._streams[connection.remote, connection.local] = connection
        connection.stream = _TurnStream(self, connection)

    def from_stream(self, message: bytes, connection: Connection) -> None:
        if int.from_bytes(message[:2], "big") == Method.BINDING:
            connection.send(bare_answer(message[8:20], connection.remote))
            return
        local, now = connection.local, self._internet.now
        self._turn.receive(message, connection.remote, now, local, None, Transport.TCP)
        self._internet.poke(self._node)

    def stream_ended(self, connection: Connection) -> None:
        self._streams.pop((connection.remote, connection.local), None)
        self._turn.disconnect(connection.remote, connection.local, Transport.TCP, self._internet.now)
        self._internet.poke(self._node)

    # --- the five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if local in self._relayed and local is not None:
            self._turn.receive_from_peer(data, source, now, local)
        elif int.from_bytes(data[:2], "big") == Method.BINDING:
            self._responder.receive(data, source, now, local)
        else:
            self._turn.receive(data, source, now, local)

    def handle_timeout(self, now: float) -> None:
        self._turn.handle_timeout(now)

    def next_timeout(self) -> float | None:
        return self._turn.next_timeout()

    def next_transmit(self) -> Transmit | None:
        """The next datagram; what goes to streams is written at once."""
        while transmit := self._responder.next_transmit() or self._turn.next_transmit():
            if not transmit.transport.is_stream or transmit.local is None:
                return transmit
            stream = self._streams.get((transmit.destination, transmit.local))
            if stream is not None:
                stream.send(bytes(transmit.data))
        return None

    def next_event(self) -> None:
        return None

    # --- relayed addresses (`turn.ports.RelayPorts`) ---------------------------------------------------

    @property
    def can_set_dont_fragment(self) -> bool:
        return False

    def open(
        self,
        family: int,
        local: Address | None,
        *,
        even: bool = False,
        reserve: bool = False,
        transport: Transport = Transport.UDP,
    ) -> Address | None:
        """Clients come by UDP here, so that nobody can ask for a TCP address."""
        host = self._of_family(family)
        if host is None:
            return None
        low, high = RELAY_PORTS
        while True:
            port = low + int.from_bytes(self._entropy(2), "big") % (high - low + 1)
            wanted = [Address(host, port), Address(host, port + 1)] if reserve else [Address(host, port)]
            if self._relayed.isdisjoint(wanted) and not (even and port % 2):
                self._relayed.update(wanted)
                for relayed in wanted:
                    self._internet.bind(self._node, self._host, relayed)
                return wanted[0]

    def close(self, relayed: Address, transport: Transport = Transport.UDP) -> None:
        self._relayed.discard(relayed)
        self._host.sockets.pop(relayed, None)

    def has_family(self, family: int, local: Address | None) -> bool:
        return self._of_family(family) is not None

    def is_relay_host(self, host: str) -> bool:
        return host in self._host.networks

    def is_own_host(self, host: str) -> bool:
        return host in self._host.networks

    def _of_family(self, family: int) -> str | None:
        wants_ipv6 = family == FAMILY_IPV6
        return next((host for host in self._host.networks if (":" in host) == wants_ipv6), None)


def _alternates(host: Host) -> Alternates | None:
    """The four addresses of RFC 5780, where there are four: in IPv4."""
    hosts = [each for each in host.networks if ":" not in each]
    if len(hosts) < 2:
        return None
    return Alternates(Address(hosts[0], STUN_PORTS[0]), Address(hosts[1], STUN_PORTS[1]))


class _TurnStream:
    """A client's TCP connection, cut into messages."""

    def __init__(self, front: StunTurn, connection: Connection) -> None:
        self._front = front
        self._connection = connection
        self._framer = StreamFramer()

    def on_open(self) -> None:
        """The client speaks first."""

    def on_message(self, data: bytes) -> None:
        self._framer.feed(data)
        while (message := self._framer.next_message()) is not None:
            self._front.from_stream(message, self._connection)

    def on_closed(self, reason: str) -> None:
        self._front.stream_ended(self._connection)
