"""The TURN client against the server, in virtual time: hours of an allocation in milliseconds."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.message import MessageClass, Method, parse
from crowline.turn.auth import issue_credentials
from crowline.turn.client import TurnClient
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
)
from crowline.turn.quota import Limits
from turn_pair import CLIENT, EXPIRES, PEER, SECRET, SERVER, World, entropy, events, methods

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
