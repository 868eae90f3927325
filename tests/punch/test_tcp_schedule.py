"""The plan of a TCP simultaneous open: step by step, and against NATs of every temper in virtual time."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from crowline.base.addresses import Address
from crowline.punch.syn_budget import MAX_UNPROVEN, REPEAT, REPEAT_ON_WINDOWS, SynBudget
from crowline.punch.tcp_schedule import (
    FIRST_HOLD,
    LOW_HOP_LIMITS,
    MAX_ATTEMPTS,
    MAX_PAUSE,
    MAX_UNSENT,
    MIN_PAUSE,
    PATIENCE,
    REFUSALS_TO_LOW,
    Abandon,
    Attempt,
    Command,
    PunchEnd,
    PunchFailed,
    TcpSchedule,
)
from punching_nats import Run, Temper, World

REMOTE = Address("192.0.2.1", 5000)
NOW = 1000.0
RUNS = 300
ROUND_TRIP = 0.02


def schedule(*, proven: bool = True, seed: int = 1, **options: float) -> TcpSchedule:
    budget = SynBudget(10)
    if proven:
        budget.prove(REMOTE)
    return TcpSchedule(REMOTE, budget, entropy=random.Random(seed).randbytes, **options)


def commands(plan: TcpSchedule) -> list[Command]:
    found = []
    while (command := plan.next_transmit()) is not None:
        found.append(command)
    return found


def advance(plan: TcpSchedule) -> float:
    """Go to the next time at which something is due."""
    when = plan.next_timeout()
    assert when is not None
    plan.handle_timeout(when)
    return when


def attempt(plan: TcpSchedule) -> Attempt:
    """The one thing to do is a new attempt."""
    (command,) = commands(plan)
    assert isinstance(command, Attempt)
    return command


def refuse(plan: TcpSchedule, number: int, now: float) -> tuple[Attempt, float]:
    """Refuse an attempt a round trip after it began: the next one, and when it began."""
    plan.refused(number, now + ROUND_TRIP)
    when = advance(plan)
    return attempt(plan), when


def ending(plan: TcpSchedule) -> PunchFailed:
    event = plan.next_event()
    assert event is not None and plan.next_event() is None
    assert plan.is_over and plan.next_timeout() is None
    return event


# --- step by step ---------------------------------------------------------------------------------------


def test_the_first_attempt_begins_at_once() -> None:
    """With the ordinary hop limit; nothing is due before the start, and a second start is none."""
    plan = schedule()
    assert plan.next_timeout() is None
    plan.handle_timeout(NOW)
    assert commands(plan) == []
    plan.start(NOW)
    plan.start(NOW)
    assert commands(plan) == [Attempt(1)]


def test_a_refusal_is_followed_by_a_pause_of_random_length() -> None:
    """Between 5 and 60 ms, and different from side to side."""
    pauses = []
    for seed in range(50):
        plan = schedule(seed=seed)
        plan.start(NOW)
        plan.refused(1, NOW + ROUND_TRIP)
        pauses.append(advance(plan) - NOW - ROUND_TRIP)
        assert commands(plan) == [Attempt(1), Attempt(2)]
    assert MIN_PAUSE <= min(pauses) < 0.015 and 0.050 < max(pauses) <= MAX_PAUSE + 1e-6
    assert len(set(pauses)) == len(pauses)


def test_silence_is_met_by_a_new_socket_without_a_gap_and_then_by_more_patience() -> None:
    """The old socket goes in the moment in which the new one comes; each waits twice as long."""
    plan = schedule()
    plan.start(NOW)
    commands(plan)
    times = [NOW]
    for number in (1, 2, 3):
        times.append(advance(plan))
        assert commands(plan) == [Abandon(number), Attempt(number + 1)]
    holds = [after - before for before, after in itertools.pairwise(times)]
    for hold, least in zip(holds, (FIRST_HOLD, FIRST_HOLD * 2, FIRST_HOLD * 4), strict=True):
        assert least < hold <= least + MAX_PAUSE + 1e-6


def test_a_long_way_is_waited_for() -> None:
    """An attempt is held for two round trips, guessed or measured by a refusal, if that is longer."""
    plan = schedule(round_trip=0.4)
    plan.start(NOW)
    assert 0.8 < (plan.next_timeout() or 0) - NOW < 0.9
    plan = schedule()
    plan.start(NOW)
    plan.refused(1, NOW + 0.25)
    began = advance(plan)
    assert 0.5 < (plan.next_timeout() or 0) - began < 0.6


def test_refusals_lead_to_a_low_hop_limit_and_a_second_one() -> None:
    """After every fifth; it is held until the kernel has repeated the SYN and a round trip has passed."""
    plan = schedule()
    plan.start(NOW)
    current, now = attempt(plan), NOW
    limits = []
    for _ in range(4 * REFUSALS_TO_LOW):
        current, now = refuse(plan, current.number, now)
        limits.append(current.hop_limit)
        if current.hop_limit is not None:
            assert (plan.next_timeout() or 0) - now > REPEAT + FIRST_HOLD
    assert [limit for limit in limits if limit is not None] == list(LOW_HOP_LIMITS)
    assert limits[REFUSALS_TO_LOW - 1] == LOW_HOP_LIMITS[0]


def test_a_router_that_tells_ends_the_low_hop_limits() -> None:
    """The kernel gave that socket up; ordinary attempts go on."""
    plan = schedule()
    plan.start(NOW)
    current, now = attempt(plan), NOW
    while current.hop_limit is None:
        current, now = refuse(plan, current.number, now)
    plan.unreachable(current.number, now + 0.01)
    now = advance(plan)
    current = attempt(plan)
    assert current.hop_limit is None
    for _ in range(3 * REFUSALS_TO_LOW):
        current, now = refuse(plan, current.number, now)
        assert current.hop_limit is None


def test_an_ordinary_attempt_that_is_unreachable_counts_as_refused() -> None:
    """Some NATs answer a SYN by ICMP."""
    plan = schedule()
    plan.start(NOW)
    plan.unreachable(1, NOW + 0.01)
    advance(plan)
    assert commands(plan) == [Attempt(1), Attempt(2)]
    assert plan.refusals == 1


def test_what_is_said_of_an_earlier_attempt_is_not_heard() -> None:
    """A late report changes nothing."""
    plan = schedule()
    plan.start(NOW)
    plan.refused(1, NOW + 0.01)
    now = advance(plan)
    commands(plan)
    due = plan.next_timeout()
    for report in (plan.refused, plan.unreachable, plan.unsent, plan.lost):
        report(1, now)
    plan.opened(1)
    plan.lost(2, now)
    assert plan.next_timeout() == due
    assert commands(plan) == [] and plan.refusals == 1


def test_success_lets_the_plan_rest_until_its_time_is_over() -> None:
    """The open connection is not abandoned, and no failure follows."""
    plan = schedule()
    plan.start(NOW)
    commands(plan)
    plan.opened(1)
    assert plan.next_timeout() == NOW + PATIENCE
    advance(plan)
    assert plan.is_over
    assert commands(plan) == [] and plan.next_event() is None


def test_a_connection_that_the_other_side_made_counts_like_an_own_one() -> None:
    """The attempt under way goes, the plan rests, and goes on if that connection is reset."""
    plan = schedule()
    assert plan.let_in() == 0
    plan.start(NOW)
    assert plan.let_in() == 2
    assert plan.let_in() == 0
    assert commands(plan) == [Attempt(1), Abandon(1)]
    assert plan.next_timeout() == NOW + PATIENCE
    plan.lost(2, NOW + 0.1)
    advance(plan)
    assert commands(plan) == [Attempt(3)]
    plan.opened(3)
    assert plan.let_in() == 0
    plan.stop()
    assert plan.let_in() == 0 and commands(plan) == []


def test_a_connection_that_comes_in_the_pause_ends_it() -> None:
    """There is no attempt to give up then."""
    plan = schedule()
    plan.start(NOW)
    plan.refused(1, NOW + ROUND_TRIP)
    assert plan.let_in() == 2
    assert plan.next_timeout() == NOW + PATIENCE
    assert commands(plan) == [Attempt(1)]


def test_a_connection_that_is_reset_at_once_is_tried_again() -> None:
    """The other side may have given up in that very moment."""
    plan = schedule()
    plan.start(NOW)
    commands(plan)
    plan.opened(1)
    plan.lost(1, NOW + 0.1)
    advance(plan)
    assert commands(plan) == [Attempt(2)]


def test_a_plan_that_is_stopped_says_nothing() -> None:
    """Its socket is closed, unless it is connected."""
    plan = schedule()
    plan.start(NOW)
    commands(plan)
    plan.stop()
    assert commands(plan) == [Abandon(1)]
    assert plan.is_over and plan.next_event() is None and plan.next_timeout() is None
    plan.handle_timeout(NOW + 100)
    plan.proven(NOW + 100)
    assert commands(plan) == [] and plan.next_event() is None


def test_nobody_there_ends_the_plan_in_time() -> None:
    """After five seconds the last socket is closed, and the reason said."""
    plan = schedule()
    plan.start(NOW)
    while not plan.is_over:
        when = advance(plan)
    assert when == NOW + PATIENCE
    assert commands(plan)[-1] == Abandon(plan.attempts)
    assert ending(plan) == PunchFailed(PunchEnd.EXPIRED, plan.attempts, 0)


def test_a_clock_that_jumps_ends_the_plan() -> None:
    """A machine that slept does not go on where it was."""
    plan = schedule()
    plan.start(NOW)
    plan.handle_timeout(NOW + 3600)
    assert commands(plan) == [Attempt(1), Abandon(1)]
    assert ending(plan).reason is PunchEnd.EXPIRED


def test_refusals_that_come_at_once_do_not_make_a_flood() -> None:
    """There is an end to attempts, and their pauses keep it from being reached."""
    plan = schedule()
    plan.start(NOW)
    now = NOW
    while not plan.is_over:
        plan.refused(plan.attempts, now)
        now = advance(plan)
    assert 50 < plan.attempts <= MAX_ATTEMPTS
    assert ending(plan).refusals >= plan.attempts - 1


def test_attempts_that_do_not_leave_end_the_plan() -> None:
    """Once the address may have been taken; ten times on end it is something else."""
    plan = schedule()
    plan.start(NOW)
    now = NOW
    for number in range(1, MAX_UNSENT):
        plan.unsent(number, now)
        now = advance(plan)
    assert not plan.is_over
    plan.unsent(MAX_UNSENT, now)
    assert ending(plan).reason is PunchEnd.UNSENT


# --- the budget -----------------------------------------------------------------------------------------


def syns(plan: TcpSchedule, *, repeat: float = REPEAT) -> int:
    """SYNs of a plan that nobody answers, the kernel's repetitions counted."""
    plan.start(NOW)
    began, sent, now = NOW, 0, NOW
    while True:
        for command in commands(plan):
            if isinstance(command, Attempt):
                began = now
            else:
                sent += 1 + int((now - began) / repeat)
        if plan.is_over:
            return sent
        now = advance(plan)


@pytest.mark.parametrize("repeat", [REPEAT, REPEAT_ON_WINDOWS])
def test_an_unproven_address_gets_five_syns_in_silence(repeat: float) -> None:
    """The kernel's repetitions are among them, and they last for more than a second of skew."""
    plan = schedule(proven=False, repeat=repeat)
    assert syns(plan, repeat=repeat) == MAX_UNPROVEN
    assert ending(plan).reason is PunchEnd.CAPPED


def test_the_last_syns_of_an_unproven_address_go_with_a_low_hop_limit() -> None:
    """It is the chance that remains: three refusals, then one SYN that dies and its repetition."""
    plan = schedule(proven=False)
    plan.start(NOW)
    current, now = attempt(plan), NOW
    limits = [current.hop_limit]
    for _ in range(3):
        current, now = refuse(plan, current.number, now)
        limits.append(current.hop_limit)
    assert limits == [None, None, None, LOW_HOP_LIMITS[0]]
    advance(plan)
    assert commands(plan) == [Abandon(4)]
    advance(plan)
    assert ending(plan) == PunchFailed(PunchEnd.CAPPED, 4, 3)


def test_a_proof_lets_a_plan_go_on() -> None:
    """An authenticated packet by another pair lifts the limit."""
    budget = SynBudget(10)
    for _ in range(MAX_UNPROVEN):
        budget.spend(REMOTE)
    plan = TcpSchedule(REMOTE, budget, entropy=random.Random(1).randbytes)
    plan.start(NOW)
    plan.proven(NOW + 1)
    assert commands(plan) == []
    budget.prove(REMOTE)
    plan.proven(NOW + 2)
    plan.proven(NOW + 2)
    assert commands(plan) == [Attempt(1)]
    assert plan.next_timeout() is not None


def test_plans_for_one_address_share_its_budget() -> None:
    """Pairs of several local addresses with one remote address get five SYNs together."""
    budget = SynBudget(10)
    plans = [TcpSchedule(REMOTE, budget, entropy=random.Random(n).randbytes) for n in range(3)]
    assert sum(map(syns, plans)) == MAX_UNPROVEN


# --- against NATs ---------------------------------------------------------------------------------------

RESETTING = pytest.mark.parametrize("temper", [Temper.RESET, Temper.RESET_ALWAYS], ids=lambda t: t.name)
ROUTERS = pytest.mark.parametrize("routers_tell", [True, False], ids=["icmp", "silent"])


def times(
    tempers: tuple[Temper, Temper], delay: float, *, runs: int = RUNS, loss: float = 0.0, tell: bool = True
) -> tuple[list[float], list[float]]:
    """When both sides were connected, from the first side's start and from the second's, with skews up to
    five one-way delays; those that were not within the patience are left out."""
    dice = random.Random(5)
    since_first, since_second = [], []
    for seed in range(runs):
        skew = 5 * delay * dice.random()
        met = Run(World(tempers, delay, skew, tell, loss), seed).go().connected_at
        if met is not None and met <= PATIENCE:
            since_first.append(met)
            since_second.append(met - skew)
    return since_first, since_second


@RESETTING
@ROUTERS
@pytest.mark.parametrize("delay", [0.005, 0.010, 0.020, 0.040])
def test_nats_that_refuse_are_overcome(temper: Temper, routers_tell: bool, delay: float) -> None:
    """At least 99 of 100 within five seconds, and half of them within 250 ms of the first start."""
    since_first, _ = times((temper, temper), delay, tell=routers_tell)
    assert len(since_first) >= 0.99 * RUNS
    assert statistics.median(since_first) <= 0.25


@RESETTING
@pytest.mark.parametrize("delay", [0.001, 0.100])
def test_short_and_long_ways_are_overcome_too(temper: Temper, delay: float) -> None:
    """Where a millisecond must be hit, or a round trip is 200 ms, it takes longer, and comes about."""
    since_first, since_second = times((temper, temper), delay)
    assert len(since_first) >= 0.99 * RUNS
    assert statistics.median(since_second) <= 0.4


@pytest.mark.parametrize(
    "other", [Temper.DROP, Temper.RESET, Temper.RESET_ALWAYS], ids=lambda temper: temper.name
)
def test_a_nat_that_drops_costs_no_time(other: Temper) -> None:
    """With one of them on the late side, the early side's hole is open: 3 one-way delays at most, mostly."""
    since_first, since_second = times((Temper.DROP, other), 0.020)
    assert len(since_first) == RUNS
    assert statistics.median(since_second) <= 0.0625


def test_two_nats_that_drop_need_one_round_trip_and_a_way() -> None:
    """Whatever the skew: the late SYN goes one way, its answer another, and the last word a third."""
    for skew in (0.0, 0.02, 0.1, 0.5, 2.0):
        met = Run(World((Temper.DROP, Temper.DROP), 0.020, skew), 1).go().connected_at
        assert met is not None and 0.04 <= round(met - skew, 6) <= 0.06


@RESETTING
def test_lost_packets_are_survived(temper: Temper) -> None:
    """One of a hundred, both ways."""
    since_first, _ = times((temper, temper), 0.020, loss=0.01)
    assert len(since_first) >= 0.99 * RUNS


def test_a_low_hop_limit_opens_what_refuses_always_where_routers_are_silent() -> None:
    """A millisecond's way, where chance seldom helps: the slowest is not much slower than two repetitions."""
    since_first, _ = times((Temper.RESET_ALWAYS, Temper.RESET_ALWAYS), 0.001, tell=False)
    assert len(since_first) == RUNS
    assert max(since_first) < 2 * (REPEAT + FIRST_HOLD)


@RESETTING
@ROUTERS
def test_no_more_than_five_syns_leave_for_an_unproven_address(temper: Temper, routers_tell: bool) -> None:
    """Against any NAT; and of those that begin together nearly all meet all the same."""
    met = 0
    for seed in range(100):
        run = Run(World((temper, temper), 0.020, 0.0002 * seed, routers_tell), seed, proven=False).go()
        assert max(len(side.syns_out) for side in run.sides) <= MAX_UNPROVEN
        met += run.connected_at is not None
    assert met >= 99


def test_a_third_party_gets_five_syns() -> None:
    """Somebody who never heard of any of it refuses, or says nothing."""
    for temper in Temper:
        run = Run(World((Temper.DROP, temper), 0.020, skew=100.0), 1, proven=False).go()
        assert len(run.sides[0].syns_out) <= MAX_UNPROVEN
        assert run.sides[0].failed is not None
        assert run.sides[0].failed.reason is PunchEnd.CAPPED
