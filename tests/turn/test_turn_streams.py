"""The TURN server machine and clients that come by TCP or TLS."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from turn_pair import CLIENT, PEER, SERVER, Caller, World, error_code

STREAMS = [Transport.TCP, Transport.TLS]


def allocated(world: World, transport: Transport, *attributes: a.AnyAttribute) -> Caller:
    caller = Caller(world, transport=transport)
    assert error_code(caller.allocate(*attributes)) == 0
    return caller


@pytest.mark.parametrize("transport", STREAMS)
def test_one_address_has_an_allocation_for_each_transport(transport: Transport) -> None:
    """The protocol is part of the 5-tuple: UDP, TCP and TLS of the same addresses do not meet."""
    world = World()
    stream, plain = allocated(world, transport), Caller(world)
    assert plain.code(Method.REFRESH) == 437
    assert error_code(plain.allocate()) == 0
    assert error_code(stream.allocate()) == 437
    assert len(world.server.allocations) == 2


@pytest.mark.parametrize(("size", "run"), [(1, None), (5, None), (8, None), (20, 6), (24, 8)])
def test_channel_data_to_a_stream_is_padded(size: int, run: int | None) -> None:
    """Each ChannelData message on a stream fills four-byte units, and its length says its data alone."""
    world = World()
    caller = allocated(world, Transport.TCP)
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)) == 0
    data = bytes(range(1, size + 1))
    world.server.receive_from_peer(data, PEER, 0.0, world.ports.opened[0], run)
    transmit = world.server.next_transmit()
    assert transmit is not None
    assert (transmit.destination, transmit.transport, transmit.segment_size) == (CLIENT, Transport.TCP, None)
    stream, pieces = bytes(transmit.data), []
    while stream:
        length = int.from_bytes(stream[2:4], "big")
        pieces.append(stream[4 : 4 + length])
        stream = stream[4 + length + -length % 4 :]
    step = run or size
    assert pieces == [data[start : start + step] for start in range(0, size, step)]


def test_what_is_nobodys_is_counted() -> None:
    """Data of a client without allocation, and an error about an address that nobody has, are dropped."""
    world = World()
    stranger = Caller(world, transport=Transport.TCP)
    attributes = (a.XorPeerAddress(PEER), a.Data(b"x"))
    stranger.give(b"\x40\0\0\1x")
    stranger.give(Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, attributes).encode())
    world.server.receive_icmp(Address(SERVER.host, 50_000), PEER, 3, 3, 0, 0.0)
    assert world.server.next_transmit() is None
    assert world.server.counters == {"dropped_channel": 1, "dropped_send": 1, "dropped_icmp": 1}


def test_channel_data_from_a_stream_reaches_the_peer() -> None:
    """A ChannelData message that a stream was cut into leaves as one datagram."""
    world = World()
    caller = allocated(world, Transport.TLS)
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)) == 0
    caller.give(b"\x40\0\0\3abc")
    transmit = world.server.next_transmit()
    assert transmit is not None
    assert (bytes(transmit.data), transmit.destination, transmit.transport) == (b"abc", PEER, Transport.UDP)


def test_data_indications_leave_by_the_stream() -> None:
    """Without a channel a stream client gets Data indications on its stream."""
    world = World()
    caller = allocated(world, Transport.TCP)
    assert caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 0
    world.server.receive_from_peer(b"hello", PEER, 0.0, world.ports.opened[0])
    transmit = world.server.next_transmit()
    assert transmit is not None
    assert transmit.transport is Transport.TCP
    assert parse(transmit.data).message.get(a.Data) == a.Data(b"hello")


@pytest.mark.parametrize("transport", STREAMS)
def test_an_allocation_ends_with_its_stream(transport: Transport) -> None:
    """A stream that ends takes its allocation along, and gives port and quota back."""
    world = World()
    allocated(world, transport)
    world.server.disconnect(CLIENT, SERVER, transport, 1.0)
    assert world.ports.opened == []
    assert len(world.server.allocations) == 0
    assert world.server.next_timeout() is None
    assert world.server.is_idle


@pytest.mark.parametrize("transport", STREAMS)
def test_every_stream_is_challenged(transport: Transport) -> None:
    """A stream proves its source, and a client on one asks once: neither the size of its request nor how many
    neighbours ask at once makes the server silent."""
    world = World()
    bare = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12).encode()
    for port in range(1024, 1124):
        answer = Caller(world, Address(CLIENT.host, port), transport=transport).send(bare)
        assert answer is not None
        assert error_code(answer) == 401
        assert answer.get(a.Nonce) is not None
    assert world.server.counters["rejected_401"] == 100
    assert Caller(world).send(bare) is None


def test_streams_that_are_not_known_may_end() -> None:
    """The end of a stream without allocation, or of another transport, changes nothing."""
    world = World()
    allocated(world, Transport.TCP)
    world.server.disconnect(Address("44.8.8.8", 1), SERVER, Transport.TCP, 0.0)
    world.server.disconnect(CLIENT, SERVER, Transport.TLS, 0.0)
    assert len(world.server.allocations) == 1


def test_a_stream_with_an_allocation_is_busy() -> None:
    """The driver may end a stream that carries nothing, and no other."""
    world = World()
    assert not world.server.is_busy(CLIENT, SERVER, Transport.TCP)
    caller = allocated(world, Transport.TCP)
    assert world.server.is_busy(CLIENT, SERVER, Transport.TCP)
    assert not world.server.is_busy(CLIENT, SERVER, Transport.TLS)
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert not world.server.is_busy(CLIENT, SERVER, Transport.TCP)
