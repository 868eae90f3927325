"""EVEN-PORT and RESERVATION-TOKEN: pairs of ports (RFC 8656 §7.2)."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, Method
from crowline.turn.quota import Limits
from turn_pair import CLIENT, OTHER_CLIENT, Caller, FakePorts, World, error_code

PAIR = a.EvenPort(True)


def reserved(world: World) -> tuple[Caller, a.ReservationToken, Address]:
    """A client with an even port, the token of the odd one, and the even one."""
    caller = Caller(world)
    answer = caller.allocate(PAIR)
    return caller, token_of(answer), relayed_of(answer)


def token_of(answer: Message) -> a.ReservationToken:
    token = answer.get(a.ReservationToken)
    assert token is not None
    return token


def relayed_of(answer: Message) -> Address:
    relayed = answer.get(a.XorRelayedAddress)
    assert relayed is not None
    return relayed.address


def test_the_token_gives_the_next_port_up() -> None:
    """The first allocation has an even port, and the token claims the odd one above it."""
    world = World()
    _, token, even = reserved(world)
    assert even.port % 2 == 0
    assert relayed_of(Caller(world, OTHER_CLIENT).allocate(token)) == Address(even.host, even.port + 1)


@pytest.mark.parametrize("transport", list(Transport))
def test_the_token_may_come_by_any_5_tuple(transport: Transport) -> None:
    """Another address and another transport claim it too."""
    world = World()
    _, token, _ = reserved(world)
    assert error_code(Caller(world, OTHER_CLIENT, transport=transport).allocate(token)) == 0


def test_a_token_serves_once() -> None:
    """A second claim is refused: the port is somebody's."""
    world = World()
    _, token, _ = reserved(world)
    assert error_code(Caller(world, OTHER_CLIENT).allocate(token)) == 0
    assert error_code(Caller(world, Address("44.3.3.4", 1024)).allocate(token)) == 508


def test_a_reservation_is_held_for_thirty_seconds() -> None:
    """Up to then the token is good, even when the first allocation is gone; after it the port is free."""
    world = World()
    caller, token, even = reserved(world)
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert world.ports.opened == [Address(even.host, even.port + 1)]
    assert world.server.next_timeout() == 30.0
    world.server.handle_timeout(29.9)
    assert len(world.ports.opened) == 1
    world.server.handle_timeout(30.0)
    assert world.ports.opened == []
    assert world.server.is_idle
    assert error_code(Caller(world, OTHER_CLIENT).allocate(token)) == 508


def test_the_last_moment_counts() -> None:
    """A claim at 29.9 s makes an allocation that outlives the reservation."""
    world = World()
    caller, token, even = reserved(world)
    world.now = 29.9
    assert error_code(Caller(world, OTHER_CLIENT).allocate(token)) == 0
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    world.server.handle_timeout(31.0)
    assert world.ports.opened == [Address(even.host, even.port + 1)]


def test_a_retransmitted_allocate_has_the_same_token() -> None:
    """The success that is given again says the token too, and reserves nothing more."""
    world = World()
    caller = Caller(world)
    request = caller.signed(Method.ALLOCATE, a.RequestedTransport(17), PAIR)
    first = caller.send_raw(request)
    assert first is not None
    assert caller.send_raw(request) == first
    assert len(world.ports.opened) == 2


def test_no_pair_left_is_508() -> None:
    """Without two neighbouring ports nothing is given."""
    ports = FakePorts(3)
    del ports.free[1]
    assert error_code(Caller(World(ports=ports)).allocate(PAIR)) == 508


def test_a_reservation_counts_like_an_allocation() -> None:
    """A pair needs room for two, for the user and for the server; a claim needs none."""
    world = World(limits=Limits(allocations_per_user=2))
    _, token, _ = reserved(world)
    other = Caller(world, OTHER_CLIENT)
    assert error_code(other.allocate()) == 486
    assert error_code(other.allocate(token)) == 0
    small = World(limits=Limits(allocations=1))
    assert error_code(Caller(small).allocate(PAIR)) == 508


def test_a_claim_counts_where_it_is_made() -> None:
    """A source that has its share cannot claim what was reserved from another; at home it costs nothing."""
    world = World(limits=Limits(allocations_per_source=2))
    _, token, _ = reserved(world)
    for n in range(2):
        assert error_code(Caller(world, Address(OTHER_CLIENT.host, 1024 + n), "other").allocate()) == 0
    assert error_code(Caller(world, OTHER_CLIENT).allocate(token)) == 486
    assert error_code(Caller(world, Address(CLIENT.host, 1024)).allocate(token)) == 0


def test_what_arrives_at_a_reserved_port_is_dropped() -> None:
    """Until it is claimed, the port has nobody to give data to."""
    world = World()
    _, _, even = reserved(world)
    world.server.receive_from_peer(b"x", Address("44.9.9.9", 1), 0.0, Address(even.host, even.port + 1))
    assert world.server.next_transmit() is None
    assert world.server.counters["dropped_peer"] == 1
