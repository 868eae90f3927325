"""TCP with peers through a TURN server (RFC 6062), the client's side: against our machine and by hand."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.auth import issue_credentials
from crowline.turn.events import AllocationLost, ConnectFailed, PeerConnection
from crowline.turn.framing import pad
from crowline.turn.server_events import Dial, Splice
from crowline.turn.tcp_client import BindFailed, Bound, DataConnection, PeerBytes, TcpTurnClient
from turn_pair import CLIENT, EXPIRES, PEER, SECRET, SERVER, World, entropy

DATA_CLIENT = Address(CLIENT.host, CLIENT.port + 1)


def settle(world: World, *ends: tuple[Address, TcpTurnClient | DataConnection]) -> None:
    """Carry everything between the server and these ends, by TCP."""
    moved = True
    while moved:
        moved = False
        for address, machine in ends:
            while (transmit := machine.next_transmit()) is not None:
                moved = True
                assert transmit.transport is Transport.TCP
                world.server.receive(bytes(transmit.data), address, world.now, SERVER, None, Transport.TCP)
        while (answer := world.server.next_transmit()) is not None:
            moved = True
            [to] = [machine for address, machine in ends if address == answer.destination]
            to.receive(bytes(answer.data), SERVER, world.now)


def events(machine: TcpTurnClient | DataConnection) -> list[object]:
    found: list[object] = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def allocated(world: World) -> TcpTurnClient:
    username, password = issue_credentials(SECRET, "mailbox", EXPIRES)
    client = TcpTurnClient(SERVER, username, Secret(password.encode()), entropy=entropy(5))
    client.create_permission([PEER], 0.0)
    client.allocate(0.0)
    settle(world, (CLIENT, client))
    assert client.relayed in world.ports.opened_tcp
    events(client)
    return client


def test_a_peer_is_dialled_and_its_bytes_arrive() -> None:
    """Connect, ConnectionBind on a second stream, and raw bytes from the answer on."""
    world = World()
    client = allocated(world)
    client.connect(PEER, 0.0)
    settle(world, (CLIENT, client))
    dial = world.server.next_event()
    assert isinstance(dial, Dial) and (dial.relayed, dial.peer) == (client.relayed, PEER)
    world.server.dialled(dial.connection, 0.0)
    settle(world, (CLIENT, client))
    [event] = events(client)
    assert isinstance(event, PeerConnection) and event.peer == PEER and event.dialled
    data = client.data_connection(event.connection)
    data.bind(0.0)
    settle(world, (CLIENT, client), (DATA_CLIENT, data))
    assert events(data) == [Bound()]
    splice = world.server.next_event()
    assert isinstance(splice, Splice) and splice.client == DATA_CLIENT
    data.receive(b"\x01\x01 like STUN", SERVER, 0.0)
    assert events(data) == [PeerBytes(b"\x01\x01 like STUN")]


def test_a_peer_that_dials_is_told() -> None:
    """ConnectionAttempt, which is taken up like a connection of our own."""
    world = World()
    client = allocated(world)
    assert client.relayed is not None
    assert world.server.peer_connected(client.relayed, PEER, 0.0) is not None
    settle(world, (CLIENT, client))
    [event] = events(client)
    assert isinstance(event, PeerConnection) and event.peer == PEER and not event.dialled
    data = client.data_connection(event.connection)
    data.bind(0.0)
    settle(world, (CLIENT, client), (DATA_CLIENT, data))
    assert events(data) == [Bound()]


def test_a_peer_that_cannot_be_reached_is_told() -> None:
    """447, and the peer may be asked for again."""
    world = World()
    client = allocated(world)
    client.connect(PEER, 0.0)
    with pytest.raises(UsageError):
        client.connect(PEER, 0.0)
    settle(world, (CLIENT, client))
    dial = world.server.next_event()
    assert isinstance(dial, Dial)
    world.server.dial_failed(dial.connection, 0.0)
    settle(world, (CLIENT, client))
    [event] = events(client)
    assert isinstance(event, ConnectFailed) and (event.peer, event.code) == (PEER, 447)
    client.connect(PEER, 10.0)


def test_connecting_on_an_allocation_that_is_gone_is_a_loss() -> None:
    """437 to Connect: the peer is not reached, and neither is anybody else."""
    world = World()
    client = allocated(world)
    world.server.close()
    client.connect(PEER, 0.0)
    settle(world, (CLIENT, client))
    assert [type(event) for event in events(client)] == [ConnectFailed, AllocationLost]


def test_a_connection_that_is_none_is_refused() -> None:
    """The server knows no such number."""
    world = World()
    client = allocated(world)
    data = client.data_connection(12345)
    data.bind(0.0)
    settle(world, (CLIENT, client), (DATA_CLIENT, data))
    [event] = events(data)
    assert isinstance(event, BindFailed) and event.code == 400


def test_what_follows_the_answer_is_the_peers() -> None:
    """Bytes in the same segment as the answer, whatever they look like and however they are cut."""
    for step in (1, 7, 1000):
        world = World()
        client = allocated(world)
        assert client.relayed is not None
        number = world.server.peer_connected(client.relayed, PEER, 0.0)
        assert number is not None
        settle(world, (CLIENT, client))
        [event] = events(client)
        assert isinstance(event, PeerConnection)
        data = client.data_connection(event.connection)
        data.bind(0.0)
        answer = b""
        while not answer:
            while (transmit := data.next_transmit()) is not None:
                world.server.receive(bytes(transmit.data), DATA_CLIENT, 0.0, SERVER, None, Transport.TCP)
            reply = world.server.next_transmit()
            assert reply is not None
            if parse(reply.data).message.message_class is MessageClass.SUCCESS:
                answer = bytes(reply.data)
            else:
                data.receive(bytes(reply.data), SERVER, 0.0)
        stream = answer + pad(b"\x40\x00\x00\x03abc") + b"HTTP/1.1 200 OK"
        for start in range(0, len(stream), step):
            data.receive(stream[start : start + step], SERVER, 0.0)
        first, *rest = events(data)
        assert first == Bound()
        assert b"".join(e.data for e in rest if isinstance(e, PeerBytes)) == stream[len(answer) :]


def test_attempts_of_strangers_and_forged_answers_count_as_nothing() -> None:
    """An attempt for a peer that nobody named, a request, an unsigned success, noise on the data stream."""
    world = World()
    client = allocated(world)
    stranger = (a.ConnectionId(1), a.XorPeerAddress(Address("44.66.6.6", 1)))
    attempt = Message(Method.CONNECTION_ATTEMPT, MessageClass.INDICATION, bytes(12), stranger)
    client.receive(attempt.encode(), SERVER, 0.0)
    assert events(client) == [] and client.counters["unexpected_connection"] == 1
    data = client.data_connection(1)
    data.bind(0.0)
    request = data.next_transmit()
    assert request is not None
    forged = parse(request.data).message.answer(MessageClass.SUCCESS)
    data.receive(forged.encode(), SERVER, 0.0)
    assert Bound() not in events(data)
    other = client.data_connection(2)
    other.bind(0.0)
    other.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(30_000), SERVER, 0.0)
    other.receive(bytes(60_000), SERVER, 0.0)
    assert [type(event) for event in events(other)] == [BindFailed]
