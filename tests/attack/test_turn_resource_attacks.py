"""Attacks on what a TURN server has: ports, memory, bandwidth and time, rows Q."""

from __future__ import annotations

import gc
import itertools
import time
import tracemalloc

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance
from crowline.stun.message import Method
from crowline.turn.auth import NONCE_LIFETIME, issue_credentials
from crowline.turn.quota import Limits
from turn_attackers import allocated, try_peer
from turn_pair import (
    CLIENT,
    EXPIRES,
    OTHER_CLIENT,
    PEER,
    SECRET,
    SERVER,
    Caller,
    FakePorts,
    World,
    error_code,
)

# Challenges have a budget of their own, which is not what these tests are about.
PLENTY = Allowance(rate=1e9, burst=1e9)


def test_q1_one_user_cannot_take_all() -> None:
    """The eleventh allocation of a user is 486, by whatever address; other users are served."""
    world = World()
    codes = [error_code(Caller(world, Address("44.2.2.2", 5000 + n)).allocate()) for n in range(15)]
    assert codes == [0] * 10 + [486] * 5
    assert error_code(Caller(world, OTHER_CLIENT, "other").allocate()) == 0


def test_q1_new_credentials_of_the_same_user_share_its_quota() -> None:
    """The quota goes by the user inside the name, so that fresh credentials bring no fresh quota."""
    world = World(limits=Limits(allocations_per_user=1))
    allocated(world)
    again = Caller(world, OTHER_CLIENT)
    again.username, again.password = issue_credentials(SECRET, "mailbox", EXPIRES + 1)
    assert error_code(again.allocate()) == 486


def test_q1_one_source_with_many_users_cannot_take_all() -> None:
    """Whoever has credentials made for many users has one share of the relays, for an IPv6 /64 too."""
    world = World(ports=FakePorts(100), limits=Limits(allocations_per_source=5))
    for prefix in ("44.2.2.2", "2001:db8::"):
        codes = []
        for n in range(8):
            address = Address(f"{prefix}{n:x}" if ":" in prefix else prefix, 5000 + n)
            codes.append(error_code(Caller(world, address, f"user-{n}").allocate()))
        assert codes == [0] * 5 + [486] * 3
    first = Caller(world, CLIENT, "user-0")
    assert first.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert error_code(Caller(world, Address("44.2.2.2", 7000), "late").allocate()) == 0
    assert error_code(Caller(world, OTHER_CLIENT, "other").allocate()) == 0


def test_q2_even_ports_leak_nothing() -> None:
    """EVEN-PORT in a loop of allocating and deleting leaves the pool as it was."""
    world = World(ports=FakePorts(4))
    caller = Caller(world)
    for _ in range(50):
        assert error_code(caller.allocate(a.EvenPort(False))) == 0
        assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert len(world.ports.free) == 4


def test_q4_permissions_and_channels_are_capped() -> None:
    """Past 64 permissions and 32 channels there is 508, and what exists goes on."""
    caller = allocated()
    for n in range(32):
        peer = a.XorPeerAddress(Address(f"44.9.8.{n}", 1))
        assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000 + n), peer) == 0
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4100), a.XorPeerAddress(PEER)) == 508
    codes = [try_peer(caller, "permission", Address(f"44.9.7.{n}", 1)) for n in range(100)]
    assert codes == [0] * 32 + [508] * 68
    assert try_peer(caller, "permission", Address("44.9.8.0", 1)) == 0
    caller.world.now = 301.0
    assert try_peer(caller, "permission", PEER) == 0


def test_q4_channels_count_as_permissions() -> None:
    """When the permissions are used up, a channel to a new address is 508, to a permitted one it is not."""
    caller = allocated()
    for n in range(64):
        assert try_peer(caller, "permission", Address(f"44.9.7.{n}", 1)) == 0
    assert try_peer(caller, "channel", PEER) == 508
    assert try_peer(caller, "channel", Address("44.9.7.1", 1)) == 0


def test_q5_refresh_storms_are_cheap() -> None:
    """Ten thousand refreshes, longer and shorter in turn, leave one alarm and not thousands."""
    caller = allocated()
    requests = [caller.signed(Method.REFRESH, a.Lifetime(seconds)) for seconds in (3600, 600, 1, 2**32 - 1)]
    for n in range(10_000):
        assert caller.send_raw(requests[n % 4]) is not None
    assert len(caller.world.server.allocations.alarms) <= 2


def test_q5_allocating_and_deleting_is_cheap() -> None:
    """A storm of short-lived allocations leaves no trail of alarms."""
    caller = Caller(World())
    for _ in range(2_000):
        caller.allocate()
        caller.code(Method.REFRESH, a.Lifetime(0))
    assert len(caller.world.server.allocations.alarms) < 300


def test_q6_channel_conflicts_are_400() -> None:
    """A number for a second peer, or a second number for a peer, is refused while the binding lives."""
    caller = allocated()
    assert try_peer(caller, "channel", PEER) == 0
    assert try_peer(caller, "channel", Address("44.9.9.8", 1)) == 400
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4001), a.XorPeerAddress(PEER)) == 400


def test_q7_excess_is_dropped_and_neighbours_are_not() -> None:
    """A user that floods gets its rate and no more; another user loses nothing."""
    limits = Limits(bytes_per_second=1_000_000.0)
    world = World(limits=limits)
    flooder, neighbour = allocated(world), allocated(world, OTHER_CLIENT, "other")
    for caller in (flooder, neighbour):
        assert try_peer(caller, "channel", PEER) == 0
    packet = b"\x40\0\x04\x4c" + bytes(1100)
    passed = {CLIENT: 0, OTHER_CLIENT: 0}
    relayed = dict(zip(world.ports.opened, passed, strict=True))
    for n in range(10_000):
        now = n / 1000
        for _ in range(4):
            world.server.receive(packet, CLIENT, now, SERVER)
        if n % 10 == 0:
            world.server.receive(packet, OTHER_CLIENT, now, SERVER)
        while (transmit := world.server.next_transmit()) is not None:
            assert transmit.local is not None
            passed[relayed[transmit.local]] += len(transmit.data)
    assert passed[OTHER_CLIENT] == 1000 * 1100
    assert passed[CLIENT] <= 10 * limits.bytes_per_second + limits.burst
    assert passed[CLIENT] >= 9 * limits.bytes_per_second


def test_q1_ten_thousand_requests_of_one_user_leave_others_served() -> None:
    """A user that goes on asking gets 486 each time and costs no port; 508 is for the pool alone."""
    world = World(ports=FakePorts(12), allowance=PLENTY)
    greedy = [Caller(world, Address("44.2.2.2", 1024 + n)) for n in range(100)]
    codes = {error_code(greedy[n % 100].allocate()) for n in range(2_000)}
    assert codes == {0, 437, 486}
    assert len(world.ports.opened) == 10
    assert error_code(Caller(world, OTHER_CLIENT, "other").allocate()) == 0
    assert error_code(Caller(world, OTHER_CLIENT, "third", Transport.TCP).allocate()) == 0
    assert error_code(Caller(world, OTHER_CLIENT, "third", Transport.TLS).allocate()) == 508


def test_q2_reservations_that_nobody_claims_come_back() -> None:
    """A loop of pairs takes no more than the user's share, and all of it is free after 30 s."""
    world = World(ports=FakePorts(40), allowance=PLENTY)
    codes = []
    for n in range(30):
        caller = Caller(world, Address("44.2.2.2", 5000 + n))
        codes.append(error_code(caller.allocate(a.EvenPort(True))))
        if codes[-1] == 0:
            assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert codes == [0] * 9 + [486] * 21
    assert len(world.ports.free) == 31
    world.server.handle_timeout(30.0)
    assert len(world.ports.free) == 40
    assert world.server.next_timeout() is None


def test_q2_a_token_of_another_user_is_508() -> None:
    """Whoever sees a token cannot claim its port; its owner still can."""
    world = World()
    owner = Caller(world)
    token = owner.allocate(a.EvenPort(True)).get(a.ReservationToken)
    assert token is not None
    assert error_code(Caller(world, OTHER_CLIENT, "thief").allocate(token)) == 508
    assert error_code(Caller(world, OTHER_CLIENT).allocate(token)) == 0


def test_q2_tokens_cannot_be_foreseen() -> None:
    """No two tokens are alike, and none is near another."""
    limits = Limits(allocations_per_user=1000, allocations_per_source=1000)
    world = World(ports=FakePorts(400), limits=limits, allowance=PLENTY)
    tokens = []
    for n in range(100):
        token = (
            Caller(world, Address("44.2.2.2", 5000 + n)).allocate(a.EvenPort(True)).get(a.ReservationToken)
        )
        assert token is not None
        tokens.append(int.from_bytes(token.token, "big"))
    ordered = sorted(tokens)
    assert min(later - earlier for earlier, later in itertools.pairwise(ordered)) > 2**32


@pytest.mark.parametrize("ticket", [(), (a.MobilityTicket(b""),)])
def test_q3_streams_that_come_and_go_pay_for_what_is_kept(ticket: tuple[a.AnyAttribute, ...]) -> None:
    """Allocate and disconnect in a loop: with mobility the relays stay and count, without they are gone."""
    world = World()
    codes = []
    for n in range(15):
        caller = Caller(world, Address("44.2.2.2", 5000 + n), transport=Transport.TCP)
        codes.append(error_code(caller.allocate(*ticket)))
        world.server.disconnect(caller.address, SERVER, Transport.TCP, 0.0)
    assert codes == ([0] * 10 + [486] * 5 if ticket else [0] * 15)
    assert len(world.ports.opened) == (10 if ticket else 0)
    world.server.handle_timeout(600.0)
    assert world.ports.opened == []
    assert error_code(Caller(world).allocate()) == 0


def test_q3_moving_does_not_multiply_the_quota() -> None:
    """However often its relays move, a user has ten; the sources of its moves are free afterwards."""
    world = World(limits=Limits(allocations_per_source=10))
    for n in range(10):
        caller = Caller(world, Address("44.2.2.2", 5000 + n))
        ticket = caller.allocate(a.MobilityTicket(b"")).get(a.MobilityTicket)
        for place in range(5):
            assert ticket is not None
            moved = Caller(world, Address(f"44.2.3.{place}", 5000 + n))
            ticket = moved.call(Method.REFRESH, ticket).get(a.MobilityTicket)
    assert error_code(Caller(world, OTHER_CLIENT).allocate()) == 486
    for host, code in (("44.2.2.2", 0), ("44.2.3.0", 0), ("44.2.3.4", 486)):
        assert error_code(Caller(world, Address(host, 99 + 1024), "other").allocate()) == code


def test_q5_a_storm_of_moves_is_cheap() -> None:
    """Thousands of moves leave two tickets, two places and a handful of alarms."""
    world = World(allowance=PLENTY)
    ticket = Caller(world).allocate(a.MobilityTicket(b"")).get(a.MobilityTicket)
    for n in range(3_000):
        assert ticket is not None
        moved = Caller(world, Address("44.2.3.4", 20_000 + n))
        ticket = moved.call(Method.REFRESH, ticket).get(a.MobilityTicket)
    holdings = vars(world.server)["_holdings"]
    assert len(holdings.tickets) == 2
    assert len(holdings.tickets.alarms) < 300
    assert len(vars(holdings.allocations)["_by_client"]) == 2


def test_q7_a_new_allocation_brings_no_new_allowance() -> None:
    """A user that has used up its rate does not get it back by allocating again."""
    limits = Limits(bytes_per_second=100_000.0)
    world = World(limits=limits, allowance=PLENTY)
    packet, passed = b"\x40\0\x04\x4c" + bytes(1100), 0
    for n in range(100):
        world.now = n / 100
        caller = allocated(world)
        assert try_peer(caller, "channel", PEER) == 0
        for _ in range(200):
            caller.give(packet)
            transmit = world.server.next_transmit()
            passed += len(transmit.data) if transmit is not None else 0
        assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert passed <= limits.burst + limits.bytes_per_second


def test_q7_users_that_left_are_forgotten() -> None:
    """What is remembered of a user lasts as long as its rates take to fill up, and no longer."""
    world = World(allowance=PLENTY)
    for n in range(500):
        caller = allocated(world, Address("44.2.2.2", 1024 + n), f"user-{n}")
        assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    accounts = vars(vars(world.server)["_holdings"].quota)["_accounts"]
    assert len(accounts) == 500
    world.now = 100.0
    allocated(world)
    assert len(accounts) == 1


def crowd(count: int) -> World:
    """That many idle allocations, each of its own user and source."""
    limits = Limits(allocations=count + 10)
    world = World(ports=FakePorts(0), limits=limits)
    pool = iter(Address(f"44.1.{n // 60_000}.1", 1024 + n % 60_000) for n in range(count + 10))
    world.ports.free = [next(pool)]
    for n in range(count):
        caller = Caller(world, Address(f"45.{n >> 16}.{n >> 8 & 255}.{n & 255}", 5000), f"user-{n}")
        assert error_code(caller.allocate()) == 0
        world.ports.free.append(next(pool))
    return world


def cost_of_a_refresh(world: World) -> float:
    """Seconds; the best of several, as other programs share the machine."""
    caller = Caller(world, Address("45.0.0.0", 5000), "user-0")
    request = caller.signed(Method.REFRESH)
    times = []
    for _ in range(300):
        started = time.perf_counter()
        assert caller.send_raw(request) is not None
        world.server.next_timeout()
        times.append(time.perf_counter() - started)
    return min(times)


def test_q5_no_request_costs_more_in_a_crowd() -> None:
    """A refresh beside ten thousand allocations takes about as long as one beside ten, caches aside."""
    assert cost_of_a_refresh(crowd(10_000)) < 5 * cost_of_a_refresh(crowd(10))


def test_q1_an_idle_allocation_is_small() -> None:
    """An allocation costs less than 4 kB of memory here, fixed tables included."""
    crowd(50)
    gc.collect()
    tracemalloc.start()
    world = crowd(1_000)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    world.server.close()
    tracemalloc.stop()
    assert held / 1_000 < 4_000


def test_q9_the_pool_recovers() -> None:
    """When all ports are taken there is 508; each that comes back serves the next, TCP and UDP alike."""
    world = World(ports=FakePorts(2))
    first, second = allocated(world), allocated(world, OTHER_CLIENT)
    third = Caller(world, OTHER_CLIENT, transport=Transport.TCP)
    assert third.code(Method.ALLOCATE, a.RequestedTransport(6)) == 508
    assert first.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert third.code(Method.ALLOCATE, a.RequestedTransport(6)) == 0
    world.server.disconnect(OTHER_CLIENT, SERVER, Transport.TCP, 0.0)
    assert second.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert len(world.ports.free) == 2


def test_q11_after_a_restart_clients_are_told_at_once() -> None:
    """A new process knows no allocation and no nonce: 438, then 437, then a new allocation."""
    before = Caller(World())
    assert error_code(before.allocate()) == 0
    world = World(seed=77)
    after = Caller(world)
    after.nonce = before.nonce
    answer = after.call(Method.REFRESH)
    assert error_code(answer) == 438
    fresh = answer.get(a.Nonce)
    assert fresh is not None
    after.nonce = fresh.value
    assert after.code(Method.REFRESH) == 437
    assert error_code(after.allocate()) == 0


def test_q12_only_the_monotonic_clock_counts() -> None:
    """Lifetimes and nonces go by the time that is handed in; time-limited names by the epoch of the start."""
    world = World()
    caller = allocated(world)
    world.now = NONCE_LIFETIME - 1
    assert caller.code(Method.REFRESH) == 0
    world.now = NONCE_LIFETIME + 1
    assert caller.code(Method.REFRESH) == 438
    assert len(world.ports.opened) == 1
