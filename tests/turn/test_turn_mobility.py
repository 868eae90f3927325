"""RFC 8016 at the TURN server machine: allocations that follow their client."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method
from crowline.turn.allocation import Allocation
from crowline.turn.quota import Limits
from crowline.turn.server_events import Dial, HangUp
from turn_pair import (
    CLIENT,
    EPOCH,
    EXPIRES,
    OTHER_CLIENT,
    PEER,
    SERVER,
    Caller,
    World,
    dual_ports,
    error_code,
)

ASK = a.MobilityTicket(b"")
NEW_PLACE = Address("44.4.4.4", 4000)
THIRD_PLACE = Address("44.5.5.5", 5000)
PACKET = b"\x40\0\0\1x"


def mobile(
    world: World | None = None, transport: Transport = Transport.UDP
) -> tuple[Caller, a.MobilityTicket]:
    """A client with an allocation, a channel and a ticket."""
    caller = Caller(world or World(), transport=transport)
    answer = caller.allocate(ASK)
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)) == 0
    return caller, ticket_of(answer)


def ticket_of(answer: Message) -> a.MobilityTicket:
    assert error_code(answer) == 0
    ticket = answer.get(a.MobilityTicket)
    assert ticket is not None
    return ticket


def at(world: World, place: Address, user: str = "mailbox", transport: Transport = Transport.UDP) -> Caller:
    return Caller(world, place, user, transport)


def heard_at(world: World) -> Address:
    """Where data of the peer goes."""
    world.server.receive_from_peer(b"p", PEER, world.now, world.ports.opened[0])
    transmit = world.server.next_transmit()
    assert transmit is not None
    return transmit.destination


def reaches_peer(caller: Caller) -> bool:
    caller.give(PACKET)
    return caller.world.server.next_transmit() is not None


def test_a_ticket_is_given_to_who_asks() -> None:
    """An empty MOBILITY-TICKET asks for one; without it there is none."""
    caller = Caller(World())
    assert len(ticket_of(caller.allocate(ASK)).value) == 16
    assert Caller(World()).allocate().get(a.MobilityTicket) is None


def test_a_ticket_in_allocate_is_400() -> None:
    """RFC 8016 §3.1.2: a ticket with a value has no place in an Allocate."""
    assert error_code(Caller(World()).allocate(a.MobilityTicket(b"x"))) == 400


def test_a_server_may_forbid_mobility() -> None:
    """405 to Allocate and Refresh with a ticket, by a server that does not offer it."""
    world = World(mobility=False)
    caller = Caller(world)
    assert error_code(caller.allocate(ASK)) == 405
    assert error_code(caller.allocate()) == 0
    assert caller.code(Method.REFRESH, a.MobilityTicket(bytes(16))) == 405


def test_a_refresh_from_a_new_place_changes_the_ticket() -> None:
    """The old ticket is spent; the answer has another one and the lifetime."""
    caller, ticket = mobile()
    answer = at(caller.world, NEW_PLACE).call(Method.REFRESH, ticket)
    assert ticket_of(answer) != ticket
    assert answer.get(a.Lifetime) == a.Lifetime(600)


def test_both_places_live_until_the_new_one_speaks() -> None:
    """Until then data goes to the old place, and is taken from there; after it only from the new one."""
    caller, ticket = mobile()
    world, moved = caller.world, at(caller.world, NEW_PLACE)
    assert moved.code(Method.REFRESH, ticket) == 0
    assert heard_at(world) == CLIENT
    assert reaches_peer(caller)
    assert heard_at(world) == CLIENT
    assert reaches_peer(moved)
    assert heard_at(world) == NEW_PLACE
    assert not reaches_peer(caller)
    assert caller.code(Method.REFRESH) == 437
    assert moved.code(Method.REFRESH) == 0


def test_a_send_indication_completes_the_move_too() -> None:
    """Any data from the new place makes it the only one."""
    caller, ticket = mobile()
    moved = at(caller.world, NEW_PLACE)
    assert moved.code(Method.REFRESH, ticket) == 0
    send = (a.XorPeerAddress(PEER), a.Data(b"s"))
    moved.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, send).encode())
    assert caller.world.server.next_transmit() is not None
    assert heard_at(caller.world) == NEW_PLACE


def test_requests_work_from_both_places_meanwhile() -> None:
    """Permissions can be made from the new place before it has sent data."""
    caller, ticket = mobile()
    moved = at(caller.world, NEW_PLACE)
    assert moved.code(Method.REFRESH, ticket) == 0
    for place in (caller, moved):
        assert place.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    assert heard_at(caller.world) == CLIENT


def test_a_lost_answer_is_given_again() -> None:
    """For 30 s the old ticket gets the same new one, from the place that it led to and from no other."""
    caller, ticket = mobile()
    world, moved = caller.world, at(caller.world, NEW_PLACE)
    current = ticket_of(moved.call(Method.REFRESH, ticket))
    world.now = 29.9
    assert ticket_of(moved.call(Method.REFRESH, ticket)) == current
    assert at(world, THIRD_PLACE).code(Method.REFRESH, ticket) == 437
    world.now = 30.0
    assert moved.code(Method.REFRESH, ticket) == 437
    assert at(world, THIRD_PLACE).code(Method.REFRESH, current) == 0


def test_tickets_are_checked() -> None:
    """400 for a wrong size and for the place one is at already, 437 for an unknown one, 441 for others'."""
    caller, ticket = mobile()
    world = caller.world
    assert caller.code(Method.REFRESH, ticket) == 400
    assert at(world, NEW_PLACE).code(Method.REFRESH, ASK) == 400
    assert at(world, NEW_PLACE).code(Method.REFRESH, a.MobilityTicket(bytes(15))) == 400
    assert at(world, NEW_PLACE).code(Method.REFRESH, a.MobilityTicket(bytes(16))) == 437
    assert at(world, NEW_PLACE, "thief").code(Method.REFRESH, ticket) == 441
    current = ticket_of(at(world, NEW_PLACE).call(Method.REFRESH, ticket))
    assert at(world, NEW_PLACE).code(Method.REFRESH, current) == 400


def test_a_place_with_an_allocation_cannot_take_another() -> None:
    """Two allocations never share a 5-tuple."""
    caller, ticket = mobile()
    other = at(caller.world, NEW_PLACE)
    assert error_code(other.allocate()) == 0
    assert other.code(Method.REFRESH, ticket) == 437
    assert len(caller.world.server.allocations) == 2


def test_a_second_move_replaces_one_that_never_spoke() -> None:
    """A place that was announced and never used is forgotten when the next one is."""
    caller, ticket = mobile()
    world = caller.world
    second = ticket_of(at(world, NEW_PLACE).call(Method.REFRESH, ticket))
    third = at(world, THIRD_PLACE)
    assert third.code(Method.REFRESH, second) == 0
    assert at(world, NEW_PLACE).code(Method.REFRESH) == 437
    assert heard_at(world) == CLIENT
    assert reaches_peer(third)
    assert heard_at(world) == THIRD_PLACE


def test_expired_credentials_may_move() -> None:
    """A client whose time is over keeps what it has, wherever it goes."""
    world = World()
    world.now = EXPIRES - EPOCH - 10.0
    _, ticket = mobile(world)
    world.now += 20.0
    moved = at(world, NEW_PLACE)
    assert moved.code(Method.REFRESH, ticket) == 0
    assert error_code(at(world, THIRD_PLACE).allocate()) == 401


def test_a_mobile_allocation_outlives_its_stream() -> None:
    """Without its TCP connection it waits, unheard, until a ticket moves it or its lifetime is over."""
    caller, ticket = mobile(transport=Transport.TCP)
    world = caller.world
    world.server.disconnect(CLIENT, SERVER, Transport.TCP, 1.0)
    world.server.receive_from_peer(b"p", PEER, 1.0, world.ports.opened[0])
    assert world.server.next_transmit() is None
    assert Caller(world, transport=Transport.TCP).code(Method.REFRESH) == 437
    moved = at(world, NEW_PLACE, transport=Transport.TLS)
    assert moved.code(Method.REFRESH, ticket) == 0
    assert heard_at(world) == NEW_PLACE
    world.server.disconnect(NEW_PLACE, SERVER, Transport.TLS, 2.0)
    world.server.handle_timeout(600.0)
    assert world.ports.opened == []
    assert world.server.is_idle


def test_the_old_stream_ends_and_the_new_place_takes_over() -> None:
    """The end of the old connection completes a move, as data from the new place would."""
    caller, ticket = mobile(transport=Transport.TCP)
    world = caller.world
    assert at(world, NEW_PLACE).code(Method.REFRESH, ticket) == 0
    world.server.disconnect(CLIENT, SERVER, Transport.TCP, 1.0)
    assert heard_at(world) == NEW_PLACE


def test_the_new_stream_may_end_before_it_spoke() -> None:
    """Then the old place goes on as if nothing had been."""
    caller, ticket = mobile()
    world = caller.world
    assert at(world, NEW_PLACE, transport=Transport.TCP).code(Method.REFRESH, ticket) == 0
    world.server.disconnect(NEW_PLACE, SERVER, Transport.TCP, 1.0)
    assert heard_at(world) == CLIENT
    assert caller.code(Method.REFRESH) == 0


def test_a_lost_place_is_free_for_others() -> None:
    """Whoever gets the address of a stream that ended gets a new allocation there, not the old one."""
    caller, _ = mobile(transport=Transport.TCP)
    world = caller.world
    world.server.disconnect(CLIENT, SERVER, Transport.TCP, 1.0)
    assert error_code(at(world, CLIENT, "other", Transport.TCP).allocate()) == 0
    assert len(world.server.allocations) == 2


def test_tcp_allocations_move_between_streams_only() -> None:
    """A TCP allocation cannot be carried to UDP, where ConnectionBind would have no place."""
    world = World()
    caller = Caller(world, transport=Transport.TCP)
    ticket = ticket_of(caller.call(Method.ALLOCATE, a.RequestedTransport(6), ASK))
    assert at(world, NEW_PLACE).code(Method.REFRESH, ticket) == 400
    assert at(world, NEW_PLACE, transport=Transport.TLS).code(Method.REFRESH, ticket) == 0


def test_nobody_hears_of_connections_in_place_of_a_client_that_is_away() -> None:
    """Neither a peer's connection nor the end of a dial is told to a stream that may be another's by now."""
    world = World()
    caller = Caller(world, transport=Transport.TCP)
    assert caller.code(Method.ALLOCATE, a.RequestedTransport(6), ASK) == 0
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    caller.give(caller.signed(Method.CONNECT, a.XorPeerAddress(Address(PEER.host, 80))))
    event = world.server.next_event()
    assert isinstance(event, Dial)
    world.server.disconnect(CLIENT, SERVER, Transport.TCP, 1.0)
    assert world.server.peer_connected(world.ports.opened_tcp[0], PEER, 1.0) is None
    world.server.dialled(event.connection, 1.0)
    assert world.server.next_transmit() is None
    world.server.handle_timeout(30.0)
    assert world.server.next_event() == HangUp(event.connection)
    assert world.server.next_transmit() is None


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_nothing_is_kept_of_a_mobile_allocation_that_is_over(how: str) -> None:
    """Tickets, places and timers go with the allocation."""
    caller, ticket = mobile()
    world, moved = caller.world, at(caller.world, NEW_PLACE)
    current = ticket_of(moved.call(Method.REFRESH, ticket))
    if how == "deleted":
        assert moved.code(Method.REFRESH, a.Lifetime(0)) == 0
    else:
        world.now = 600.0
        world.server.handle_timeout(world.now)
    assert at(world, THIRD_PLACE).code(Method.REFRESH, current) == 437
    assert moved.code(Method.REFRESH) == 437
    assert caller.code(Method.REFRESH) == 437
    assert world.server.next_timeout() is None


def test_a_move_and_the_end_may_be_one_request() -> None:
    """Refresh with a ticket and lifetime 0 deletes from the new place."""
    caller, ticket = mobile()
    answer = at(caller.world, NEW_PLACE).call(Method.REFRESH, ticket, a.Lifetime(0))
    assert answer.get(a.Lifetime) == a.Lifetime(0)
    assert caller.world.ports.opened == []
    assert caller.world.server.is_idle


def test_the_quota_follows_the_client() -> None:
    """The user goes on paying for a relay that has moved; the old source is free, the new one is charged."""
    world = World(limits=Limits(allocations_per_user=2, allocations_per_source=1))
    _, ticket = mobile(world)
    assert error_code(at(world, Address(CLIENT.host, 1111), "neighbour").allocate()) == 486
    assert at(world, NEW_PLACE).code(Method.REFRESH, ticket) == 0
    assert error_code(at(world, Address(CLIENT.host, 1111), "neighbour").allocate()) == 0
    assert error_code(at(world, Address(NEW_PLACE.host, 1111), "host").allocate()) == 486
    assert error_code(at(world, OTHER_CLIENT).allocate()) == 0
    assert error_code(at(world, THIRD_PLACE).allocate()) == 486


def test_a_full_source_takes_no_movers() -> None:
    """486 where a source has its share already; the client stays where it is, its ticket good."""
    world = World(limits=Limits(allocations_per_source=1))
    caller, ticket = mobile(world)
    assert error_code(at(world, Address(NEW_PLACE.host, 1111), "host").allocate()) == 0
    assert at(world, NEW_PLACE).code(Method.REFRESH, ticket) == 486
    assert caller.code(Method.REFRESH) == 0
    assert at(world, THIRD_PLACE).code(Method.REFRESH, ticket) == 0


def test_a_move_that_ends_one_family_tells_the_next_ticket() -> None:
    """Of two relayed addresses one may be given up on the way; the answer has the ticket of the other."""
    world = World(ports=dual_ports())
    ticket = ticket_of(Caller(world).allocate(ASK, a.AdditionalAddressFamily(2)))
    leave = (a.Lifetime(0), a.RequestedAddressFamily(2))
    answer = at(world, NEW_PLACE).call(Method.REFRESH, ticket, *leave)
    assert answer.get(a.Lifetime) == a.Lifetime(0)
    current = ticket_of(answer)
    last = at(world, THIRD_PLACE).call(Method.REFRESH, current, a.Lifetime(0))
    assert (error_code(last), last.get(a.MobilityTicket)) == (0, None)
    assert world.server.is_idle


def test_every_change_is_told() -> None:
    """Who mirrors allocations hears of each one that is made, prolonged, opened, moved and ended."""
    world = World()
    seen: list[tuple[Address, int, bool]] = []

    def note(allocation: Allocation) -> None:
        seen.append((allocation.client, len(allocation.channels), allocation.is_over))

    world.server.on_change = note
    _, ticket = mobile(world)
    moved = at(world, NEW_PLACE)
    assert moved.code(Method.REFRESH, ticket) == 0
    assert reaches_peer(moved)
    assert moved.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert seen == [
        (CLIENT, 0, False), (CLIENT, 1, False), (CLIENT, 1, False), (NEW_PLACE, 1, False),
        (NEW_PLACE, 1, True),
    ]  # fmt: skip
