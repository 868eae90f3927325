"""Attacks on the peers of TURN clients, rows P: open relays, port scans and loops."""

from __future__ import annotations

import ipaddress

import pytest

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import UsageError
from crowline.server.settings import Settings, build
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from crowline.turn.quota import DIAL_BURST, Limits
from turn_attackers import WAYS, allocated, foothold, try_peer
from turn_pair import (
    CLIENT,
    OTHER_CLIENT,
    OWN_ASIDE,
    PEER,
    RELAY_HOST,
    SERVER,
    Caller,
    FakePorts,
    World,
    dual_ports,
    error_code,
)

LOOPBACK = ["127.0.0.1", "127.255.255.254", "0.0.0.0"]
METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"]
PRIVATE = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "198.18.0.1"]
NEVER = ["224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "0.1.2.3", "192.88.99.1"]
IPV6_FORMS = [
    "::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "2002:7f00:1::", "2001:0:53aa:64c::1",
    "fe80::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2a01:4f8::5efe:127.0.0.1", "5f00::1", "3fff::1",
]  # fmt: skip
EVERYTHING = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", LOOPBACK + METADATA + PRIVATE + NEVER)
def test_p1_p2_p3_p4_closed_ipv4_peers_are_403(host: str, way: str) -> None:
    """Loopback, metadata, private, multicast, broadcast, reserved: 403, and silence for Send."""
    assert try_peer(foothold(way), way, Address(host, 80)) == 403


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", IPV6_FORMS)
def test_p1_p2_p3_p4_p5_closed_ipv6_peers_are_403(host: str, way: str) -> None:
    """Every IPv6 spelling of them on an IPv6 allocation, Teredo and 6to4 among them."""
    caller = foothold(way, World(ports=dual_ports()), family=a.FAMILY_IPV6)
    assert try_peer(caller, way, Address(str(ipaddress.ip_address(host)), 80)) == 403


@pytest.mark.parametrize("way", ["permission", "channel", "connect"])
@pytest.mark.parametrize("host", IPV6_FORMS)
def test_p_ipv6_peers_of_an_ipv4_allocation_are_443(host: str, way: str) -> None:
    """On an IPv4 allocation every IPv6 form is the wrong family, the mapped ones too."""
    assert try_peer(foothold(way), way, Address(host, 80)) == 443


@pytest.mark.parametrize("way", ["permission", "channel", "connect"])
@pytest.mark.parametrize("host", LOOPBACK + METADATA + NEVER)
def test_p2_p4_no_wide_rule_opens_what_is_never(host: str, way: str) -> None:
    """With every range allowed, loopback, metadata, multicast and reserved addresses are still 403."""
    world = World(policy=AddressPolicy(EVERYTHING))
    assert try_peer(foothold(way, world), way, Address(host, 80)) == 403


@pytest.mark.parametrize("way", ["permission", "channel", "connect"])
def test_p3_a_named_range_opens_itself_only(way: str) -> None:
    """An allowed private range is relayed to, its neighbour is not."""
    world = World(policy=AddressPolicy([ipaddress.ip_network("192.168.1.0/24")]))
    caller = foothold(way, world)
    assert try_peer(caller, way, Address("192.168.2.1", 80)) == 403
    assert try_peer(caller, way, Address("192.168.1.1", 80)) == 0


@pytest.mark.parametrize("host", ["2001:0:53aa:64c::1", "2002:2c01:101::1"])
def test_p5_teredo_and_6to4_clients_are_refused(host: str) -> None:
    """RFC 8656 §21.4: no answer to clients that come by a tunnel."""
    transport = (a.RequestedTransport(17),)
    request = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, transport).encode()
    assert Caller(World(), Address(host, 4000)).send_raw(request) is None


@pytest.mark.parametrize("way", WAYS)
def test_p6_own_sockets_are_out_of_reach(way: str) -> None:
    """The server's other addresses are 403; on its relay address only live relays are reached."""
    caller = foothold(way)
    assert try_peer(caller, way, Address(OWN_ASIDE, 9100)) == 403
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(Address(RELAY_HOST, 1)))
    if way != "permission":
        assert try_peer(caller, way, Address(RELAY_HOST, 8080)) == 403


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", LOOPBACK)
def test_p1_loopback_is_no_relay_address_of_strangers(host: str, way: str) -> None:
    """Behind a wildcard every address of the machine may be a relay's, and loopback still is 403."""
    world = World()
    world.ports.relay_hosts |= set(LOOPBACK)
    assert try_peer(foothold(way, world), way, Address(host, 80)) == 403


@pytest.mark.parametrize("listen", ["0.0.0.0", "127.0.0.1"])
def test_p1_clients_of_this_machine_meet_on_loopback(listen: str) -> None:
    """Who has a relayed address there may talk to another one there, and to no other loopback address."""
    world = World()
    world.ports.relay_hosts |= {listen, "127.0.0.1"}
    world.ports.free = [Address("127.0.0.1", 50_001), Address("127.0.0.1", 50_002)]
    caller = allocated(world)
    allocated(world, OTHER_CLIENT, "other")
    assert try_peer(caller, "channel", world.ports.opened[1]) == 0
    assert try_peer(caller, "permission", Address("0.0.0.0", 80)) == 403


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [OWN_ASIDE, RELAY_HOST])
@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"])
def test_p6_own_sockets_are_out_of_reach_in_ipv6_spelling(prefix: str, host: str, way: str) -> None:
    """Our IPv4 addresses inside IPv6 ones are ours too, the relay address among them."""
    caller = foothold(way, World(ports=dual_ports()), family=a.FAMILY_IPV6)
    spelled = str(ipaddress.ip_address(prefix + host))
    assert try_peer(caller, way, Address(spelled, 8080)) == 403


@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"])
def test_p6_other_addresses_in_ipv6_spelling_are_peers(prefix: str) -> None:
    """The control of the test before: it is the address inside that is refused, not the spelling."""
    caller = foothold("permission", World(ports=dual_ports()), family=a.FAMILY_IPV6)
    assert try_peer(caller, "permission", Address(str(ipaddress.ip_address(prefix + PEER.host)), 80)) == 0


def test_p6_relay_to_relay_is_allowed() -> None:
    """Another client's relayed address is a legitimate peer, whatever policy and hub say."""
    world = World(permits=lambda user, peer: False)
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    peer = world.ports.opened[1]
    assert first.code(Method.CREATE_PERMISSION, a.XorPeerAddress(peer)) == 0
    assert second.code(Method.CREATE_PERMISSION, a.XorPeerAddress(world.ports.opened[0])) == 0


@pytest.mark.parametrize("way", ["permission", "channel", "connect"])
@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.64.0.0/11", ["10.64.0.0", "10.95.255.255"], ["10.63.255.255", "10.96.0.0"]),
        ("fd12:3440::/27", ["fd12:3440::", "fd12:345f:ffff::1"], ["fd12:343f:ffff::1", "fd12:3460::"]),
        ("fd12:3456:789a:bcd8::/61", ["fd12:3456:789a:bcdf::1"], ["fd12:3456:789a:bce0::1"]),
    ],
)
def test_p7_ranges_are_exact_to_the_bit(
    network: str, inside: list[str], outside: list[str], way: str
) -> None:
    """Also where they do not end on a byte boundary."""
    world = World(ports=dual_ports(), policy=AddressPolicy([ipaddress.ip_network(network)]))
    family = a.FAMILY_IPV6 if ":" in network else a.FAMILY_IPV4
    caller = foothold(way, world, family=family)
    for host in outside:
        assert try_peer(caller, way, Address(host, 80)) == 403
    for number, host in enumerate(inside):
        caller = foothold(way, world, Address(CLIENT.host, CLIENT.port + 1 + number), family)
        assert try_peer(caller, way, Address(host, 80)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "10.0.0.0/0x8", "fd00::/129", "fd00::1/8",
        "fe80::%eth0/10", "example.org", "", "10.0.0.0-10.0.0.9", "1" * 5000,
    ],
)  # fmt: skip
def test_p8_a_range_that_is_none_is_refused_at_the_start(text: str) -> None:
    """No range is guessed: the server does not start, and says what it could not read."""
    with pytest.raises(UsageError) as problem:
        build(Settings(allow_peer=("10.0.0.0/8", text)))
    assert text[:20] in str(problem.value)


def test_p9_a_withdrawn_peer_ends_with_its_permission() -> None:
    """When the hub no longer allows a peer, the permission cannot be renewed and traffic stops with it."""
    world = World()
    caller = allocated(world)
    assert try_peer(caller, "permission", PEER) == 0
    world.permits = lambda user, peer: False
    assert try_peer(caller, "permission", PEER) == 403
    world.now = 300.0
    assert try_peer(caller, "send", PEER) == 403


def test_p9_credentials_of_a_meeting_that_is_over_open_nothing_new() -> None:
    """Without its mailbox a user gets no allocation; one that carries a session goes on."""
    current = {"mailbox"}
    world = World(is_current=lambda user: user in current)
    caller = allocated(world)
    current.clear()
    assert error_code(Caller(world, OTHER_CLIENT, "mailbox").allocate()) == 401
    assert caller.code(Method.REFRESH, a.Lifetime(600)) == 0
    assert try_peer(caller, "permission", PEER) == 0


def test_p6_an_address_that_becomes_the_servers_own_is_not_sent_to() -> None:
    """A permission from before the machine got that address turns inward with its next refresh."""
    world = World()
    caller = allocated(world)
    assert try_peer(caller, "permission", PEER) == 0
    world.ports.relay_hosts.add(PEER.host)
    assert try_peer(caller, "permission", PEER) == 0
    assert try_peer(caller, "send", PEER) == 403


def test_p10_data_without_permission_is_dropped() -> None:
    """Send without permission and data from an unknown peer vanish without any answer."""
    caller = allocated()
    assert try_peer(caller, "send", PEER) == 403
    caller.world.server.receive_from_peer(b"x", PEER, 0.0, caller.world.ports.opened[0])
    assert caller.world.server.next_transmit() is None


def test_p13_relays_that_are_each_others_peers_do_not_loop() -> None:
    """A datagram between two relays reaches one client and stops there."""
    world = World()
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    here, there = world.ports.opened
    first.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(there))
    second.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(here))
    world.server.receive(b"\x40\0\0\1x", CLIENT, 0.0, SERVER)
    assert world.server.next_transmit() is not None
    assert world.server.next_transmit() is None


def test_p6_a_relay_of_tcp_is_no_service_of_its_port_number() -> None:
    """A Connect reaches a TCP relay of ours at exactly its address, not a UDP relay's and not its own."""
    world = World()
    caller = foothold("connect", world)
    allocated(world, OTHER_CLIENT, "other")
    neighbour = foothold("connect", world, Address("44.3.3.4", 1024))
    mine, theirs = world.ports.opened_tcp
    assert try_peer(caller, "connect", world.ports.opened[0]) == 403
    assert try_peer(caller, "connect", mine) == 403
    assert try_peer(caller, "connect", theirs) == 0
    assert neighbour.code(Method.REFRESH, a.Lifetime(0)) == 0
    world.server.next_event()
    assert try_peer(caller, "connect", Address(theirs.host, theirs.port + 1)) == 403


def test_p6_local_programs_do_not_pass_as_relays() -> None:
    """A permission for our relay address lets other relays in, not whatever else runs on this machine."""
    world = World()
    caller = foothold("connect", world)
    assert try_peer(caller, "permission", SERVER) == 0
    assert world.server.peer_connected(world.ports.opened_tcp[0], Address(SERVER.host, 40_000), 0.0) is None


def test_p9_icmp_stops_with_the_permission() -> None:
    """After its permission is over, nothing is told about a peer any more."""
    caller = allocated()
    assert try_peer(caller, "permission", PEER) == 0
    caller.world.server.receive_icmp(caller.world.ports.opened[0], PEER, 3, 3, 0, 300.0)
    assert caller.world.server.next_transmit() is None


def test_p11_closed_and_filtered_ports_look_alike() -> None:
    """A peer that refuses and one that is silent have the same answer, byte for byte of the same size,
    and none takes longer than 30 s."""
    caller = foothold("connect")
    server = caller.world.server
    assert try_peer(caller, "connect", PEER) == 0
    assert try_peer(caller, "connect", Address(PEER.host, 81)) == 0
    server.dial_failed(first_connection(caller.world), 0.1)
    closed = server.next_transmit()
    server.handle_timeout(30.0)
    filtered = server.next_transmit()
    assert closed is not None
    assert filtered is not None
    assert len(closed.data) == len(filtered.data)
    assert server.next_timeout() == 600.0


def first_connection(world: World) -> int:
    """The number of the oldest connection, as the driver knows it from its event."""
    connections = vars(world.server)["_holdings"].connections
    return int(next(iter(vars(connections)["_by_number"])))


def test_p11_a_scan_is_slow() -> None:
    """A user that asks for port after port gets a burst and then one a second, with new allocations too."""
    world = World(limits=Limits(connections=1000))
    caller = foothold("connect", world)
    dials, port = 0, 0
    for second in range(100):
        world.now = float(second)
        for _ in range(20):
            port += 1
            dials += try_peer(caller, "connect", Address(PEER.host, port)) == 0
        while world.server.next_event() or world.server.next_transmit():
            pass
        assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
        while world.server.next_event() or world.server.next_transmit():
            pass
        assert caller.code(Method.ALLOCATE, a.RequestedTransport(6)) == 0
    assert DIAL_BURST + 90 <= dials <= DIAL_BURST + 100


def test_p11_connections_of_an_allocation_are_capped() -> None:
    """Past 16 connections there is 508, whoever asks for them; one that ends makes room."""
    caller = foothold("connect")
    world = caller.world
    assert try_peer(caller, "permission", PEER) == 0
    codes = [try_peer(caller, "connect", Address(PEER.host, port)) for port in range(1, 21)]
    assert codes == [0] * 16 + [508] * 4
    assert world.server.peer_connected(world.ports.opened_tcp[0], PEER, 0.0) is None
    world.server.connection_closed(first_connection(world), 0.0)
    assert world.server.peer_connected(world.ports.opened_tcp[0], PEER, 0.0) is not None


def test_p12_what_was_judged_is_what_is_sent_to() -> None:
    """A mapped spelling is judged by what is inside, and its permission opens that spelling alone."""
    caller = foothold("permission", World(ports=dual_ports()), family=a.FAMILY_IPV6)
    mapped = Address(str(ipaddress.ip_address("::ffff:44.9.9.9")), 80)
    assert try_peer(caller, "permission", mapped) == 0
    assert try_peer(caller, "send", Address("2a01:4f8::9", 80)) == 403
    send = (a.XorPeerAddress(mapped), a.Data(b"x"))
    caller.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, send).encode())
    transmit = caller.world.server.next_transmit()
    assert transmit is not None
    assert transmit.destination == mapped


def test_p13_a_loop_by_way_of_two_servers_is_bounded_by_the_rate() -> None:
    """Two clients that send each other's data back for ever move what their users' rates allow."""
    limits = Limits(bytes_per_second=10_000.0)
    servers = [World(limits=limits), World(limits=limits, ports=FakePorts(100))]
    servers[1].ports.free = [Address(PEER.host, 50_001)]
    servers[1].ports.relay_hosts = {PEER.host}
    callers = [allocated(world) for world in servers]
    relayed = [world.ports.opened[0] for world in servers]
    for caller, peer in zip(callers, reversed(relayed), strict=True):
        assert try_peer(caller, "channel", peer) == 0
    packet, moved = b"\x40\0\x03\xe8" + bytes(1000), 0
    for step in range(10_000):
        now, side = step / 1000, step % 2
        servers[side].server.receive(packet, CLIENT, now, SERVER)
        transmit = servers[side].server.next_transmit()
        if transmit is None:
            continue
        moved += len(transmit.data)
        other = servers[1 - side].server
        other.receive_from_peer(transmit.data, relayed[side], now, relayed[1 - side])
        other.next_transmit()
    assert 0 < moved <= 2 * (limits.burst + 10 * limits.bytes_per_second)
