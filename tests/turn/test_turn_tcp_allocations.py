"""RFC 6062 at the TURN server machine: connections with peers, both ways."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.quota import Limits
from crowline.turn.server_events import Dial, HangUp, Splice
from turn_pair import CLIENT, OTHER_CLIENT, OWN_ASIDE, PEER, SERVER, Caller, World, error_code

TCP = a.RequestedTransport(6)
DATA_STREAM = Address(CLIENT.host, CLIENT.port + 1)


def tcp_caller(world: World | None = None, address: Address = CLIENT, user: str = "mailbox") -> Caller:
    """A client with a TCP allocation."""
    caller = Caller(world or World(), address, user, Transport.TCP)
    assert caller.code(Method.ALLOCATE, TCP) == 0
    return caller


def connect(caller: Caller, peer: Address = PEER) -> Dial:
    """Ask for a connection; what the driver is to do. The answer is still to come."""
    caller.give(caller.signed(Method.CONNECT, a.XorPeerAddress(peer)))
    server = caller.world.server
    assert server.next_transmit() is None
    event = server.next_event()
    assert isinstance(event, Dial)
    return event


def answer(caller: Caller) -> Message:
    """The answer that came by itself."""
    transmit = caller.world.server.next_transmit()
    assert transmit is not None
    assert (transmit.destination, transmit.local, transmit.transport) == (CLIENT, SERVER, Transport.TCP)
    return parse(transmit.data).message


def connected(caller: Caller, peer: Address = PEER) -> int:
    """A connection that waits for its ConnectionBind."""
    dial = connect(caller, peer)
    caller.world.server.dialled(dial.connection, caller.world.now)
    message = answer(caller)
    assert message.get(a.ConnectionId) == a.ConnectionId(dial.connection)
    return dial.connection


def bind(world: World, connection: int, address: Address = DATA_STREAM, user: str = "mailbox") -> int:
    caller = Caller(world, address, user, Transport.TCP)
    return caller.code(Method.CONNECTION_BIND, a.ConnectionId(connection))


@pytest.mark.parametrize("transport", list(Transport))
def test_tcp_allocations_are_for_stream_clients(transport: Transport) -> None:
    """RFC 6062 §5.1: a client that comes by UDP is refused with 400."""
    caller = Caller(World(), transport=transport)
    assert caller.code(Method.ALLOCATE, TCP) == (0 if transport.is_stream else 400)
    assert len(caller.world.ports.opened_tcp) == transport.is_stream
    assert caller.world.ports.opened == []


def test_connections_have_the_part_of_this_process_in_a_rate() -> None:
    """A user whose datagrams flow in other processes too pays here as much more as there are of them."""
    limits = Limits(bytes_per_second=1_000_000.0)
    caller = tcp_caller(World(limits=limits))
    connection = connected(caller)
    server = caller.world.server
    server.divide("mailbox", 2)
    assert server.take(connection, int(limits.burst), 0.0) == pytest.approx(limits.burst / 1_000_000)


@pytest.mark.parametrize("attribute", [a.DontFragment(), a.EvenPort(False), a.ReservationToken(bytes(8))])
def test_attributes_of_datagrams_have_no_place_in_a_tcp_allocation(attribute: a.AnyAttribute) -> None:
    """RFC 6062 §5.1: DONT-FRAGMENT, EVEN-PORT and RESERVATION-TOKEN are 400."""
    world = World()
    world.ports.can_set_dont_fragment = True
    caller = Caller(world, transport=Transport.TCP)
    assert caller.code(Method.ALLOCATE, TCP, attribute) == 400


def test_connect_dials_from_the_relayed_address() -> None:
    """The driver is asked to dial; the client hears of it when the peer has answered."""
    caller = tcp_caller()
    world = caller.world
    dial = connect(caller)
    assert (dial.relayed, dial.peer) == (world.ports.opened_tcp[0], PEER)
    world.server.dialled(dial.connection, 0.0)
    message = answer(caller)
    assert (message.method, error_code(message)) == (Method.CONNECT, 0)
    assert message.attributes == (a.ConnectionId(dial.connection),)


def test_connection_bind_splices_after_its_answer() -> None:
    """Another stream of the same user is joined to the connection, behind the success."""
    caller = tcp_caller()
    world = caller.world
    connection = connected(caller)
    assert bind(world, connection) == 0
    assert world.server.next_event() == Splice(connection, DATA_STREAM, SERVER, Transport.TCP)
    assert world.server.is_busy(DATA_STREAM, SERVER, Transport.TCP)
    world.server.handle_timeout(31.0)
    assert world.server.next_event() is None


def test_a_failed_dial_is_447() -> None:
    """The driver's failure becomes 447, and the same peer may be tried again."""
    caller = tcp_caller()
    dial = connect(caller)
    caller.world.server.dial_failed(dial.connection, 1.0)
    assert error_code(answer(caller)) == 447
    assert connect(caller).connection != dial.connection


def test_a_peer_that_is_silent_for_thirty_seconds_is_447() -> None:
    """The dial is given up at 30 s; that it succeeds a moment later changes nothing."""
    caller = tcp_caller()
    server = caller.world.server
    dial = connect(caller)
    assert server.next_timeout() == 30.0
    server.handle_timeout(29.9)
    assert server.next_transmit() is None
    server.handle_timeout(30.0)
    assert error_code(answer(caller)) == 447
    assert server.next_event() == HangUp(dial.connection)
    server.dialled(dial.connection, 30.1)
    assert server.next_transmit() is None


def test_a_connection_that_nobody_binds_ends() -> None:
    """RFC 6062 §5.2: 30 s after the success the peer connection is closed, and its number is void."""
    caller = tcp_caller()
    world = caller.world
    world.now = 10.0
    connection = connected(caller)
    world.server.handle_timeout(39.9)
    assert world.server.next_event() is None
    world.now = 40.0
    world.server.handle_timeout(world.now)
    assert world.server.next_event() == HangUp(connection)
    assert bind(world, connection) == 400


@pytest.mark.parametrize("phase", ["dialling", "waiting", "bound"])
def test_a_second_connect_to_a_peer_is_446(phase: str) -> None:
    """While a connection with that peer is asked for, waits or lives, another is refused; then not."""
    caller = tcp_caller()
    world = caller.world
    connection = connect(caller).connection if phase == "dialling" else connected(caller)
    if phase == "bound":
        assert bind(world, connection) == 0
    assert caller.code(Method.CONNECT, a.XorPeerAddress(PEER)) == 446
    world.server.connection_closed(connection, 1.0)
    while world.server.next_transmit() or world.server.next_event():
        pass
    assert connect(caller).peer == PEER


@pytest.mark.parametrize("attributes", [(), (a.XorPeerAddress(Address("44.9.9.9", 0)),)])
def test_connect_without_a_peer_is_400(attributes: tuple[a.AnyAttribute, ...]) -> None:
    """No peer, or one without a port, is a bad request."""
    assert tcp_caller().code(Method.CONNECT, *attributes) == 400


def test_connect_needs_a_tcp_allocation() -> None:
    """437 without any allocation, 400 with one that relays datagrams."""
    caller = Caller(World(), transport=Transport.TCP)
    assert caller.code(Method.CONNECT, a.XorPeerAddress(PEER)) == 437
    assert error_code(caller.allocate()) == 0
    assert caller.code(Method.CONNECT, a.XorPeerAddress(PEER)) == 400


def test_connection_bind_is_checked() -> None:
    """400 by UDP, without a number, for an unknown one, on the control stream, and twice; 441 for others."""
    caller = tcp_caller()
    world = caller.world
    number = a.ConnectionId(connected(caller))
    stream = Caller(world, DATA_STREAM, transport=Transport.TCP)
    assert Caller(world, DATA_STREAM).code(Method.CONNECTION_BIND, number) == 400
    assert stream.code(Method.CONNECTION_BIND) == 400
    assert stream.code(Method.CONNECTION_BIND, a.ConnectionId(number.value ^ 1)) == 400
    assert caller.code(Method.CONNECTION_BIND, number) == 400
    assert bind(world, number.value, OTHER_CLIENT, "thief") == 441
    assert stream.code(Method.CONNECTION_BIND, number) == 0
    assert bind(world, number.value, OTHER_CLIENT) == 400


def test_a_connection_that_is_being_dialled_cannot_be_bound() -> None:
    """Before the peer has answered there is nothing to bind to."""
    caller = tcp_caller()
    assert bind(caller.world, connect(caller).connection) == 400


def test_peers_that_connect_are_announced() -> None:
    """A permitted peer's connection becomes a ConnectionAttempt, and can be bound."""
    caller = tcp_caller()
    world = caller.world
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    connection = world.server.peer_connected(world.ports.opened_tcp[0], PEER, 5.0)
    assert connection is not None
    message = answer(caller)
    assert (message.method, message.message_class) == (Method.CONNECTION_ATTEMPT, MessageClass.INDICATION)
    assert message.attributes == (a.ConnectionId(connection), a.XorPeerAddress(PEER))
    assert bind(world, connection) == 0
    assert world.server.next_event() == Splice(connection, DATA_STREAM, SERVER, Transport.TCP)


def test_an_attempt_that_nobody_binds_ends() -> None:
    """RFC 6062 §5.3: 30 s, as for connections that the client asked for."""
    caller = tcp_caller()
    world = caller.world
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    connection = world.server.peer_connected(world.ports.opened_tcp[0], PEER, 5.0)
    assert connection is not None
    world.server.handle_timeout(35.0)
    assert world.server.next_event() == HangUp(connection)


def test_peers_without_permission_are_turned_away() -> None:
    """Nobody is told of a peer without a permission, or of one for an address that is nobody's."""
    caller = tcp_caller()
    server = caller.world.server
    assert server.peer_connected(caller.world.ports.opened_tcp[0], PEER, 0.0) is None
    assert server.peer_connected(Address("44.1.1.1", 1), PEER, 0.0) is None
    assert server.next_transmit() is None


@pytest.mark.parametrize("how", ["deleted", "expired", "disconnected", "closed"])
def test_connections_end_with_their_allocation(how: str) -> None:
    """However an allocation ends, its connections in every phase are hung up and their numbers void."""
    caller = tcp_caller()
    world = caller.world
    bound, waiting = connected(caller), connected(caller, Address("44.9.9.8", 1))
    assert bind(world, bound) == 0
    assert isinstance(world.server.next_event(), Splice)
    dialling = connect(caller, Address("44.9.9.7", 1)).connection
    if how == "deleted":
        assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    elif how == "expired":
        world.server.handle_timeout(600.0)
    elif how == "disconnected":
        world.server.disconnect(CLIENT, SERVER, Transport.TCP, 1.0)
    else:
        world.server.close()
    ended = set()
    while (event := world.server.next_event()) is not None:
        assert isinstance(event, HangUp)
        ended.add(event.connection)
    assert ended == {bound, waiting, dialling}
    assert world.ports.opened_tcp == []
    assert world.server.next_timeout() is None
    for connection in ended:
        world.server.dialled(connection, 700.0)
        world.server.connection_closed(connection, 700.0)
    assert world.server.next_event() is None


def test_the_end_of_a_spliced_stream_is_the_end_of_its_connection_only() -> None:
    """The data stream ends; the control stream and its allocation go on."""
    caller = tcp_caller()
    world = caller.world
    assert bind(world, connected(caller)) == 0
    world.server.disconnect(DATA_STREAM, SERVER, Transport.TCP, 1.0)
    assert not world.server.is_busy(DATA_STREAM, SERVER, Transport.TCP)
    assert caller.code(Method.REFRESH) == 0


def test_a_spliced_stream_carries_no_requests() -> None:
    """Bytes that look like one are somebody's data: no answer is mixed into the stream."""
    caller = tcp_caller()
    world = caller.world
    stream = Caller(world, DATA_STREAM, transport=Transport.TCP)
    request = stream.signed(Method.ALLOCATE, a.RequestedTransport(17))
    assert bind(world, connected(caller)) == 0
    assert stream.send_raw(request) is None
    assert len(world.server.allocations) == 1


def test_what_passes_counts_in_the_users_rate() -> None:
    """Bytes of a connection are charged as they move; beyond the rate the driver is told how long to wait."""
    limits = Limits(bytes_per_second=1_000_000.0)
    caller = tcp_caller(World(limits=limits))
    server = caller.world.server
    connection = connected(caller)
    assert server.take(connection, int(limits.burst), 0.0) == 0.0
    assert server.take(connection, 500_000, 0.0) == pytest.approx(0.5)
    assert server.take(connection, 100_000, 0.5) == pytest.approx(0.1)
    assert server.take(connection, 0, 0.6) == pytest.approx(0.0)
    server.connection_closed(connection, 1.0)
    assert server.take(connection, 1, 1.0) == 0.0


def test_tcp_allocations_relay_no_datagrams() -> None:
    """Channels are refused, Send indications vanish, and datagrams for the same address meet nobody."""
    caller = tcp_caller()
    world = caller.world
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)) == 400
    send = (a.XorPeerAddress(PEER), a.Data(b"x"))
    caller.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, send).encode())
    world.server.receive_from_peer(b"x", PEER, 0.0, world.ports.opened_tcp[0])
    assert world.server.next_transmit() is None


def test_own_services_are_out_of_reach() -> None:
    """A connection to this machine is 403, by whatever port, unless a TCP relay lives exactly there."""
    world = World()
    caller = tcp_caller(world)
    other = tcp_caller(world, OTHER_CLIENT, "other")
    relayed = world.ports.opened_tcp
    for peer in (Address(OWN_ASIDE, 22), SERVER, Address(SERVER.host, 22), relayed[0]):
        assert caller.code(Method.CONNECT, a.XorPeerAddress(peer)) == 403
    assert error_code(Caller(world, Address("44.3.3.5", 1)).allocate()) == 0
    assert caller.code(Method.CONNECT, a.XorPeerAddress(world.ports.opened[0])) == 403
    assert connect(caller, relayed[1]).peer == relayed[1]
    assert other.code(Method.CREATE_PERMISSION, a.XorPeerAddress(relayed[0])) == 0
    assert world.server.peer_connected(relayed[1], Address(SERVER.host, 22), 0.0) is None
    assert world.server.peer_connected(relayed[1], relayed[0], 0.0) is not None
