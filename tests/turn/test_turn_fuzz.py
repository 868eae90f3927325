"""Sequences of anything at all: no machine raises, leaks a port, or sends where it must not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.classic import is_classic
from crowline.stun.client import BindingClient
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.responder import Alternates, Responder
from crowline.turn.client import TurnClient
from turn_pair import CLIENT, OTHER_CLIENT, PEER, RELAY_HOST, SERVER, Caller, World, entropy

hosts = st.sampled_from(["44.9.9.9", RELAY_HOST, "127.0.0.1", "10.0.0.1", "2a01:4f8::1", "0.0.0.0"])
addresses = st.builds(Address, hosts, st.integers(0, 65535) | st.integers(50_001, 50_004))
blobs = st.binary(max_size=60)
any_attribute = st.one_of(
    st.builds(a.RequestedTransport, st.sampled_from([17, 6])),
    st.builds(a.Lifetime, st.sampled_from([0, 1, 600, 3600, 2**32 - 1])),
    st.builds(a.XorPeerAddress, addresses),
    st.builds(a.XorRelayedAddress, addresses),
    st.builds(a.XorMappedAddress, addresses),
    st.builds(a.ChannelNumber, st.integers(0x3FFF, 0x4004) | st.integers(0, 65535)),
    st.builds(a.Data, blobs),
    st.builds(a.ErrorCode, st.sampled_from([300, 400, 401, 403, 437, 438, 508])),
    st.builds(a.Realm, st.sampled_from(["crowline", ""])),
    st.builds(a.Nonce, st.text(max_size=20)),
    st.builds(a.EvenPort, st.booleans()),
    st.builds(a.RequestedAddressFamily, st.integers(0, 3)),
    st.builds(a.AdditionalAddressFamily, st.integers(0, 3)),
    st.builds(a.ReservationToken, st.binary(min_size=8, max_size=8)),
    st.builds(a.ChangeRequest, st.booleans(), st.booleans()),
    st.builds(a.DontFragment),
    st.builds(a.UnknownAttribute, st.integers(0x7F00, 0x80FF), blobs),
)
attribute_lists = st.lists(any_attribute, max_size=5).map(tuple)
methods = st.sampled_from(Method)
classes = st.sampled_from(MessageClass)
channel_messages = st.builds(
    lambda number, length, data: number.to_bytes(2, "big") + length.to_bytes(2, "big") + data,
    st.integers(0x3FFE, 0x4004),
    st.integers(0, 70),
    blobs,
)
damage = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=2)
steps = st.one_of(
    st.tuples(st.just("request"), methods, attribute_lists, damage),
    st.tuples(st.just("message"), methods, classes, attribute_lists),
    st.tuples(st.just("bytes"), blobs | channel_messages, st.integers(1, 80)),
    st.tuples(st.just("peer"), blobs, addresses, st.integers(1, 80)),
    st.tuples(st.just("time"), st.sampled_from([0.1, 250.0, 400.0, 4000.0])),
)


def damaged(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    spoiled = bytearray(data)
    for position, change in changes:
        spoiled[position % len(spoiled)] ^= change
    return bytes(spoiled)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_the_server_survives_any_sequence(sequence: list[tuple[object, ...]]) -> None:
    """Whatever clients and peers send, ports and allocations agree, and nothing leaks out."""
    world = World()
    other = Caller(world, OTHER_CLIENT, "other")
    other.allocate()
    caller = Caller(world)
    caller.allocate()
    server = world.server
    for step in sequence:
        perform(step, world, caller)
        while (transmit := server.next_transmit()) is not None:
            to_client = transmit.destination in (CLIENT, OTHER_CLIENT) and transmit.local == SERVER
            to_peer = transmit.local in world.ports.opened and transmit.destination.host == PEER.host
            assert to_client or to_peer
    held = [relay.address for item in server.allocations for relay in item.relays]
    assert set(held) <= set(world.ports.opened)
    server.handle_timeout(world.now + 4000)
    assert world.ports.opened == []
    assert server.next_timeout() is None


def perform(step: tuple[object, ...], world: World, caller: Caller) -> None:
    server = world.server
    match step:
        case ("request", Method() as method, tuple() as attributes, list() as changes):
            data = damaged(caller.signed(method, *attributes), changes)
            server.receive(data, CLIENT, world.now, SERVER)
        case ("message", Method() as method, MessageClass() as cls, tuple() as attributes):
            data = Message(method, cls, b"t" * 12, attributes).encode()
            server.receive(data, CLIENT, world.now, SERVER)
        case ("bytes", bytes() as data, int() as size):
            server.receive(data, CLIENT, world.now, SERVER, size if size < len(data) else None)
        case ("peer", bytes() as data, Address() as source, int() as size):
            for relayed in list(world.ports.opened):
                server.receive_from_peer(data, source, world.now, relayed, size if size < len(data) else None)
        case ("time", float() as seconds):
            world.now += seconds
            server.handle_timeout(world.now)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(methods, classes, attribute_lists, st.booleans(), damage), max_size=15))
def test_the_turn_client_survives_any_server(
    answers: list[tuple[Method, MessageClass, tuple[a.AnyAttribute, ...], bool, list[tuple[int, int]]]],
) -> None:
    """Answers of any kind, also to its own requests, neither raise nor send it anywhere but to its server."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(7))
    client.create_permission([PEER], 0.0)
    client.bind_channel(PEER, 0.0)
    client.allocate(0.0)
    now, last = 0.0, b"t" * 12
    for method, cls, attributes, is_answer, changes in answers:
        while (transmit := client.next_transmit()) is not None:
            assert transmit.destination == SERVER
            request = parse(transmit.data).message
            last, asked = request.transaction_id, request.method
            method = asked if is_answer else method
        client.receive(damaged(Message(method, cls, last, attributes).encode(), changes), SERVER, now)
        client.receive(b"\x40\0\0\1x", SERVER, now)
        now += 7.0
        client.handle_timeout(now)
    client.close(now)
    while (at := client.next_timeout()) is not None:
        client.handle_timeout(at)
        while client.next_transmit() is not None:
            pass
    assert client.is_closed


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(methods, classes, attribute_lists, damage), max_size=10))
def test_responder_and_binding_client_survive_anything(
    messages: list[tuple[Method, MessageClass, tuple[a.AnyAttribute, ...], list[tuple[int, int]]]],
) -> None:
    """Neither raises; the responder answers only Binding requests, and only to the host they came from."""
    responder = Responder(Alternates(SERVER, Address("44.1.1.2", 3479)))
    client = BindingClient(entropy=entropy(8))
    client.query(SERVER, 0.0)
    request = client.next_transmit()
    assert request is not None
    own = bytes(request.data[8:20])
    for method, cls, attributes, changes in messages:
        data = damaged(Message(method, cls, own, attributes).encode(), changes)
        responder.receive(data, CLIENT, 0.0, SERVER)
        answer = responder.next_transmit()
        assert responder.next_transmit() is None
        if answer is not None:
            if not is_classic(data):
                question = parse(data).message
                assert (question.method, question.message_class) == (Method.BINDING, MessageClass.REQUEST)
            assert data[:2] == b"\x00\x01"
            assert answer.destination.host == CLIENT.host
            assert len(answer.data) <= 3 * len(data)
        client.receive(data, SERVER, 0.0)
