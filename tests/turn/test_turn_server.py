"""The TURN server machine, check by check, spoken to by hand in virtual time."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.integrity import verify_integrity
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.quota import Limits
from turn_pair import (
    CLIENT,
    OTHER_CLIENT,
    OWN_ASIDE,
    PEER,
    SERVER,
    Caller,
    FakePorts,
    World,
    error_code,
    segments,
)

TRANSPORT = a.RequestedTransport(17)
ALL_METHODS = [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]


def allocated(world: World | None = None, address: Address = CLIENT, user: str = "mailbox") -> Caller:
    caller = Caller(world or World(), address, user)
    assert error_code(caller.allocate()) == 0
    return caller


def relayed_of(caller: Caller) -> Address:
    allocation = caller.world.server.allocations.of_client(caller.address, SERVER)
    assert allocation is not None
    return allocation.relayed


# --- allocate -------------------------------------------------------------------------------------------


def test_first_request_gets_a_small_challenge() -> None:
    """An unsigned Allocate gets a 401 with realm, nonce and algorithms, at most three times its bytes."""
    caller = Caller(World())
    request = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT,)).encode()
    raw = caller.send_raw(request)
    assert raw is not None
    answer = parse(raw)
    assert error_code(answer.message) == 401
    kinds = [type(attribute) for attribute in answer.message.attributes]
    assert kinds == [a.ErrorCode, a.Realm, a.Nonce, a.PasswordAlgorithms]
    assert not answer.is_signed
    assert len(raw) == 84 == 3 * len(request)


def test_success_says_relay_lifetime_and_mapping() -> None:
    """The answer to Allocate is signed and names the relayed address, 600 s and the client's address."""
    caller = Caller(World())
    raw = caller.send_raw(caller.signed(Method.ALLOCATE, TRANSPORT))
    assert raw is not None
    answer = parse(raw)
    assert answer.message.attributes == (
        a.XorRelayedAddress(relayed_of(caller)),
        a.Lifetime(600),
        a.XorMappedAddress(CLIENT),
    )
    assert verify_integrity(answer, caller.key)


def test_retransmitted_allocate_gets_the_same_success() -> None:
    """The same request again, because the answer was lost, gets the very same bytes and no second port."""
    caller = Caller(World())
    request = caller.signed(Method.ALLOCATE, TRANSPORT)
    first = caller.send_raw(request)
    caller.world.now = 30.0
    assert caller.send_raw(request) == first
    assert len(caller.world.ports.opened) == 1


def test_second_allocate_on_one_5_tuple_is_437() -> None:
    """Check 2: another Allocate where there is an allocation is a mismatch."""
    assert error_code(allocated().allocate()) == 437


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ((), 400),
        ((a.RequestedTransport(1),), 442),
        ((a.RequestedTransport(6),), 400),
        ((TRANSPORT, a.DontFragment()), 420),
        ((TRANSPORT, a.UnknownAttribute(0x7F01, b"")), 420),
        ((TRANSPORT, a.UnknownAttribute(0x8055, b"")), 0),
        ((TRANSPORT, a.ReservationToken(bytes(8))), 508),
        ((TRANSPORT, a.ReservationToken(bytes(8)), a.EvenPort(False)), 400),
        ((TRANSPORT, a.ReservationToken(bytes(8)), a.RequestedAddressFamily(1)), 400),
        ((TRANSPORT, a.ReservationToken(bytes(8)), a.AdditionalAddressFamily(2)), 400),
        ((TRANSPORT, a.RequestedAddressFamily(1), a.AdditionalAddressFamily(2)), 400),
        ((TRANSPORT, a.RequestedAddressFamily(1)), 0),
        ((TRANSPORT, a.RequestedAddressFamily(2)), 440),
        ((TRANSPORT, a.RequestedAddressFamily(7)), 440),
        ((TRANSPORT, a.EvenPort(True)), 0),
        ((TRANSPORT, a.EvenPort(True), a.AdditionalAddressFamily(2)), 400),
        ((TRANSPORT, a.EvenPort(False)), 0),
        ((TRANSPORT, a.AdditionalAddressFamily(1)), 400),
        ((TRANSPORT, a.AdditionalAddressFamily(2)), 0),
    ],
)
def test_allocate_checks(attributes: tuple[a.AnyAttribute, ...], code: int) -> None:
    """Checks 3 to 9 of RFC 8656 §7.2, each with its code; a refusal leaves nothing behind."""
    caller = Caller(World())
    assert caller.code(Method.ALLOCATE, *attributes) == code
    assert len(caller.world.server.allocations) == (code == 0)
    assert bool(caller.world.ports.opened) == (code == 0)


def test_420_lists_what_is_unknown() -> None:
    """The answer to unknown attributes lists them, and is signed since the request was authenticated."""
    caller = Caller(World())
    answer = caller.call(Method.ALLOCATE, TRANSPORT, a.UnknownAttribute(0x7F01, b""), a.DontFragment())
    assert answer.get(a.UnknownAttributes) == a.UnknownAttributes((0x7F01, a.DontFragment.type))


def test_even_port_is_even() -> None:
    """EVEN-PORT without reservation gives an even port."""
    caller = Caller(World())
    caller.allocate(a.EvenPort(False))
    assert relayed_of(caller).port % 2 == 0


def test_second_family_is_refused_with_its_reason() -> None:
    """ADDITIONAL-ADDRESS-FAMILY gets one relayed address, and the reason why the other is missing."""
    answer = Caller(World()).allocate(a.AdditionalAddressFamily(2))
    assert answer.get(a.AddressErrorCode) == a.AddressErrorCode(2, 440)
    assert len(answer.get_all(a.XorRelayedAddress)) == 1


@pytest.mark.parametrize(
    ("asked", "given"),
    [(None, 600), (0, 600), (1, 600), (600, 600), (601, 601), (3600, 3600), (2**32 - 1, 3600)],
)
def test_lifetime_counts_only_between_default_and_maximum(asked: int | None, given: int) -> None:
    """Shorter wishes than the default get the default, longer ones than an hour get the hour."""
    wish = () if asked is None else (a.Lifetime(asked),)
    assert Caller(World()).allocate(*wish).get(a.Lifetime) == a.Lifetime(given)


def test_ports_run_out_and_come_back() -> None:
    """508 when no port is left, and success again after one is free."""
    world = World(ports=FakePorts(1))
    first = allocated(world)
    second = Caller(world, OTHER_CLIENT)
    assert error_code(second.allocate()) == 508
    assert first.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert error_code(second.allocate()) == 0


def test_server_capacity_is_508() -> None:
    """The cap over all users is a lack of capacity, not of quota."""
    world = World(limits=Limits(allocations=1))
    allocated(world)
    assert error_code(Caller(world, OTHER_CLIENT, "other").allocate()) == 508


# --- refresh --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(None, 600), (1, 600), (900, 900), (7200, 3600)])
def test_refresh_sets_the_lifetime(asked: int | None, given: int) -> None:
    """Refresh follows the same rule as Allocate, and the allocation ends exactly then."""
    caller = allocated()
    caller.world.now = 100.0
    wish = () if asked is None else (a.Lifetime(asked),)
    assert caller.call(Method.REFRESH, *wish).get(a.Lifetime) == a.Lifetime(given)
    caller.world.now = 100.0 + given - 0.1
    caller.world.server.handle_timeout(caller.world.now)
    assert len(caller.world.ports.opened) == 1
    caller.world.now = 100.0 + given
    caller.world.server.handle_timeout(caller.world.now)
    assert caller.world.ports.opened == []


def test_shortened_lifetime_counts() -> None:
    """A refresh that shortens an hour to ten minutes is noticed in time."""
    caller = allocated()
    caller.call(Method.REFRESH, a.Lifetime(3600))
    caller.call(Method.REFRESH, a.Lifetime(600))
    assert caller.world.server.next_timeout() == 600.0
    caller.world.server.handle_timeout(600.0)
    assert caller.world.ports.opened == []


def test_refresh_to_zero_deletes() -> None:
    """Lifetime 0 deletes at once; asked again, the allocation is not there: 437."""
    caller = allocated()
    assert caller.call(Method.REFRESH, a.Lifetime(0)).get(a.Lifetime) == a.Lifetime(0)
    assert caller.world.ports.opened == []
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 437


def test_refresh_of_another_family_is_443() -> None:
    """A family that the allocation does not have is a mismatch."""
    caller = allocated()
    assert caller.code(Method.REFRESH, a.RequestedAddressFamily(2)) == 443
    assert caller.code(Method.REFRESH, a.RequestedAddressFamily(1)) == 0


@pytest.mark.parametrize("method", [m for m in ALL_METHODS if m is not Method.ALLOCATE])
def test_without_an_allocation_requests_get_437(method: Method) -> None:
    """Everything but Allocate needs an allocation on its 5-tuple."""
    peer = (a.ChannelNumber(0x4000), a.XorPeerAddress(PEER))
    assert Caller(World()).code(method, *peer) == 437


def test_other_local_address_is_another_5_tuple() -> None:
    """The server address that was asked belongs to the 5-tuple."""
    caller = allocated()
    request = caller.signed(Method.REFRESH)
    caller.world.server.receive(request, CLIENT, 0.0, Address("44.1.1.9", 3478))
    transmit = caller.world.server.next_transmit()
    assert transmit is not None
    assert transmit.local == Address("44.1.1.9", 3478)
    assert error_code(parse(transmit.data).message) == 437


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


# --- the end --------------------------------------------------------------------------------------------


def test_everything_of_an_allocation_ends_with_it() -> None:
    """Port, quota and data paths are gone when the lifetime is over."""
    world = World(limits=Limits(allocations_per_user=1))
    caller = allocated(world)
    bind(caller, 0x4000)
    relayed = relayed_of(caller)
    world.server.receive(b"\x40\0\0\1x", CLIENT, 600.0, SERVER)
    assert world.server.next_transmit() is None
    world.server.handle_timeout(600.0)
    world.now = 600.0
    world.server.receive_from_peer(b"x", PEER, 600.0, relayed)
    assert world.server.next_transmit() is None
    assert (world.ports.opened, world.server.next_timeout()) == ([], None)
    assert error_code(Caller(world).allocate()) == 0


def test_close_ends_everything() -> None:
    """`close` gives all ports back."""
    world = World()
    allocated(world)
    allocated(world, OTHER_CLIENT)
    world.server.close()
    assert world.ports.opened == []


def test_configured_users_have_their_own_passwords() -> None:
    """A user of the configuration is authenticated by its own password, and named as it is."""
    asked: list[str] = []

    def permits(user: str, peer: Address) -> bool:
        asked.append(user)
        return True

    world = World(users={"admin": Secret(b"a long password")}, permits=permits)
    caller = Caller(world)
    caller.username, caller.password = "admin", "a long password"
    assert error_code(caller.allocate()) == 0
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    assert asked == ["admin"]
    caller.password = "guess"
    assert error_code(caller.allocate()) == 401


@pytest.mark.parametrize("sha256", [False, True])
@pytest.mark.parametrize("fingerprint", [False, True])
def test_answers_are_protected_like_their_request(sha256: bool, fingerprint: bool) -> None:
    """SHA-256 is answered with SHA-256, a fingerprint with a fingerprint."""
    caller = Caller(World())
    caller.challenge()
    proof = (a.Username(caller.username), a.Realm(caller.realm), a.Nonce(caller.nonce))
    request = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT, *proof))
    raw = caller.send_raw(request.encode(key=caller.key, sha256=sha256, fingerprint=fingerprint))
    assert raw is not None
    answer = parse(raw)
    assert error_code(answer.message) == 0
    assert verify_integrity(answer, caller.key)
    assert (answer.sha256_offset is not None, answer.has_fingerprint) == (sha256, fingerprint)
