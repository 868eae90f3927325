"""The TURN client against the server, in virtual time: hours of an allocation in milliseconds."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.integrity import long_term_key
from crowline.stun.message import Message, MessageClass, Method, Received, parse
from crowline.stun.transaction import Schedule
from crowline.turn.auth import issue_credentials
from crowline.turn.client import TurnClient
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    ChannelBound,
    DataReceived,
    PermissionCreated,
    PermissionRefused,
    TurnEvent,
)
from crowline.turn.quota import Limits
from turn_pair import CLIENT, EXPIRES, OTHER_CLIENT, PEER, SECRET, SERVER, World, entropy


def events(client: TurnClient) -> list[TurnEvent]:
    found = []
    while (event := client.next_event()) is not None:
        found.append(event)
    return found


def methods(world: World) -> list[Method]:
    """Count what the clients send from here on, by method."""
    seen: list[Method] = []

    def note(transmit: Transmit, to_server: bool) -> bool:
        if to_server and transmit.data[0] < 0x40:
            seen.append(parse(transmit.data).message.method)
        return False

    world.lose = note
    return seen


# --- allocation -----------------------------------------------------------------------------------------


def test_allocation_takes_two_round_trips() -> None:
    """An unsigned request, its 401, a signed request: then the relayed and the mapped address."""
    world = World()
    client = world.client()
    client.allocate(0.0)
    world.settle()
    assert events(client) == [Allocated(world.ports.opened[0], CLIENT, 600)]
    assert world.to_server == 2


def test_allocating_twice_is_misuse() -> None:
    """One client makes one allocation."""
    client = World().client()
    client.allocate(0.0)
    with pytest.raises(UsageError):
        client.allocate(0.0)


def test_an_impossible_lifetime_does_not_make_the_client_race() -> None:
    """A server that grants no time at all is asked again a second later, and not at once for ever."""
    client = World().client()
    client.allocate(0.0)
    transmit = client.next_transmit()
    assert transmit is not None
    granted = (a.XorRelayedAddress(PEER), a.XorMappedAddress(CLIENT), a.Lifetime(0))
    answer = parse(transmit.data).message.answer(MessageClass.SUCCESS, *granted)
    client.receive(answer.encode(), SERVER, 0.0)
    assert events(client) == [Allocated(PEER, CLIENT, 0)]
    assert client.next_timeout() == 1.0


def test_wrong_password_fails_once_and_stops() -> None:
    """A 401 to a signed request is final: no loop, no further packet."""
    world = World()
    username, _ = issue_credentials(SECRET, "mailbox", EXPIRES)
    client = TurnClient(SERVER, username, Secret(b"wrong"), entropy=entropy(3))
    world.clients[CLIENT] = client
    client.allocate(0.0)
    world.run_until(60.0)
    assert [type(event) for event in events(client)] == [AllocationFailed]
    assert world.to_server == 2
    assert client.next_timeout() is None


def test_mute_server_fails_after_the_schedule() -> None:
    """Nobody answers: 408 when the transaction has run out."""
    world = World()
    world.lose = lambda transmit, to_server: to_server
    client = world.client()
    client.allocate(0.0)
    world.run_until(39.4)
    assert events(client) == []
    world.run_until(39.5)
    assert events(client) == [AllocationFailed(408, "the server does not answer")]


def test_lost_packets_are_retransmitted() -> None:
    """With every second packet of each direction lost, the allocation still comes, once."""
    world = World()
    counts = {True: 0, False: 0}

    def every_second(transmit: Transmit, to_server: bool) -> bool:
        counts[to_server] += 1
        return counts[to_server] % 2 == 1

    world.lose = every_second
    client = world.client()
    client.allocate(0.0)
    world.run_until(30.0)
    assert [type(event) for event in events(client)] == [Allocated]
    assert len(world.ports.opened) == 1


def test_quota_is_reported_with_its_code() -> None:
    """A server error ends the attempt and keeps its code."""
    world = World(limits=Limits(allocations_per_user=0))
    client = world.client()
    client.allocate(0.0)
    world.settle()
    assert [event.code for event in events(client) if isinstance(event, AllocationFailed)] == [486]


def test_ipv6_relay_is_asked_for_by_family() -> None:
    """With a family the request names it, and a server without it answers 440."""
    world = World()
    client = world.client(families=(a.FAMILY_IPV6,))
    client.allocate(0.0)
    world.settle()
    assert [event.code for event in events(client) if isinstance(event, AllocationFailed)] == [440]


# --- keeping alive --------------------------------------------------------------------------------------


def test_allocation_lives_for_hours() -> None:
    """Refreshes, permissions and channels are renewed in time, through many stale nonces."""
    world = World()
    client = world.allocated()
    client.create_permission([PEER], 0.0)
    client.bind_channel(Address(PEER.host, 7001), 0.0)
    world.settle()
    for hour in range(1, 4):
        world.run_until(hour * 3600.0)
        client.handle_timeout(world.now)
        world.peer_sends(client.relayed, b"hello")
        world.peer_sends(client.relayed, b"on a channel", Address(PEER.host, 7001))
    lost = [event for event in events(client) if isinstance(event, AllocationLost)]
    received = world.server.counters["dropped_peer"]
    assert (lost, received) == ([], 0)
    assert world.server.counters["rejected_438"] > 0


def test_renewal_times() -> None:
    """Refresh at 540 s of 600, permissions every 240 s, a channel at 540 s, a keepalive every 20 s."""
    world = World()
    client = world.allocated()
    client.bind_channel(PEER, 0.0)
    world.settle()
    seen = methods(world)
    world.run_until(539.0)
    assert seen.count(Method.REFRESH) == 0
    assert seen.count(Method.CREATE_PERMISSION) == 2
    assert seen.count(Method.BINDING) == 26
    assert seen.count(Method.CHANNEL_BIND) == 0
    world.run_until(541.0)
    assert seen.count(Method.REFRESH) == 1
    assert seen.count(Method.CHANNEL_BIND) == 1


def test_stale_nonce_is_retried_once_for_each_nonce() -> None:
    """A server that calls every nonce stale is asked a few times and then given up."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(4))
    client.allocate(0.0)
    asked = 0
    while (transmit := client.next_transmit()) is not None:
        asked += 1
        request = parse(transmit.data).message
        code = 401 if asked == 1 else 438
        nonce = a.Nonce(f"nonce {asked}")
        answer = request.answer(MessageClass.ERROR, a.ErrorCode(code), a.Realm("realm"), nonce)
        client.receive(answer.encode(), SERVER, 0.0)
    assert asked == 5
    assert [event.code for event in events(client) if isinstance(event, AllocationFailed)] == [438]


def test_the_same_stale_nonce_again_is_not_retried() -> None:
    """A 438 that gives the nonce we used gives up at once."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=entropy(4))
    client.allocate(0.0)
    asked = 0
    while (transmit := client.next_transmit()) is not None:
        asked += 1
        request = parse(transmit.data).message
        error = a.ErrorCode(401 if asked == 1 else 438)
        answer = request.answer(MessageClass.ERROR, error, a.Realm("realm"), a.Nonce("same"))
        client.receive(answer.encode(), SERVER, 0.0)
    assert asked == 2


def test_lost_allocation_is_told() -> None:
    """When the server has forgotten the allocation, the next request says so."""
    world = World()
    client = world.allocated()
    world.server.close()
    client.create_permission([PEER], 0.0)
    world.settle()
    assert [type(event) for event in events(client)] == [AllocationLost]
    assert client.next_timeout() is None


def test_mute_server_loses_the_allocation_before_it_ends() -> None:
    """A refresh that nobody answers ends in `AllocationLost`, within the lifetime."""
    world = World()
    client = world.allocated()
    world.lose = lambda transmit, to_server: to_server
    world.run_until(599.0)
    assert [type(event) for event in events(client)] == [AllocationLost]


# --- closing --------------------------------------------------------------------------------------------


def test_close_gives_the_allocation_back() -> None:
    """Closing deletes the allocation at the server, and a second answer to it means the same."""
    world = World()
    client = world.allocated()
    client.close(0.0)
    world.settle()
    assert client.is_closed
    assert world.ports.opened == []
    assert events(client) == []


def test_close_with_a_lost_answer_is_closed_by_437() -> None:
    """When the first answer is lost, the retransmission meets a 437, and that is success."""
    world = World()
    client = world.allocated()
    world.lose = lambda transmit, to_server: not to_server
    client.close(0.0)
    world.settle()
    assert not client.is_closed
    world.lose = lambda transmit, to_server: False
    world.run_until(1.0)
    assert client.is_closed
    assert events(client) == []


def test_closing_wakes_for_its_own_request_only() -> None:
    """While the deletion is awaited, nothing of the old allocation has a deadline any more."""
    world = World()
    client = world.allocated()
    client.bind_channel(PEER, 0.0)
    world.settle()
    world.lose = lambda transmit, to_server: to_server
    client.close(1.0)
    deadlines = []
    while (at := client.next_timeout()) is not None:
        deadlines.append(at)
        client.handle_timeout(at)
    assert deadlines == [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 40.5]
    assert client.is_closed


def test_close_while_allocating_deletes_what_comes() -> None:
    """An allocation whose answer comes after `close` is deleted."""
    world = World()
    client = world.client()
    client.allocate(0.0)
    world.lose = lambda transmit, to_server: bool(world.ports.opened) and not to_server
    world.settle()
    assert len(world.ports.opened) == 1 and client.relayed is None
    client.close(0.0)
    assert not client.is_closed
    world.lose = lambda transmit, to_server: False
    world.run_until(1.0)
    assert client.is_closed
    assert world.ports.opened == []
    assert events(client) == []


def test_close_before_anything_was_signed_is_done_at_once() -> None:
    """No server allocates for a request without a signature, so nobody has to wait for one that is mute."""
    client = World().client()
    client.allocate(0.0)
    client.close(0.0)
    assert client.is_closed
    assert client.next_timeout() is None


def test_an_allocation_that_was_lost_sight_of_makes_room() -> None:
    """437 to Allocate: the 5-tuple still has what an earlier client of ours left; deleted, it is free."""
    world = World()
    before = world.allocated().relayed
    client = world.client()
    client.allocate(0.0)
    world.settle()
    [event] = events(client)
    assert isinstance(event, Allocated)
    assert world.ports.opened == [event.relayed] and event.relayed != before


def test_an_allocation_of_somebody_else_stays() -> None:
    """437, and 441 to the attempt to delete it: the client fails, and says why."""
    world = World()
    before = world.allocated(user="somebody").relayed
    client = world.client(user="another")
    client.allocate(0.0)
    world.settle()
    assert [event.code for event in events(client) if isinstance(event, AllocationFailed)] == [437]
    assert world.ports.opened == [before]


def test_close_before_anything() -> None:
    """A client that never asked closes without a packet."""
    client = World().client()
    client.close(0.0)
    assert client.is_closed
    assert client.next_transmit() is None


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
