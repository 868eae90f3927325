"""Places of the world in virtual time: firewalls, IPv6, NAT64, layers, the proxy, lines and hops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from crowline.base.addresses import Address
from crowline.lab.behaviour import Hairpin
from crowline.lab.boundary import embedded
from crowline.lab.impairment import Impairment
from crowline.lab.network import Host, Packet
from crowline.lab.presets import HOME, PRESETS
from crowline.lab.profile import Firewall, Ipv6, Profile
from crowline.lab.virtual import CORE_HOPS, Internet
from crowline.lab.virtual_proxy import ESTABLISHED, REFUSED, VirtualProxy, connect_request
from crowline.lab.virtual_site import PROXY_PORT, VirtualSite, build_site
from crowline.lab.virtual_tcp import Connection, TcpHost

SERVER = "44.1.0.1"
SERVER_IPV6 = "2a01:100:0:1::1"


@dataclass
class Told:
    """What a connection told its owner."""

    opened: bool = False
    messages: list[bytes] = field(default_factory=list)
    closed: str = ""

    def on_open(self) -> None:
        self.opened = True

    def on_message(self, data: bytes) -> None:
        self.messages.append(data)

    def on_closed(self, reason: str) -> None:
        self.closed = reason


class World:
    """One site and a server with both families; datagrams by their receiver."""

    def __init__(self, profile: Profile | str) -> None:
        self.internet = Internet(1)
        self.site: VirtualSite = build_site(
            self.internet, PRESETS[profile] if isinstance(profile, str) else profile, 1
        )
        self.server = self.internet.host(SERVER)
        self.internet.add_address(self.server, SERVER_IPV6)
        self.got: dict[Address, list[tuple[bytes, Address]]] = {}
        self.accepted: list[Connection] = []

    def open(self, host: Host, address: Address) -> None:
        inbox = self.got[address] = []
        self.internet.listen(host, address, lambda packet: inbox.append((packet.data, packet.source)))

    def send(self, host: Host, source: Address, destination: Address, data: bytes = b"x") -> None:
        self.internet.launch(host, Packet.udp(source, destination, data))
        self.internet.run(limit=1.0)

    def seen_by_server(self, own: str, server: str = SERVER, *, named: str = "") -> Address | None:
        """The source that the server sees when the host sends it a datagram."""
        here, there = Address(own, 5000), Address(server, 3478)
        for host, address in ((self.site.host, here), (self.server, there)):
            if address not in self.got:
                self.open(host, address)
        self.send(self.site.host, here, Address(named or server, 3478))
        return self.got[there][-1][1] if self.got[there] else None

    def listen_tcp(self, port: int, address: str = SERVER) -> None:
        TcpHost(self.internet, self.server).listen(Address(address, port), self._accept)

    def _accept(self, connection: Connection) -> None:
        connection.stream = Told()
        self.accepted.append(connection)

    def connect(self, host: Host, own: str, target: Address) -> tuple[Told, Connection]:
        told = Told()
        connection = TcpHost(self.internet, host).connect(target, Address(own, 0), told)
        self.internet.run(limit=30.0)
        return told, connection


# --- translators ----------------------------------------------------------------------------------------


def test_a_public_host_is_seen_as_it_is() -> None:
    """No translator, no filter: also what nobody asked for arrives."""
    world = World("public")
    own = world.site.addresses[0]
    world.open(world.site.host, Address(own, 5000))
    world.send(world.server, Address(SERVER, 9), Address(own, 5000))
    assert world.got[Address(own, 5000)] == [(b"x", Address(SERVER, 9))]


@pytest.mark.parametrize(("name", "outside_port"), [("home", 5000), ("cgn", None), ("cgn-symmetric", None)])
def test_each_layer_translates(name: str, outside_port: int | None) -> None:
    """The server sees the outermost address; its answer comes back through every layer."""
    world = World(name)
    own = world.site.addresses[0]
    seen = world.seen_by_server(own)
    assert seen is not None and seen.host == "44.100.1.1"
    assert outside_port is None or seen.port == outside_port
    world.send(world.server, Address(SERVER, 3478), seen, b"answer")
    assert world.got[Address(own, 5000)] == [(b"answer", Address(SERVER, 3478))]


@pytest.mark.parametrize(
    ("hairpin", "source"),
    [(Hairpin.EXTERNAL_SOURCE, "44.100.1.1"), (Hairpin.INTERNAL_SOURCE, "192.168.1.10")],
)
def test_a_hairpin_shows_the_source_that_it_should(hairpin: Hairpin, source: str) -> None:
    """RFC 4787 REQ-9 and its violation, inside the site and without a way over the internet."""
    world = World(Profile("test", (replace(HOME, hairpin=hairpin),)))
    own = world.site.addresses[0]
    network = world.site.host.networks[own]
    neighbour = world.internet.host("192.168.1.77", network)
    near = Address("192.168.1.77", 6000)
    world.open(neighbour, near)
    world.internet.launch(neighbour, Packet.udp(near, Address("44.100.1.1", 5000), b"opens"))
    world.open(world.site.host, Address(own, 5000))
    world.send(world.site.host, Address(own, 5000), Address("44.100.1.1", 6000), b"in")
    assert [data for data, _ in world.got[near]] == [b"in"]
    assert world.got[near][0][1].host == source


# --- IPv6 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "let_in"), [(Ipv6.OPEN, True), (Ipv6.FIREWALLED, False)])
def test_unasked_ipv6_packets_pass_only_without_a_firewall(kind: Ipv6, let_in: bool) -> None:
    """The address is the host's own either way."""
    world = World(replace(PRESETS["home"], ipv6=kind))
    own = world.site.addresses[1]
    world.open(world.site.host, Address(own, 5000))
    world.send(world.server, Address(SERVER_IPV6, 9), Address(own, 5000))
    assert bool(world.got[Address(own, 5000)]) is let_in


def test_a_stateful_firewall_lets_answers_in_and_nothing_else() -> None:
    """Address and port-dependent (RFC 6092), for as long as the flow is young."""
    world = World("ipv6-home")
    own = world.site.addresses[1]
    assert world.seen_by_server(own, SERVER_IPV6) == Address(own, 5000)
    inside = Address(own, 5000)
    world.send(world.server, Address(SERVER_IPV6, 3478), inside, b"answer")
    world.send(world.server, Address(SERVER_IPV6, 3479), inside, b"another port")
    assert [data for data, _ in world.got[inside]] == [b"answer"]
    world.internet.call_at(world.internet.now + 121, lambda: None)
    world.internet.run(limit=130)
    world.send(world.server, Address(SERVER_IPV6, 3478), inside, b"too late")
    assert [data for data, _ in world.got[inside]] == [b"answer"]


def test_nat64_reaches_both_families() -> None:
    """IPv6 as it is; IPv4 through the well-known prefix, translated, and back."""
    world = World("nat64")
    (own,) = world.site.addresses
    assert ":" in own
    assert world.seen_by_server(own, SERVER_IPV6) == Address(own, 5000)
    named = embedded(Address(SERVER, 3478)).host
    assert named == "64:ff9b::2c01:1"
    seen = world.seen_by_server(own, named=named)
    assert seen is not None and seen.host == "44.100.1.1"
    world.send(world.server, Address(SERVER, 3478), seen, b"answer")
    assert world.got[Address(own, 5000)] == [(b"answer", Address(named, 3478))]
    world.send(world.server, Address(SERVER, 3479), Address(seen.host, seen.port + 1), b"no mapping")
    assert len(world.got[Address(own, 5000)]) == 1


# --- firewalls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [Ipv6.NONE, Ipv6.OPEN, Ipv6.FIREWALLED])
@pytest.mark.parametrize("firewall", [Firewall.UDP_BLOCKED, Firewall.HTTPS_ONLY, Firewall.PROXY_ONLY])
@pytest.mark.parametrize("nats", [(), (HOME,)], ids=["public", "home"])
def test_no_firewall_lets_udp_out_or_in(nats: tuple, firewall: Firewall, ipv6: Ipv6) -> None:
    """In both families, with a translator and without."""
    world = World(Profile("test", nats, ipv6=ipv6, firewall=firewall))
    for own in world.site.addresses:
        server = SERVER_IPV6 if ":" in own else SERVER
        assert world.seen_by_server(own, server) is None
        world.send(world.server, Address(server, 3478), Address(own, 5000))
        assert world.got[Address(own, 5000)] == []


@pytest.mark.parametrize(
    ("name", "port", "passes"),
    [
        ("udp-blocked", 443, True),
        ("udp-blocked", 8080, True),
        ("https-only", 443, True),
        ("https-only", 8080, False),
        ("proxy-only", 443, False),
    ],
)
def test_tcp_passes_as_the_firewall_says(name: str, port: int, passes: bool) -> None:
    """To any port, to 443 alone, or not at all but by the proxy."""
    world = World(name)
    world.listen_tcp(port)
    told, _ = world.connect(world.site.host, world.site.addresses[0], Address(SERVER, port))
    assert told.opened is passes


def test_the_proxy_connects_to_port_443_and_to_no_other() -> None:
    """CONNECT, then everything both ways; what it refuses it says."""
    world = World("proxy-only")
    world.listen_tcp(443)
    assert world.site.proxy is not None
    address = Address(next(iter(world.site.proxy.networks)), PROXY_PORT)
    VirtualProxy(world.internet, world.site.proxy, address)
    told, connection = world.connect(world.site.host, world.site.addresses[0], address)
    connection.send(connect_request(Address(SERVER, 443)))
    world.internet.run(limit=1.0)
    assert told.messages == [ESTABLISHED]
    connection.send(b"through")
    world.internet.run(limit=1.0)
    (server_end,) = world.accepted
    assert server_end.stream is not None and server_end.stream.messages == [b"through"]
    server_end.send(b"back")
    world.internet.run(limit=1.0)
    assert told.messages == [ESTABLISHED, b"back"]
    server_end.close()
    world.internet.run(limit=1.0)
    assert told.closed == "closed"
    refused, other = world.connect(world.site.host, world.site.addresses[0], address)
    other.send(connect_request(Address(SERVER, 22)))
    world.internet.run(limit=1.0)
    assert (refused.messages, refused.closed) == ([REFUSED], "closed")


# --- the way between ------------------------------------------------------------------------------------


def test_both_families_share_the_line_of_their_site() -> None:
    """What is set for the place holds for IPv4 and for IPv6, up and down."""
    world = World("ipv6-home")
    up, down = Impairment(delay=0.1), Impairment(delay=0.2)
    world.internet.set_line(world.site.place, up=up, down=down)
    world.internet.set_delay(world.site.place, world.server, 0.05)
    for own, server in zip(world.site.addresses, (SERVER, SERVER_IPV6), strict=True):
        times: list[float] = []
        inside, outside = Address(own, 5000), Address(server, 3478)
        world.internet.listen(world.site.host, inside, lambda packet, t=times: t.append(world.internet.now))
        world.internet.listen(
            world.server,
            outside,
            lambda packet, t=times, o=outside: (
                t.append(world.internet.now),
                world.internet.launch(world.server, Packet.udp(o, packet.source, b"")),
            ),
        )
        start = world.internet.now
        world.send(world.site.host, inside, outside)
        assert [time - start for time in times] == [pytest.approx(0.15), pytest.approx(0.4)]


def test_duplicates_are_packets_of_their_own() -> None:
    """Both copies are translated on their way in, and both arrive."""
    world = World("home")
    twice = Impairment(duplicate=1.0)
    world.internet.set_line(world.site.place, up=twice, down=twice)
    own = world.site.addresses[0]
    seen = world.seen_by_server(own)
    assert seen is not None and len(world.got[Address(SERVER, 3478)]) == 2
    world.send(world.server, Address(SERVER, 3478), seen, b"answer")
    assert world.got[Address(own, 5000)] == [(b"answer", Address(SERVER, 3478))] * 2


@pytest.mark.parametrize(("spare", "arrives"), [(0, False), (1, True)])
def test_a_packet_lives_as_many_hops_as_it_was_given(spare: int, arrives: bool) -> None:
    """One for each translator on either side, and those of the internet between."""
    internet = Internet(1)
    here, there = (build_site(internet, PRESETS["full-cone"], number) for number in (1, 2))
    ends = [Address(site.addresses[0], 5000) for site in (here, there)]
    got: list[Packet] = []
    internet.listen(there.host, ends[1], got.append)
    internet.launch(there.host, Packet.udp(ends[1], Address("44.100.1.1", 1), b"opens"))
    outside = Address("44.100.2.1", 5000)
    internet.launch(here.host, Packet.udp(ends[0], outside, b"", hops=1 + CORE_HOPS + 1 + spare))
    internet.run(limit=1.0)
    assert bool(got) is arrives
