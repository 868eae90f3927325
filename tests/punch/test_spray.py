"""What a spray sends when, what it may not send, and how it ends."""

from __future__ import annotations

import random

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.punch.port_pool import PortPool, pool_of
from crowline.punch.port_prediction import MAX_BURST
from crowline.punch.spray import (
    BLOCK_SHARE,
    INTERVAL,
    MAX_GUESSES,
    MAX_LAG,
    MAX_SOCKETS,
    PATIENCE,
    ROUND,
    Missed,
    Probe,
    SprayEvent,
    SprayFailed,
    SprayMet,
    SprayPlan,
    at_pool,
    at_ports,
    from_many_sockets,
    guesses_for,
    sockets_for,
)
from crowline.punch.spray_budget import (
    MAX_HOSTS,
    MAX_PACKETS,
    RATE,
    REST,
    Refusal,
    SprayBudget,
    SprayQuota,
)

HOST = "203.0.113.1"
TARGET = Address(HOST, 5000)
NOW = 1000.0
WHOLE = PortPool(1024, 65_535, 64_512)


def budget(*hosts: str) -> SprayBudget:
    made = SprayBudget()
    for host in hosts or (HOST,):
        made.prove_host(host)
    return made


def take(plan: SprayPlan) -> list[Probe]:
    found = []
    while (probe := plan.next_transmit()) is not None:
        found.append(probe)
    return found


def run(plan: SprayPlan, now: float = NOW) -> list[tuple[float, Probe]]:
    """Start it and let it run to its end, unanswered, with an exact timer."""
    plan.start(now)
    sent = [(now, probe) for probe in take(plan)]
    while (when := plan.next_timeout()) is not None:
        plan.handle_timeout(when)
        sent += [(when, probe) for probe in take(plan)]
    return sent


def ending(plan: SprayPlan) -> SprayEvent:
    event = plan.next_event()
    assert event is not None and plan.next_event() is None
    assert plan.is_over and plan.next_timeout() is None and plan.next_transmit() is None
    return event


# --- who sends where ------------------------------------------------------------------------------------


def test_many_sockets_send_once_each_to_the_one_port() -> None:
    """The hard side opens 256 sockets, with a low hop limit where that is asked for."""
    probes = from_many_sockets(TARGET, MAX_SOCKETS, 4)
    assert [probe.socket for probe in probes] == list(range(MAX_SOCKETS))
    assert {(probe.destination, probe.hop_limit) for probe in probes} == {(TARGET, 4)}


def test_one_socket_sends_to_different_ports() -> None:
    """The other side tries 1,040 ports from the socket that it has."""
    probes = at_pool(HOST, WHOLE, random.Random(1).randbytes)
    assert len({probe.destination for probe in probes}) == len(probes) == MAX_GUESSES
    assert {(probe.socket, probe.destination.host) for probe in probes} == {(0, HOST)}


def test_both_sides_together_keep_the_cap() -> None:
    """Sockets and guesses together are at most 1,300 packets for a pool of any size."""
    for size in (1, 100, 512, 2048, 4096, 20_000, 64_512):
        pool = PortPool(1024, 1024 + size - 1, size)
        assert sockets_for(pool) + guesses_for(pool) <= MAX_PACKETS
        assert sockets_for(pool) <= MAX_SOCKETS


def test_a_small_block_is_not_used_up() -> None:
    """Of a subscriber's block, a spray takes an eighth at most."""
    for size in (512, 1024, 2048):
        assert sockets_for(PortPool(4096, 4095 + size, size)) == size // BLOCK_SHARE


# --- when -----------------------------------------------------------------------------------------------


def test_no_second_has_more_packets_than_the_rate() -> None:
    """250 packets a second, evenly."""
    times = [at for at, _ in run(SprayPlan(budget(), at_pool(HOST, WHOLE, random.Random(2).randbytes)))]
    assert len(times) == MAX_GUESSES
    for index in range(len(times) - RATE):
        assert times[index + RATE] - times[index] >= 1.0 - 1e-6
    assert times[-1] - times[0] == pytest.approx((MAX_GUESSES - 1) * INTERVAL)


def test_a_late_timer_catches_up_a_little_only() -> None:
    """After a second without a timer come few packets, no burst."""
    plan = SprayPlan(budget(), from_many_sockets(TARGET, MAX_SOCKETS))
    plan.start(NOW)
    assert len(take(plan)) == 1
    plan.handle_timeout(NOW + 1.0)
    assert 1 < len(take(plan)) <= 1 + round(MAX_LAG / INTERVAL)


def test_a_burst_leaves_at_once() -> None:
    """For a shared target no time lies between the sockets."""
    plan = SprayPlan(budget(), from_many_sockets(TARGET, MAX_BURST), is_burst=True, patience=ROUND)
    assert {at for at, _ in run(plan)} == {NOW}
    assert ending(plan) == SprayFailed(Missed.SILENCE, MAX_BURST)


def test_packets_may_leave_later() -> None:
    """At their times after the start, beside the others, and counted like them."""
    first, again = from_many_sockets(TARGET, 2, 5), from_many_sockets(TARGET, 2)
    purse = budget()
    plan = SprayPlan(
        purse, first, is_burst=True, patience=ROUND, later=[(at, each) for at in (0.1, 0.3) for each in again]
    )
    sent = run(plan)
    assert [at - NOW for at, _ in sent] == pytest.approx([0.0, 0.0, 0.1, 0.1, 0.3, 0.3])
    assert [probe.hop_limit for _, probe in sent] == [5, 5, None, None, None, None]
    assert ending(plan) == SprayFailed(Missed.SILENCE, 6)
    assert purse.left(HOST, NOW) == MAX_PACKETS - 6


def test_later_packets_are_part_of_what_is_asked_for() -> None:
    """A plan that would exceed the budget with them does not begin; neither goes any to another host."""
    probe = Probe(0, TARGET)
    with pytest.raises(UsageError):
        SprayPlan(budget(), [probe], later=[(0.1, probe)] * MAX_PACKETS)
    with pytest.raises(UsageError):
        SprayPlan(budget(), [probe], later=[(0.1, Probe(0, Address("192.0.2.99", 1)))])
    with pytest.raises(UsageError):
        SprayPlan(budget(), [], later=[(0.1, probe)])


def test_what_a_host_may_still_get_is_known() -> None:
    """All of it before anything was sent, and again when it has rested."""
    purse = budget()
    assert purse.left(HOST, NOW) == MAX_PACKETS
    run(SprayPlan(purse, from_many_sockets(TARGET, 100)))
    assert purse.left(HOST, NOW + 1.0) == MAX_PACKETS - 100
    assert purse.left(HOST, NOW + 1.0 + REST) == MAX_PACKETS


def test_a_plan_listens_to_the_end() -> None:
    """A side that has sent everything waits for the other's guesses until five seconds are over."""
    plan = SprayPlan(budget(), from_many_sockets(TARGET, 8))
    run_until = max(at for at, _ in run(plan))
    assert run_until < NOW + 1.0
    assert ending(plan) == SprayFailed(Missed.SILENCE, 8)

    plan = SprayPlan(budget(), from_many_sockets(TARGET, 8))
    plan.start(NOW)
    plan.handle_timeout(NOW + PATIENCE - 0.001)
    plan.authenticated(3, TARGET)
    event = ending(plan)
    assert isinstance(event, SprayMet) and (event.socket, event.source) == (3, TARGET)


# --- the end --------------------------------------------------------------------------------------------


def test_the_first_authenticated_answer_ends_it() -> None:
    """Nothing more is sent, not even what was due, and a second answer changes nothing."""
    plan = SprayPlan(budget(), from_many_sockets(TARGET, MAX_SOCKETS))
    plan.start(NOW)
    take(plan)
    plan.handle_timeout(NOW + INTERVAL)
    plan.authenticated(0, TARGET)
    plan.authenticated(1, TARGET)
    assert isinstance(ending(plan), SprayMet)
    plan.handle_timeout(NOW + 1.0)
    plan.start(NOW + 1.0)
    plan.stop()
    assert plan.next_transmit() is None and plan.next_event() is None


def test_a_plan_that_is_stopped_says_so_once() -> None:
    """Another way has won: the sockets are to be closed."""
    plan = SprayPlan(budget(), from_many_sockets(TARGET, 8))
    plan.start(NOW)
    plan.stop()
    plan.stop()
    assert ending(plan) == SprayFailed(Missed.STOPPED, 1)


def test_a_plan_that_has_not_begun_does_nothing() -> None:
    """Neither time nor packets move it, and stopped it never begins."""
    shared = budget()
    plan = SprayPlan(shared, from_many_sockets(TARGET, 8))
    plan.handle_timeout(NOW)
    plan.authenticated(0, TARGET)
    assert plan.next_timeout() is None and plan.next_event() is None
    plan.stop()
    plan.start(NOW)
    assert ending(plan) == SprayFailed(Missed.STOPPED, 0) and shared.sent == 0


# --- the budget -----------------------------------------------------------------------------------------


def test_a_third_party_gets_nothing() -> None:
    """A host from which nothing authenticated came is not sprayed, whatever the other side says."""
    shared = budget("198.51.100.7")
    plan = SprayPlan(shared, from_many_sockets(TARGET, MAX_SOCKETS))
    assert run(plan) == []
    assert ending(plan) == SprayFailed(Refusal.UNPROVEN, 0) and shared.sent == 0


def test_one_spray_at_a_time() -> None:
    """A second plan is refused while the first runs, against any host, and may begin when it is over."""
    shared = budget(HOST, "203.0.113.2")
    first = SprayPlan(shared, from_many_sockets(TARGET, 8))
    first.start(NOW)
    other = Address("203.0.113.2", 5000)
    second = SprayPlan(shared, from_many_sockets(other, 8))
    assert run(second) == [] and ending(second) == SprayFailed(Refusal.BUSY, 0)
    first.stop()
    assert len(run(SprayPlan(shared, from_many_sockets(other, 8)))) == 8


def test_the_end_of_a_refused_plan_does_not_free_the_budget() -> None:
    """Only the plan that runs gives back the right to spray."""
    shared = budget()
    SprayPlan(shared, from_many_sockets(TARGET, 8)).start(NOW)
    SprayPlan(shared, from_many_sockets(TARGET, 8)).start(NOW)
    third = SprayPlan(shared, from_many_sockets(TARGET, 8))
    third.start(NOW)
    assert ending(third) == SprayFailed(Refusal.BUSY, 0)


def test_plans_together_keep_the_cap_of_a_host() -> None:
    """However many plans follow one another, a host gets 1,300 packets until it has rested."""
    shared = budget()
    sent, now, refused = 0, NOW, 0
    plans = [from_many_sockets(TARGET, 50)] * 10 + [at_pool(HOST, WHOLE, random.Random(3).randbytes)] * 3
    for probes in plans * 2:
        plan = SprayPlan(shared, probes, patience=ROUND)
        sent += len(run(plan, now))
        event = ending(plan)
        assert isinstance(event, SprayFailed)
        refused += event.reason is Refusal.RESTING
        now += ROUND
    assert sent == shared.sent <= MAX_PACKETS and sent >= 1000 and refused > 0
    plan = SprayPlan(shared, from_many_sockets(TARGET, MAX_SOCKETS))
    assert len(run(plan, now + REST)) == MAX_SOCKETS


def test_only_the_owner_spends_and_only_for_its_host() -> None:
    """The budget counts each packet, and none beyond the cap even for a plan that asked for fewer."""
    shared, owner = budget(), object()
    assert shared.begin(owner, HOST, 1, NOW) is None
    assert not shared.spend(object(), HOST, NOW) and not shared.spend(owner, "203.0.113.9", NOW)
    assert sum(shared.spend(owner, HOST, NOW) for _ in range(2 * MAX_PACKETS)) == MAX_PACKETS == shared.sent
    shared.end(owner)
    assert not shared.spend(owner, HOST, NOW)


def test_what_one_meeting_proved_holds_for_no_other() -> None:
    """Whoever shows us a host of their own in one meeting cannot send us there for somebody else."""
    quota = SprayQuota()
    one, other = SprayBudget(quota), SprayBudget(quota)
    one.prove_host(HOST)
    assert other.begin(object(), HOST, 1, NOW) is Refusal.UNPROVEN
    assert one.begin(object(), HOST, 1, NOW) is None


def test_meetings_share_what_a_machine_may_send() -> None:
    """One spray at a time, and no more packets to a host, however many meetings are with it."""
    quota = SprayQuota()
    one, other = SprayBudget(quota), SprayBudget(quota)
    one.prove_host(HOST)
    other.prove_host(HOST)
    assert one.begin(one, HOST, MAX_PACKETS, NOW) is None
    assert other.begin(other, HOST, 1, NOW) is Refusal.BUSY
    for _ in range(MAX_PACKETS):
        assert one.spend(one, HOST, NOW)
    assert not other.spend(other, HOST, NOW)
    one.end(one)
    assert other.begin(other, HOST, 1, NOW) is Refusal.RESTING
    assert one.sent == other.sent == MAX_PACKETS


def test_the_budget_remembers_few_hosts() -> None:
    """The hosts that are proven are bounded; one more is not sprayed."""
    shared = budget(*(f"203.0.113.{number}" for number in range(MAX_HOSTS + 1)))
    assert shared.begin(object(), f"203.0.113.{MAX_HOSTS}", 1, NOW) is Refusal.UNPROVEN
    assert shared.begin(object(), f"203.0.113.{MAX_HOSTS - 1}", 1, NOW) is None


def test_plans_that_make_no_sense_are_refused_to_the_caller() -> None:
    """No packets, too many, two hosts, too large a burst or too many sockets are the caller's mistakes."""
    two_hosts = (*at_ports(HOST, [1]), *at_ports("203.0.113.2", [1]))
    for probes in ((), at_ports(HOST, range(1024, 1025 + MAX_PACKETS)), two_hosts):
        with pytest.raises(UsageError):
            SprayPlan(budget(), probes)
    with pytest.raises(UsageError):
        SprayPlan(budget(), from_many_sockets(TARGET, MAX_BURST + 1), is_burst=True)
    for sockets in (0, MAX_SOCKETS + 1):
        with pytest.raises(UsageError):
            from_many_sockets(TARGET, sockets)


def test_a_spray_of_what_a_few_ports_showed_is_a_plan() -> None:
    """The guesses for any pool that was seen make a plan within its cap and within its time."""
    dice = random.Random(4)
    for spread in (1, 100, 5000, 64_000):
        pool = pool_of([1024 + dice.randrange(spread) for _ in range(8)])
        sent = run(SprayPlan(budget(), at_pool(HOST, pool, dice.randbytes)))
        assert len(sent) == guesses_for(pool) and sent[-1][0] < NOW + PATIENCE - 0.5
