"""The TURN server machine and peers: permissions, channels, data, and its own addresses."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from turn_attackers import allocated
from turn_pair import (
    CLIENT,
    OTHER_CLIENT,
    OWN_ASIDE,
    PEER,
    SERVER,
    Caller,
    World,
    segments,
)

TRANSPORT = a.RequestedTransport(17)
ALL_METHODS = [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]


def relayed_of(caller: Caller) -> Address:
    allocation = caller.world.server.allocations.of_client(caller.address, SERVER)
    assert allocation is not None
    return allocation.relayed


# --- permissions ----------------------------------------------------------------------------------------


def test_permission_lets_any_port_of_the_peer_in() -> None:
    """Permissions are by IP address; everything else is dropped in silence."""
    caller = allocated()
    relayed = relayed_of(caller)
    server = caller.world.server
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(Address(PEER.host, 0))) == 0
    for source, expected in ((PEER, True), (Address(PEER.host, 1), True), (Address("44.9.9.8", 7000), False)):
        server.receive_from_peer(b"x", source, 0.0, relayed)
        assert (server.next_transmit() is not None) == expected


def test_permission_ends_after_300_seconds() -> None:
    """Data does not keep a permission alive; only requests do."""
    caller = allocated()
    relayed = relayed_of(caller)
    server = caller.world.server
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    for now, expected in ((299.9, True), (300.0, False)):
        server.receive_from_peer(b"x", PEER, now, relayed)
        assert (server.next_transmit() is not None) == expected
        server.receive(send_indication(b"y"), CLIENT, now, SERVER)
        assert (server.next_transmit() is not None) == expected


def send_indication(data: bytes, peer: Address = PEER, *more: a.AnyAttribute) -> bytes:
    attributes = (a.XorPeerAddress(peer), a.Data(data), *more)
    return Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, attributes).encode()


def test_permissions_are_all_or_nothing() -> None:
    """One bad peer among several refuses the request and permits nobody."""
    caller = allocated()
    both = (a.XorPeerAddress(PEER), a.XorPeerAddress(Address("127.0.0.1", 1)))
    assert caller.code(Method.CREATE_PERMISSION, *both) == 403
    caller.world.server.receive_from_peer(b"x", PEER, 0.0, relayed_of(caller))
    assert caller.world.server.next_transmit() is None


@pytest.mark.parametrize("method", [Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_peer_family_must_match(method: Method) -> None:
    """An IPv6 peer for an IPv4 relay is 443."""
    peer = a.XorPeerAddress(Address("2a01:4f8::1", 1))
    assert allocated().code(method, a.ChannelNumber(0x4000), peer) == 443


def test_permission_needs_a_peer() -> None:
    """CreatePermission without any peer is a bad request."""
    assert allocated().code(Method.CREATE_PERMISSION) == 400


def test_the_hub_decides_by_user_and_peer() -> None:
    """`permits` is asked with the user that credentials were issued to, and its no is a 403."""
    asked: list[tuple[str, Address]] = []

    def permits(user: str, peer: Address) -> bool:
        asked.append((user, peer))
        return peer.host == PEER.host

    caller = allocated(World(permits=permits), user="mailbox-7")
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(Address("44.9.9.8", 1))) == 403
    assert (
        caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(Address("44.9.9.8", 1)))
        == 403
    )
    assert asked[0] == ("mailbox-7", PEER)


# --- channels -------------------------------------------------------------------------------------------


def bind(caller: Caller, number: int, peer: Address = PEER) -> int:
    return caller.code(Method.CHANNEL_BIND, a.ChannelNumber(number), a.XorPeerAddress(peer))


@pytest.mark.parametrize("number", [0, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF])
def test_channel_numbers_out_of_range_are_400(number: int) -> None:
    """Only 0x4000 to 0x4FFF are channel numbers."""
    assert bind(allocated(), number) == 400


@pytest.mark.parametrize("number", [0x4000, 0x4FFF])
def test_channel_numbers_at_the_edges_work(number: int) -> None:
    """First and last number carry data both ways."""
    caller = allocated()
    assert bind(caller, number) == 0
    server = caller.world.server
    header = number.to_bytes(2, "big") + b"\0\1"
    server.receive(header + b"x", CLIENT, 0.0, SERVER)
    sent = server.next_transmit()
    assert sent is not None
    assert (bytes(sent.data), sent.destination, sent.local) == (b"x", PEER, relayed_of(caller))
    server.receive_from_peer(b"y", PEER, 0.0, relayed_of(caller))
    back = server.next_transmit()
    assert back is not None
    assert (bytes(back.data), back.destination, back.local) == (header + b"y", CLIENT, SERVER)


def test_channel_bind_needs_number_and_peer() -> None:
    """Either missing, or port 0, is a bad request."""
    caller = allocated()
    assert caller.code(Method.CHANNEL_BIND, a.XorPeerAddress(PEER)) == 400
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000)) == 400
    assert bind(caller, 0x4000, Address(PEER.host, 0)) == 400


def test_channel_and_permission_live_apart() -> None:
    """A channel lives 600 s, but carries data only while its permission, 300 s, is alive."""
    caller = allocated()
    world, server = caller.world, caller.world.server
    caller.call(Method.REFRESH, a.Lifetime(3600))
    bind(caller, 0x4000)

    def relays(now: float) -> tuple[bool, bool]:
        server.receive(b"\x40\0\0\1x", CLIENT, now, SERVER)
        out = server.next_transmit() is not None
        server.receive_from_peer(b"y", PEER, now, relayed_of(caller))
        return out, server.next_transmit() is not None

    assert relays(299.9) == (True, True)
    assert relays(300.0) == (False, False)
    world.now = 310.0
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    assert relays(599.0) == (True, True)
    server.receive(b"\x40\0\0\1x", CLIENT, 600.0, SERVER)
    assert server.next_transmit() is None
    server.receive_from_peer(b"y", PEER, 600.0, relayed_of(caller))
    indication = server.next_transmit()
    assert indication is not None
    assert parse(indication.data).message.get(a.Data) == a.Data(b"y")


def test_rebinding_refreshes_channel_and_permission() -> None:
    """The same binding again lives on from then, with its permission."""
    caller = allocated()
    bind(caller, 0x4000)
    caller.world.now = 250.0
    assert bind(caller, 0x4000) == 0
    caller.world.server.receive(b"\x40\0\0\1x", CLIENT, 549.0, SERVER)
    assert caller.world.server.next_transmit() is not None


def test_expired_channel_number_is_free_again() -> None:
    """After 600 s the number may stand for another peer, and the peer have another number."""
    caller = allocated()
    caller.call(Method.REFRESH, a.Lifetime(3600))
    bind(caller, 0x4000)
    caller.world.now = 600.0
    caller.challenge()
    assert bind(caller, 0x4000, Address("44.9.9.8", 1)) == 0
    assert bind(caller, 0x4001, PEER) == 0


# --- data -----------------------------------------------------------------------------------------------


def test_runs_of_channel_data_are_carried_as_runs() -> None:
    """Sixty-four datagrams in one run leave as one run to the peer and come back as one run."""
    caller = allocated()
    bind(caller, 0x4000)
    server = caller.world.server
    payload = b"".join(bytes([n]) * 100 for n in range(64)) + b"tail"
    pieces = [payload[n : n + 100] for n in range(0, len(payload), 100)]
    run = b"".join(b"\x40\0" + len(p).to_bytes(2, "big") + p for p in pieces)
    server.receive(run, CLIENT, 0.0, SERVER, 104)
    out = server.next_transmit()
    assert out is not None
    assert (bytes(out.data), out.segment_size, out.destination) == (payload, 100, PEER)
    assert server.next_transmit() is None
    server.receive_from_peer(payload, PEER, 0.0, relayed_of(caller), 100)
    back = server.next_transmit()
    assert back is not None
    assert (bytes(back.data), back.segment_size) == (run, 104)


def test_mixed_runs_are_taken_apart() -> None:
    """A run of two channels, padding, a lie and a STUN message: each datagram gets its due."""
    caller = allocated()
    other = Address("44.9.9.8", 1)
    bind(caller, 0x4000)
    bind(caller, 0x4001, other)
    server = caller.world.server
    pieces = [
        b"\x40\0\0\4aaaa" + bytes(20),
        b"\x40\1\0\4bbbb" + bytes(20),
        b"\x40\0\0\xff" + bytes(24),
        b"\x40\7\0\1" + bytes(24),
        Message(Method.BINDING, MessageClass.INDICATION, b"i" * 12, (a.Priority(1),)).encode(),
        b"\x40\0\0\2cc",
    ]
    assert {len(piece) for piece in pieces[:-1]} == {28}
    server.receive(b"".join(pieces), CLIENT, 0.0, SERVER, 28)
    sent = []
    while (transmit := server.next_transmit()) is not None:
        sent.append((bytes(transmit.data), transmit.destination))
    assert sent == [(b"aaaa", PEER), (b"bbbb", other), (b"cc", PEER)]


def test_padded_datagrams_of_uneven_payload_stay_apart() -> None:
    """Where a short payload is followed by a longer one, the run is cut so that no boundary is lost."""
    caller = allocated()
    bind(caller, 0x4000)
    server = caller.world.server
    payloads = [b"aaaa", b"bb", b"cccc", b"ddddd"]
    pieces = [b"\x40\0" + len(p).to_bytes(2, "big") + p.ljust(8, b"\0") for p in payloads]
    server.receive(b"".join(pieces), CLIENT, 0.0, SERVER, 12)
    sent = []
    while (transmit := server.next_transmit()) is not None:
        sent += segments(transmit)
    assert sent == payloads


def test_send_indication_is_relayed() -> None:
    """With a permission, the payload of a Send indication reaches the peer from the relayed address."""
    caller = allocated()
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    server = caller.world.server
    for payload in (b"hello", b""):
        server.receive(send_indication(payload), CLIENT, 0.0, SERVER)
        sent = server.next_transmit()
        assert sent is not None
        assert (bytes(sent.data), sent.destination, sent.local) == (payload, PEER, relayed_of(caller))


@pytest.mark.parametrize(
    "data",
    [
        send_indication(b"x", Address("44.9.9.8", 7000)),
        send_indication(b"x", Address(PEER.host, 0)),
        send_indication(b"x", PEER, a.DontFragment()),
        send_indication(b"x", PEER, a.UnknownAttribute(0x7F01, b"")),
        Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, (a.XorPeerAddress(PEER),)).encode(),
        Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, (a.Data(b"x"),)).encode(),
        Message(Method.SEND, MessageClass.REQUEST, b"i" * 12, (a.XorPeerAddress(PEER), a.Data(b""))).encode(),
        Message(
            Method.DATA, MessageClass.INDICATION, b"i" * 12, (a.XorPeerAddress(PEER), a.Data(b""))
        ).encode(),
        b"\x40\0\0\1x",
        b"\x40\0\0",
    ],
)
def test_bad_data_is_dropped_in_silence(data: bytes) -> None:
    """Without permission, port or parts, or with a demand we do not meet: nothing is sent to anybody."""
    caller = allocated()
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    caller.world.server.receive(data, CLIENT, 0.0, SERVER)
    assert caller.world.server.next_transmit() is None


def test_data_without_an_allocation_is_dropped_in_silence() -> None:
    """Indications and ChannelData from nobody's 5-tuple are not answered."""
    server = World().server
    for data in (send_indication(b"x"), b"\x40\0\0\1x"):
        server.receive(data, CLIENT, 0.0, SERVER)
        assert server.next_transmit() is None


def test_datagrams_that_do_not_fit_are_lost_whole() -> None:
    """A datagram too large with its header is dropped, never cut."""
    caller = allocated()
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    server = caller.world.server
    server.receive_from_peer(bytes(65507), PEER, 0.0, relayed_of(caller))
    assert server.next_transmit() is None
    assert server.counters["dropped_large"] == 1
    bind(caller, 0x4000)
    server.receive_from_peer(bytes(65507), PEER, 0.0, relayed_of(caller))
    assert server.next_transmit() is None
    server.receive_from_peer(bytes(65503), PEER, 0.0, relayed_of(caller))
    assert server.next_transmit() is not None


# --- this server's own addresses ------------------------------------------------------------------------


def test_relay_to_relay_stays_inside() -> None:
    """Data for another live allocation goes straight to its client; for any other port of ours, nowhere."""
    world = World(permits=lambda user, peer: False)
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    here, there = relayed_of(first), relayed_of(second)
    assert first.code(Method.CREATE_PERMISSION, a.XorPeerAddress(there)) == 0
    assert second.code(Method.CREATE_PERMISSION, a.XorPeerAddress(here)) == 0
    world.server.receive(send_indication(b"x", there), CLIENT, 0.0, SERVER)
    transmit = world.server.next_transmit()
    assert transmit is not None
    assert (transmit.destination, transmit.local) == (OTHER_CLIENT, SERVER)
    assert parse(transmit.data).message.attributes == (a.XorPeerAddress(here), a.Data(b"x"))
    for port in (SERVER.port, 22, there.port + 50):
        world.server.receive(send_indication(b"x", Address(there.host, port)), CLIENT, 0.0, SERVER)
        assert world.server.next_transmit() is None


def test_the_other_allocation_must_permit_too() -> None:
    """Inside the server a permission is needed at both ends, as outside."""
    world = World()
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    there = relayed_of(second)
    first.code(Method.CREATE_PERMISSION, a.XorPeerAddress(there))
    world.server.receive(send_indication(b"x", there), CLIENT, 0.0, SERVER)
    assert world.server.next_transmit() is None


def test_network_packets_with_our_own_source_are_forged() -> None:
    """What comes from the network with a relay address of ours as its source did not come from a relay."""
    world = World()
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    first.code(Method.CREATE_PERMISSION, a.XorPeerAddress(relayed_of(second)))
    world.server.receive_from_peer(b"x", relayed_of(second), 0.0, relayed_of(first))
    assert world.server.next_transmit() is None


def test_own_addresses_that_do_not_relay_are_forbidden() -> None:
    """Another address of this machine is 403, even where the policy and the hub would allow it."""
    caller = allocated()
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(Address(OWN_ASIDE, 1))) == 403
    assert bind(caller, 0x4000, Address(OWN_ASIDE, 8080)) == 403


def test_channels_to_own_sockets_are_forbidden() -> None:
    """A channel to a port of the relay address that is no allocation, the front's own, is 403."""
    world = World()
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    assert bind(first, 0x4000, SERVER) == 403
    assert bind(first, 0x4000, relayed_of(second)) == 0
