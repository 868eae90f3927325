"""The TURN server machine, check by check, spoken to by hand in virtual time."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.integrity import verify_integrity
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.quota import Limits
from turn_attackers import allocated, try_peer
from turn_pair import (
    CLIENT,
    OTHER_CLIENT,
    PEER,
    SERVER,
    Caller,
    FakePorts,
    World,
    error_code,
)

TRANSPORT = a.RequestedTransport(17)
ALL_METHODS = [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]


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


# --- the end --------------------------------------------------------------------------------------------


def test_everything_of_an_allocation_ends_with_it() -> None:
    """Port, quota and data paths are gone when the lifetime is over."""
    world = World(limits=Limits(allocations_per_user=1))
    caller = allocated(world)
    assert try_peer(caller, "channel", PEER) == 0
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
