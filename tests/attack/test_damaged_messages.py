"""Every message of STUN and TURN, cut at every byte and with every length changed, at the server.

Rows W1 to W3 ask this of the codecs; here it is asked of the machine that acts on what they read, and of the
sockets before it. The allowed outcomes are two: dropped and counted, or the error code of RFC 8489 §9.2.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance
from crowline.stun.message import HEADER_SIZE, Message, MessageClass, Method, parse
from crowline.turn.codes import BAD_REQUEST, STALE_NONCE, UNAUTHORIZED
from turn_attackers import allocated, foothold, try_peer
from turn_front import front
from turn_pair import CLIENT, PEER, Caller, World, error_code
from turn_socket import plain_socket, turn_client
from waiting import until

UNKNOWN_ATTRIBUTE = 420
LIES = [*range(48), 0x7FFF, 0xFFFC, 0xFFFE, 0xFFFF]
LOTS = Allowance(1e9, 1e9)


def binding_caller() -> tuple[Caller, bytes]:
    """A message of a method that the TURN machine leaves to others: it is dropped, whole or not."""
    return Caller(World()), Message(
        Method.BINDING, MessageClass.REQUEST, b"b" * 12, (a.Priority(1),)
    ).encode()


def asks(method: Method, *attributes: a.AnyAttribute) -> tuple[Caller, bytes]:
    """A client with an allocation, and a signed request of it."""
    caller = allocated(World(allowance=LOTS))
    return caller, caller.signed(method, *attributes)


def allocates() -> tuple[Caller, bytes]:
    caller = Caller(World(allowance=LOTS))
    wanted = (a.RequestedTransport(17), a.Lifetime(700), a.EvenPort(False))
    return caller, caller.signed(Method.ALLOCATE, *wanted)


def connects() -> tuple[Caller, bytes]:
    caller = foothold("connect", World(allowance=LOTS))
    return caller, caller.signed(Method.CONNECT, a.XorPeerAddress(PEER))


def binds_connection() -> tuple[Caller, bytes]:
    """The data stream of a client whose peer has answered."""
    caller = foothold("connect", World(allowance=LOTS))
    server = caller.world.server
    assert try_peer(caller, "permission", PEER) == 0
    number = server.peer_connected(caller.world.ports.opened_tcp[0], PEER, 0.0)
    assert number is not None
    outcome(caller.world)
    beside = Caller(caller.world, Address(CLIENT.host, CLIENT.port + 1), transport=Transport.TCP)
    return beside, beside.signed(Method.CONNECTION_BIND, a.ConnectionId(number))


REQUESTS: dict[str, Callable[[], tuple[Caller, bytes]]] = {
    "Allocate": allocates,
    "Refresh": lambda: asks(Method.REFRESH, a.Lifetime(700), a.RequestedAddressFamily(a.FAMILY_IPV4)),
    "CreatePermission": lambda: asks(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)),
    "ChannelBind": lambda: asks(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)),
    "Connect": connects,
    "ConnectionBind": binds_connection,
}


def outcome(world: World) -> tuple[list[Transmit], int]:
    """What the machine sends, and how many events it has."""
    transmits, events = [], 0
    while (transmit := world.server.next_transmit()) is not None:
        transmits.append(transmit)
    while world.server.next_event() is not None:
        events += 1
    return transmits, events


def holdings(world: World) -> list[object]:
    """All that a request could have changed."""
    held = [
        (each.client, each.expires, each.relays, sorted(each.permissions), sorted(each.channels))
        for each in world.server.allocations
    ]
    return [held, list(world.ports.opened), list(world.ports.opened_tcp)]


def refused_or_dropped(caller: Caller, data: bytes) -> int:
    """The error code, or 0 for silence with a counter; nothing else may happen."""
    world = caller.world
    before, counted = holdings(world), world.server.counters.total()
    caller.give(data)
    transmits, events = outcome(world)
    assert holdings(world) == before
    assert events == 0
    assert world.server.counters.total() == counted + 1
    if not transmits:
        return 0
    [answer] = transmits
    assert answer.destination == caller.address
    return error_code(parse(answer.data).message)


@pytest.mark.parametrize("name", REQUESTS)
def test_w1_whole_requests_are_obeyed(name: str) -> None:
    """The control of the tests below: undamaged, each of these requests has an effect."""
    caller, request = REQUESTS[name]()
    caller.give(request)
    transmits, events = outcome(caller.world)
    assert events == 1 or error_code(parse(transmits[0].data).message) == 0


@pytest.mark.parametrize("name", REQUESTS)
def test_w1_no_part_of_a_request_is_obeyed(name: str) -> None:
    """Cut at every byte: silence, and one more in the counter of malformed messages."""
    caller, request = REQUESTS[name]()
    for end in range(1, len(request)):
        assert refused_or_dropped(caller, request[:end]) == 0, end
    assert caller.world.server.counters["malformed"] == len(request) - 1


@pytest.mark.parametrize("name", REQUESTS)
def test_w2_a_request_with_a_false_length_is_not_obeyed(name: str) -> None:
    """Any length but the true one in the header: silence."""
    caller, request = REQUESTS[name]()
    true = len(request) - HEADER_SIZE
    for length in {*range(true + 9), *LIES} - {true}:
        assert refused_or_dropped(caller, request[:2] + length.to_bytes(2, "big") + request[4:]) == 0, length


def attribute_lies(data: bytes) -> Iterator[bytes]:
    """The message with the length of one attribute changed, for all attributes and many lengths."""
    at = HEADER_SIZE
    while at < len(data):
        true = int.from_bytes(data[at + 2 : at + 4], "big")
        for length in LIES:
            if length != true:
                yield data[: at + 2] + length.to_bytes(2, "big") + data[at + 4 :]
        at += 4 + true + -true % 4


@pytest.mark.parametrize("name", REQUESTS)
def test_w3_a_request_with_a_false_length_inside_is_not_obeyed(name: str) -> None:
    """Silence, or the refusal of somebody whose signature does not fit, from then on with a pause."""
    caller, request = REQUESTS[name]()
    allowed = {0, BAD_REQUEST, UNAUTHORIZED, UNKNOWN_ATTRIBUTE, STALE_NONCE}
    codes = {refused_or_dropped(caller, lie) for lie in attribute_lies(request)}
    assert codes <= allowed and 0 in codes


def test_w1_no_part_of_what_is_not_for_this_machine_is_answered() -> None:
    """Binding and its parts, and Data indications, which only servers send."""
    caller, request = binding_caller()
    data = Message(Method.DATA, MessageClass.INDICATION, b"d" * 12, (a.Data(b"x"),)).encode()
    for message in (request, data):
        for end in range(1, len(message) + 1):
            assert refused_or_dropped(caller, message[:end]) == 0


def sends_data() -> Caller:
    caller = allocated()
    assert try_peer(caller, "channel", PEER) == 0
    return caller


def test_w3_a_send_indication_never_sends_more_than_it_holds() -> None:
    """Damaged, it sends nothing and is counted, or a piece of its own data to the permitted peer."""
    caller = sends_data()
    text = b"what is to be sent to a peer"
    proof = (a.XorPeerAddress(PEER), a.Data(text))
    send = Message(Method.SEND, MessageClass.INDICATION, b"i" * 12, proof).encode()
    for data in (*(send[:end] for end in range(1, len(send))), *attribute_lies(send)):
        counted = caller.world.server.counters.total()
        caller.give(data)
        transmits, _ = outcome(caller.world)
        if not transmits:
            assert caller.world.server.counters.total() == counted + 1
        for each in transmits:
            assert each.destination == PEER and text.startswith(bytes(each.data))


def test_w14_channel_data_never_sends_more_than_it_holds() -> None:
    """Every cut and every larger length is dropped and counted; a smaller one sends that much."""
    caller = sends_data()
    text = b"to be sent"
    for claimed in LIES:
        for end in range(len(text) + 1):
            counted = caller.world.server.counters.total()
            caller.give(b"\x40\0" + claimed.to_bytes(2, "big") + text[:end])
            transmits, _ = outcome(caller.world)
            assert [bytes(each.data) for each in transmits] == ([text[:claimed]] if claimed <= end else [])
            assert caller.world.server.counters.total() == counted + (claimed > end)


# --- the same at sockets --------------------------------------------------------------------------------


def damaged_messages() -> Iterator[bytes]:
    """Parts and lies of each kind of message."""
    requests = [make()[1] for make in REQUESTS.values()]
    binding = Message(Method.BINDING, MessageClass.REQUEST, b"b" * 12, (a.Priority(1),)).encode()
    for message in (*requests, binding, b"\x40\0\0\x0ato be sent"):
        yield from (message[:end] for end in range(len(message)))
        if message[0] < 0x40:
            yield from attribute_lies(message)
        for length in LIES:
            yield message[:2] + length.to_bytes(2, "big") + message[4:]


async def test_w1_w2_w3_damaged_datagrams_cost_nothing_but_a_counter() -> None:
    """Thousands of them at a real socket, and a client beside them that works as if they were not there."""
    async with front() as running, turn_client(running.address, "user", "password") as client:
        relayed = (await client.allocate()).relayed
        with plain_socket("127.0.0.3") as stranger, plain_socket("127.0.0.2") as peer:
            await client.bind(peer.local)
            for number, data in enumerate(damaged_messages()):
                stranger.send(data, running.address)
                if number % 50 == 0:
                    client.send(b"%d" % number, peer.local)
                    assert await peer.receive() == (b"%d" % number, relayed)
        assert running.counters["allocations"] == 1
        assert "handler_error" not in running.counters
        assert running.counters["turn_malformed"] > 100


async def test_w1_w2_streams_that_end_in_the_middle_leave_nothing() -> None:
    """Each part of an Allocate on a stream of its own, then the end of the stream."""
    async with front() as running:
        server, (_, request) = running.tcp_addresses[0], allocates()
        for end in range(0, len(request), 3):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(request[:end])
            writer.write_eof()
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        await until(lambda: len(vars(running)["_streams"]) == 0)
        assert running.counters["allocations"] == 0
        assert "handler_error" not in running.counters
