"""The TURN client: permissions, channels, data, and servers that lie."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.integrity import long_term_key
from crowline.stun.message import Message, MessageClass, Method, Received, parse
from crowline.stun.transaction import Schedule
from crowline.turn.client import TurnClient
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    ChannelBound,
    DataReceived,
    PermissionCreated,
    PermissionRefused,
)
from crowline.turn.quota import Limits
from turn_pair import CLIENT, OTHER_CLIENT, PEER, SERVER, World, entropy, events, methods

# --- permissions and channels ---------------------------------------------------------------------------


def test_permissions_wait_for_the_allocation_and_travel_together() -> None:
    """Peers named before `Allocated` are asked for in one request after it."""
    world = World()
    seen = methods(world)
    client = world.client()
    client.create_permission([PEER], 0.0)
    client.create_permission([Address("44.9.9.10", 1), Address("44.9.9.10", 2)], 0.0)
    client.allocate(0.0)
    world.settle()
    assert seen.count(Method.CREATE_PERMISSION) == 1
    assert [e.peer.host for e in events(client) if isinstance(e, PermissionCreated)] == [
        "44.9.9.9",
        "44.9.9.10",
    ]


def test_a_permission_is_told_once() -> None:
    """Renewals of a permission are no news."""
    world = World()
    client = world.allocated()
    client.create_permission([PEER], 0.0)
    world.run_until(3000.0)
    assert events(client) == [PermissionCreated(PEER)]


def test_a_permission_that_is_forgotten_lapses() -> None:
    """It is not asked for again, and what comes from there is dropped; one with a channel is kept."""
    world = World()
    client = world.allocated()
    elsewhere = Address("44.9.9.10", 1)
    client.create_permission([PEER, elsewhere], 0.0)
    client.bind_channel(elsewhere, 0.0)
    world.settle()
    seen = methods(world)
    client.forget_permission([PEER.host, elsewhere.host])
    world.run_until(250.0)
    assert list(client._peers._permissions) == [elsewhere.host]
    assert seen.count(Method.CREATE_PERMISSION) == 1
    client.create_permission([PEER], 250.0)
    world.settle()
    assert events(client)[-1] == PermissionCreated(PEER)


def test_a_permission_is_not_asked_for_again_once_it_is_forgotten() -> None:
    """A request that nobody has answered is given up then."""
    world = World()
    client = world.allocated()
    world.lose = lambda transmit, to_server: (
        to_server and parse(transmit.data).message.method is Method.CREATE_PERMISSION
    )
    client.create_permission([PEER], 0.0)
    client.forget_permission([PEER.host])
    seen = methods(world)
    world.run_until(200.0)
    assert seen.count(Method.CREATE_PERMISSION) <= 7  # the retransmissions of one request


def test_unanswered_channel_is_asked_again() -> None:
    """A channel request that times out starts over, and data travels by indications meanwhile."""
    world = World()
    client = world.allocated()
    lost = {Method.CHANNEL_BIND}
    world.lose = lambda transmit, to_server: to_server and parse(transmit.data).message.method in lost
    client.bind_channel(PEER, 0.0)
    world.run_until(45.0)
    assert client.wrap(b"x", PEER).data[0] < 0x40
    lost.clear()
    world.run_until(60.0)
    assert [type(event) for event in events(client)] == [ChannelBound]


def test_refused_channel_leaves_indications() -> None:
    """When the server has no channel to give, data still travels, by indications."""
    world = World(limits=Limits(channels=0))
    client = world.allocated()
    client.create_permission([PEER], 0.0)
    client.bind_channel(PEER, 0.0)
    world.settle()
    world.give_server(client.wrap(b"x", PEER), CLIENT)
    world.settle()
    assert world.sent == [(client.relayed, b"x", PEER)]
    assert client.counters["channel_refused"] == 1


def test_one_forbidden_peer_does_not_cost_the_others() -> None:
    """A batch that fails as a whole is asked for one by one."""
    world = World()
    client = world.allocated()
    forbidden = Address("10.0.0.1", 1)
    client.create_permission([PEER, forbidden], 0.0)
    world.settle()
    assert events(client) == [PermissionCreated(PEER), PermissionRefused(forbidden, 403)]
    world.peer_sends(client.relayed, b"x")
    assert events(client) == [DataReceived(b"x", PEER)]


def test_many_peers_make_several_requests() -> None:
    """More peers than fit into one datagram are split, and every request stays below 1,200 bytes."""
    world = World(limits=Limits(permissions=200))
    client = world.allocated()
    sizes: list[int] = []

    def note(transmit: Transmit, to_server: bool) -> bool:
        sizes.append(len(transmit.data))
        return False

    world.lose = note
    client.create_permission([Address(f"44.9.8.{n}", 1) for n in range(100)], 0.0)
    world.settle()
    assert len([e for e in events(client) if isinstance(e, PermissionCreated)]) == 100
    assert max(sizes) < 1200


def test_unanswered_permission_is_asked_again() -> None:
    """A permission request that times out starts over while the allocation lives."""
    world = World()
    client = world.allocated()
    lost = {Method.CREATE_PERMISSION}
    world.lose = lambda transmit, to_server: to_server and parse(transmit.data).message.method in lost
    client.create_permission([PEER], 0.0)
    world.run_until(45.0)
    lost.clear()
    world.run_until(60.0)
    assert events(client) == [PermissionCreated(PEER)]


# --- data -----------------------------------------------------------------------------------------------


def test_data_travels_as_indications_and_then_on_a_channel() -> None:
    """`wrap` uses a Send indication until the channel is bound, and ChannelData from then on."""
    world = World()
    client = world.allocated()
    client.create_permission([PEER], 0.0)
    world.settle()
    before = client.wrap(b"one", PEER)
    assert before.data[0] < 0x40
    client.bind_channel(PEER, 0.0)
    assert client.wrap(b"not yet", PEER).data[0] < 0x40
    world.settle()
    after = client.wrap(b"two", PEER)
    assert bytes(after.data) == b"\x40\x00\x00\x03two"
    world.give_server(before, CLIENT)
    world.give_server(after, CLIENT)
    world.settle()
    assert world.sent == [(client.relayed, b"one", PEER), (client.relayed, b"two", PEER)]
    assert ChannelBound(PEER, 0x4000) in events(client)


def test_data_comes_as_indications_and_then_on_a_channel() -> None:
    """What a peer sends arrives either way; with a channel the server must use it."""
    world = World()
    client = world.allocated()
    client.create_permission([PEER], 0.0)
    world.settle()
    world.peer_sends(client.relayed, b"one")
    client.bind_channel(PEER, 0.0)
    world.settle()
    forms: list[int] = []

    def note(transmit: Transmit, to_server: bool) -> bool:
        forms.append(transmit.data[0])
        return False

    world.lose = note
    world.peer_sends(client.relayed, b"two")
    data = [event for event in events(client) if isinstance(event, DataReceived)]
    assert data == [DataReceived(b"one", PEER), DataReceived(b"two", PEER)]
    assert forms == [0x40]


def test_unwrap_needs_a_known_channel_and_an_honest_length() -> None:
    """The fast path gives peer and payload, and nothing for what it does not know."""
    world = World()
    client = world.allocated()
    client.bind_channel(PEER, 0.0)
    world.settle()
    good = client.unwrap(memoryview(b"\x40\x00\x00\x02ab\0\0"))
    assert good is not None
    assert (good[0], bytes(good[1])) == (PEER, b"ab")
    for bad in (b"\x40\x01\x00\x02ab", b"\x40\x00\x00\x03ab", b"\x40\x00\x00", b"\x00\x01\x00\x00", b""):
        assert client.unwrap(memoryview(bad)) is None


def test_a_run_is_unwrapped_for_the_peers_of_its_channels() -> None:
    """As runs of payload; what is no ChannelData, or of a channel that nobody asked for, is left out."""
    world = World()
    client = world.allocated()
    other = Address("44.9.9.10", 1)
    client.bind_channel(PEER, 0.0)
    client.bind_channel(other, 0.0)
    world.settle()
    bulk = b"\x40\0\0\3abc\x40\0\0\3def\x40\0\0\1g"
    mixed = b"\x40\0\0\3abc\x40\1\0\3def\x40\2\0\3ghi\0\1\0\3jkl\x40\1\0\2mno"
    assert unwrapped(client, bulk) == [(PEER, [b"abc", b"def", b"g"])]
    assert unwrapped(client, mixed) == [(PEER, [b"abc"]), (other, [b"def"]), (other, [b"mn"])]


def unwrapped(client: TurnClient, run: bytes) -> list[tuple[Address, list[bytes]]]:
    return [(peer, [bytes(part) for part in parts]) for peer, parts in client.unwrap_run(run, 7)]


def test_runs_stay_runs_on_a_channel() -> None:
    """`wrap_run` makes one run of ChannelData; without a channel, one indication for each datagram."""
    world = World()
    client = world.allocated()
    client.create_permission([PEER], 0.0)
    world.settle()
    run = bytes(range(10)) * 25
    singles = client.wrap_run(run, 100, PEER)
    assert [parse(t.data).message.get(a.Data) for t in singles] == [
        a.Data(run[:100]),
        a.Data(run[100:200]),
        a.Data(run[200:]),
    ]
    client.bind_channel(PEER, 0.0)
    world.settle()
    (whole,) = client.wrap_run(run, 100, PEER)
    assert (len(whole.data), whole.segment_size) == (250 + 12, 104)
    world.give_server(whole, CLIENT)
    world.settle()
    assert [piece for _, piece, _ in world.sent] == [run[:100], run[100:200], run[200:]]
    (single,) = client.wrap_run(b"x", None, PEER)
    assert single.segment_size is None


def test_relay_to_relay() -> None:
    """Two clients of one server reach each other by their relayed addresses, inside the server."""
    world = World()
    first, second = world.allocated(CLIENT, "a"), world.allocated(OTHER_CLIENT, "b")
    assert first.relayed is not None
    assert second.relayed is not None
    first.bind_channel(second.relayed, 0.0)
    second.bind_channel(first.relayed, 0.0)
    world.settle()
    world.give_server(first.wrap(b"over", second.relayed), CLIENT)
    world.give_server(second.wrap(b"and back", first.relayed), OTHER_CLIENT)
    world.settle()
    assert DataReceived(b"over", first.relayed) in events(second)
    assert DataReceived(b"and back", second.relayed) in events(first)
    assert world.sent == []


# --- liars ----------------------------------------------------------------------------------------------


def first_request(client: TurnClient) -> Message:
    client.allocate(0.0)
    transmit = client.next_transmit()
    assert transmit is not None
    return parse(transmit.data).message


def challenged(client: TurnClient) -> tuple[Message, bytes]:
    """The signed request that follows a 401, and the key that belongs to it."""
    request = first_request(client)
    challenge = request.answer(MessageClass.ERROR, a.ErrorCode(401), a.Realm("realm"), a.Nonce("nonce"))
    client.receive(challenge.encode(), SERVER, 0.0)
    transmit = client.next_transmit()
    assert transmit is not None
    return parse(transmit.data).message, long_term_key("user", "realm", "password")


SUCCESS = (a.XorRelayedAddress(Address("44.1.1.1", 50000)), a.Lifetime(600), a.XorMappedAddress(CLIENT))


def test_unsigned_success_to_a_signed_request_is_ignored() -> None:
    """A success needs our key; a forged one is dropped and the true one still counts."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(5))
    request, key = challenged(client)
    success = request.answer(MessageClass.SUCCESS, *SUCCESS)
    client.receive(success.encode(), SERVER, 0.0)
    client.receive(success.encode(key=b"another"), SERVER, 0.0)
    assert events(client) == []
    client.receive(success.encode(key=key), SERVER, 0.0)
    assert [type(event) for event in events(client)] == [Allocated]


@pytest.mark.parametrize("code", [300, 400, 403, 441, 486, 508])
def test_unsigned_errors_to_a_signed_request_are_ignored(code: int) -> None:
    """Any error but a challenge needs our key too."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(5))
    request, key = challenged(client)
    error = request.answer(MessageClass.ERROR, a.ErrorCode(code))
    client.receive(error.encode(), SERVER, 0.0)
    assert events(client) == []
    client.receive(error.encode(key=key), SERVER, 0.0)
    assert [event.code for event in events(client) if isinstance(event, AllocationFailed)] == [code]


@pytest.mark.parametrize("code", [300, 400])
def test_s6_forged_redirection_is_ignored(code: int) -> None:
    """An unsigned 300 or 400 to the first request does not stop it."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(5))
    request = first_request(client)
    error = request.answer(MessageClass.ERROR, a.ErrorCode(code), a.AlternateServer(Address("192.0.2.66", 1)))
    client.receive(error.encode(), SERVER, 0.0)
    assert events(client) == []
    assert client.next_timeout() == 0.5


def test_signed_redirection_names_the_alternate() -> None:
    """A 300 that verifies is a failure that carries the other's address, and its name where it gives one."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(5))
    request, key = challenged(client)
    other = Address("44.7.7.7", 3478)
    given = (a.ErrorCode(300), a.AlternateServer(other), a.AlternateDomain("other.example"))
    error = request.answer(MessageClass.ERROR, *given)
    client.receive(error.encode(key=key), SERVER, 0.0)
    assert events(client) == [AllocationFailed(300, "", other, "other.example")]


def test_answers_from_elsewhere_are_ignored() -> None:
    """Only the server's own address is listened to."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(5))
    request, key = challenged(client)
    client.receive(request.answer(MessageClass.SUCCESS, *SUCCESS).encode(key=key), PEER, 0.0)
    assert events(client) == []
    assert client.counters["wrong_source"] == 1


def test_data_of_strangers_is_dropped() -> None:
    """Data indications for peers we did not name, requests and garbage are counted and dropped."""
    world = World()
    client = world.allocated()
    data = Message(Method.DATA, MessageClass.INDICATION, b"i" * 12, (a.XorPeerAddress(PEER), a.Data(b"x")))
    for raw in (
        data.encode(),
        Message(Method.DATA, MessageClass.INDICATION, b"i" * 12).encode(),
        Message(Method.BINDING, MessageClass.REQUEST, b"i" * 12).encode(),
        b"\x40\x00\x00\x01x",
        b"\xff" * 30,
        b"",
    ):
        client.receive(raw, SERVER, 0.0)
    assert events(client) == []
    assert sum(client.counters.values()) == 6


def test_late_attributes_of_a_success_do_not_count() -> None:
    """Attributes behind the integrity of an answer are not believed."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(5))
    request, key = challenged(client)
    signed = request.answer(MessageClass.SUCCESS, *SUCCESS[1:]).encode(key=key)
    late = request.answer(MessageClass.SUCCESS, SUCCESS[0]).encode()[20:]
    forged = signed[:2] + (len(signed) + len(late) - 20).to_bytes(2, "big") + signed[4:] + late
    received: Received = parse(forged)
    assert received.message.get(a.XorRelayedAddress) is None
    client.receive(forged, SERVER, 0.0)
    assert [type(event) for event in events(client)] == [AllocationFailed]


def test_schedule_is_a_parameter() -> None:
    """Retransmission is as the caller wants it."""
    client = World().client(schedule=Schedule(rto=0.1))
    client.allocate(2.0)
    assert client.next_timeout() == pytest.approx(2.1)


def test_secrets_do_not_print() -> None:
    """No representation of the client shows the password."""
    client = TurnClient(SERVER, "user", Secret(b"hunter2"), entropy=entropy(6))
    challenged_client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(6))
    challenged(challenged_client)
    credentials = vars(vars(challenged_client)["_requests"])["_credentials"]
    assert "hunter2" not in repr(client) + repr(vars(client))
    assert "password')" not in repr(vars(credentials))
