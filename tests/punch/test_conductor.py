"""When plans begin and end, who calls them, in which order, and what is asked of the driver."""

from __future__ import annotations

import pytest

from conducted import COUNTING, EASY, OWN, PEER, POOL, RANDOM, VICTIM, Conducted
from crowline.base.addresses import Address
from crowline.punch.agenda import MAX_CYCLES
from crowline.punch.conductor import (
    PROFILE_TIME,
    QUICK_START,
    SLOW_START,
)
from crowline.punch.conductor_events import (
    Adopt,
    PlanBegun,
    PlanOver,
    PlansExhausted,
    SocketsDone,
    VouchWanted,
)
from crowline.punch.parts import OPENERS
from crowline.punch.plan_choice import FilterKind, Fit, MappingKind, NatSummary, Opens, Way
from crowline.punch.port_prediction import OBSERVATIONS
from crowline.punch.punch_signals import PunchCall, PunchOver, PunchPool, PunchProfile, PunchReady
from crowline.punch.round import AGREEMENT, MAX_HEARD, PROOF_TIME, RoundOutcome
from crowline.punch.spray import MAX_GUESSES, MAX_SOCKETS, PATIENCE
from crowline.punch.spray_budget import MAX_PACKETS, REST

OPEN = NatSummary(MappingKind.INDEPENDENT, FilterKind.OPEN)
SOURCE = Address(PEER, 41_000)


def begun(side: Conducted) -> list[tuple[Way, Opens]]:
    return [(event.way, event.opens) for event in side.found(PlanBegun)]


def outcomes(side: Conducted) -> list[RoundOutcome]:
    return [event.outcome for event in side.found(PlanOver)]


def first_call(side: Conducted) -> float:
    """When the first plan began."""
    return next(at for at, event in side.events if isinstance(event, PlanBegun))


# --- when -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "peer", "wait"),
    [(EASY, RANDOM, QUICK_START), (EASY, EASY, SLOW_START), (OPEN, RANDOM, SLOW_START)],
    ids=["hopeless for checks", "easy for both", "easy enough"],
)
def test_checks_have_their_time_before_any_plan(own: NatSummary, peer: NatSummary, wait: float) -> None:
    """Less where they cannot lead through by what both sides have measured."""
    side = Conducted(leads=True).met(own, peer)
    side.run(10.0)
    assert first_call(side) == pytest.approx(wait)


def test_a_side_that_never_says_what_it_is_behind_is_not_waited_for_longer() -> None:
    """Then everything is possible, and the cheapest way is the first."""
    side = Conducted(leads=True)
    side.conductor.meet(0.0)
    side.conductor.own_summary(RANDOM, OWN, 0.1)
    side.run(PROFILE_TIME + 0.5)
    assert first_call(side) == pytest.approx(PROFILE_TIME)
    assert all(event.fit is not Fit.LIKELY for event in side.found(PlanBegun))


def test_a_profile_that_comes_late_brings_the_first_plan_forward() -> None:
    """As soon as both are known there is nothing to wait for."""
    side = Conducted(leads=True)
    side.conductor.meet(0.0)
    side.conductor.own_summary(EASY, OWN, 0.1)
    side.run(1.5)
    side.hear(PunchProfile.of(RANDOM, PEER))
    side.run(1.6)
    assert first_call(side) == 1.5
    assert begun(side) == [(Way.SPRAY, Opens.PEER)]


def test_nothing_begins_before_both_sides_are_there() -> None:
    """Measuring alone starts nothing, and nothing is told."""
    side = Conducted(leads=True)
    side.conductor.own_summary(EASY, OWN, 0.0)
    side.run(60.0)
    assert side.events == []
    assert side.conductor.next_timeout() is None


def test_a_direct_pair_before_the_first_plan_leaves_it_out() -> None:
    """The usual meeting: no plan, no socket, no packet."""
    side = Conducted(leads=True).met(EASY, EASY)
    side.run(0.2)
    side.conductor.direct(True, 0.2)
    side.run(60.0)
    assert begun(side) == [] and side.asked == [] and side.sent == []
    assert not side.conductor.is_hopeful


def test_a_direct_pair_ends_the_plan_that_runs() -> None:
    """Nothing more is sent, the sockets are closed, and no other plan begins."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.ready(pool=POOL)
    side.run(QUICK_START + 0.1)
    sent = len(side.sent)
    side.conductor.direct(True, side.now)
    side.run(60.0)
    assert 0 < len(side.sent) == sent
    assert outcomes(side) == [RoundOutcome.DIRECT]
    assert len(side.found(SocketsDone)) == 1
    assert side.budget.left(PEER, side.now) == MAX_PACKETS - sent or side.now > REST


def test_plans_begin_anew_when_the_direct_pair_is_lost() -> None:
    """After the checks have had their time again."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.conductor.direct(True, 0.1)
    side.run(30.0)
    side.conductor.direct(False, 30.0)
    side.run(33.0)
    assert first_call(side) == pytest.approx(30.0 + SLOW_START)


def test_a_restart_ends_the_round_and_plans_begin_anew() -> None:
    """Passwords are others, and so may be the networks."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(1.0)
    side.conductor.restarted(1.0)
    side.run(1.0 + SLOW_START + 0.01)
    assert outcomes(side) == [RoundOutcome.STOPPED]
    assert begun(side) == [(Way.SPRAY, Opens.PEER)] * 2


def test_after_the_end_nothing_happens() -> None:
    """Whatever is said then."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(1.0)
    side.conductor.stop(1.0)
    side.drain()
    events = len(side.events)
    side.conductor.meet(2.0)
    side.conductor.own_summary(RANDOM, OWN, 2.0)
    side.conductor.direct(True, 2.0)
    side.conductor.restarted(2.0)
    side.hear(PunchProfile.of(EASY, PEER))
    side.run(60.0)
    assert len(side.events) == events
    assert side.conductor.next_timeout() is None


def test_news_after_a_restart_bring_no_plan_before_the_checks_have_had_their_time_again() -> None:
    """Another network is measured in a moment; easy NATs are for the checks, then as at the beginning."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(30.0)
    plans = len(begun(side))
    side.conductor.restarted(30.0)
    side.hear(PunchProfile.of(EASY, PEER))
    side.run(30.0 + SLOW_START - 0.01)
    assert len(begun(side)) == plans
    side.run(30.0 + SLOW_START)
    assert begun(side)[plans:] == [(Way.LOW_TTL, Opens.BOTH)]


# --- the order ------------------------------------------------------------------------------------------


def test_a_cycle_has_every_way_once_and_ends() -> None:
    """Those that are likelier the second time have three rounds; then it is said that nothing is left."""
    side = Conducted(leads=True, answers=False).met(COUNTING, COUNTING)
    side.run(60.0)
    assert begun(side)[:3] == [(Way.PREDICT_BOTH, Opens.BOTH)] * 3
    assert len(set(begun(side))) == 10
    assert set(outcomes(side)) == {RoundOutcome.UNMEASURED, RoundOutcome.PEER_LATE}
    assert side.found(PlansExhausted)[0].rests == REST
    assert any(isinstance(each, PunchOver) and each.reason == "exhausted" for each in side.said(PunchOver))


def test_later_cycles_have_plans_with_hope_only_and_rest_longer_each_time() -> None:
    """An hour of a pair that never gets through: few cycles, and no end of packets to nowhere."""
    side = Conducted(leads=True, answers=False).met(COUNTING, EASY)
    side.run(3600.0)
    rests = [event.rests for event in side.found(PlansExhausted)]
    assert rests == [REST, 2 * REST, 4 * REST, None]
    assert len(rests) == MAX_CYCLES
    first_end = next(at for at, event in side.events if isinstance(event, PlansExhausted))
    later = [event for at, event in side.events if isinstance(event, PlanBegun) and at > first_end]
    assert later and all(event.fit is not Fit.UNLIKELY for event in later)


def test_what_has_led_through_before_comes_first() -> None:
    """The memory of these two networks beats every profile."""
    side = Conducted(leads=True)
    side.conductor.remember({"peer-first/own": 2}, 0.0)
    side.met(EASY, RANDOM)
    side.run(QUICK_START)
    assert begun(side) == [(Way.PEER_FIRST, Opens.OWN)]


def test_a_profile_that_changes_in_mid_plan_changes_what_comes_after() -> None:
    """The round goes on; the other side hears the new profile at once."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.conductor.own_summary(RANDOM, VICTIM, side.now)
    side.drain()
    assert side.said(PunchProfile)[-1] == PunchProfile.of(RANDOM, VICTIM)
    assert outcomes(side) == []
    side.ready(pool=POOL)
    side.run(QUICK_START + 0.5)
    assert len(side.sent) > 100


def test_a_small_pool_is_tried_again_at_once() -> None:
    """A few samples may have made it too small; a large one has taken its packets."""
    for pool, rounds in ((PunchPool(3000, 3400, 512), 3), (POOL, 1)):
        side = Conducted(leads=True).met(EASY, RANDOM)
        side.run(QUICK_START)
        for _ in range(80):
            side.ready(pool=pool)
            side.run(side.now + 0.2)
        assert begun(side).count((Way.SPRAY, Opens.PEER)) == rounds
        assert begun(side)[:rounds] == [(Way.SPRAY, Opens.PEER)] * rounds


def test_a_spray_that_is_tried_again_has_few_hops() -> None:
    """A NAT that keeps stray packets lets none of the first kind meet, and nothing else shows it."""
    side = Conducted(leads=False).met(RANDOM, EASY)
    side.step = 6007
    limits = []
    for number in range(1, 6):
        side.run(side.now + 30.0)
        before = len(side.sent)
        side.hear(PunchCall(number, "spray", "callee"))
        side.ready(ports=(41_000,))
        side.run(side.now + 2.0)
        limits.append({probe.hop_limit for _, probe in side.sent[before:]})
    assert limits == [{None}, {5}, {None}, {8}, {None}]


# --- what a round does ----------------------------------------------------------------------------------


def test_the_side_that_guesses_sends_to_the_pool_that_it_is_told() -> None:
    """One socket, one question, and 1,040 ports once each, four milliseconds apart."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(QUICK_START)
    (told,) = side.said(PunchReady)
    assert isinstance(told, PunchReady) and told.host == OWN and len(told.ports) == 1
    side.ready(pool=POOL)
    side.run(QUICK_START + PATIENCE + 0.01)
    ports = [probe.destination.port for _, probe in side.sent[:MAX_GUESSES]]
    assert len(set(ports)) == MAX_GUESSES
    assert {probe.destination.host for _, probe in side.sent} == {PEER}
    assert len({probe.socket for _, probe in side.sent[:MAX_GUESSES]}) == len(side.asked[:1]) == 1
    assert outcomes(side)[0] is RoundOutcome.SILENCE


def test_the_side_that_opens_sends_from_many_sockets_to_one_port() -> None:
    """It has told its pool before, out of eight questions."""
    side = Conducted(leads=True).met(RANDOM, EASY)
    side.step = 6007
    side.run(QUICK_START)
    (told,) = side.said(PunchReady)
    assert isinstance(told, PunchReady) and told.pool is not None and told.ports == ()
    side.ready(ports=(41_000,))
    side.run(QUICK_START + 2.0)
    assert len(side.asked) == OBSERVATIONS
    assert {probe.destination for _, probe in side.sent} == {SOURCE}
    assert len({probe.socket for _, probe in side.sent}) == len(side.sent) == MAX_SOCKETS


def test_foretold_ports_are_fenced_in_by_two_questions() -> None:
    """The openers leave between the last two questions, in one moment, with few hops first."""
    side = Conducted(leads=True).met(COUNTING, EASY)
    side.run(QUICK_START)
    assert side.asked == []  # it asks last: when the other side has told its port
    side.ready(ports=(41_000,))
    side.run(QUICK_START + 0.2)
    assert len(side.asked) == OBSERVATIONS + 1
    assert side.asked[-1][0] == side.asked[-2][0] == side.sent[0][0]
    openers = side.sent[:OPENERS]
    assert all(probe.hop_limit == 5 for _, probe in openers)
    (told,) = side.said(PunchReady)
    assert isinstance(told, PunchReady)
    assert sorted(told.ports) == [side.port - side.step * count for count in range(OPENERS, 0, -1)]


def test_ports_that_follow_no_order_end_a_prediction_on_both_sides() -> None:
    """The other side is told, and does not wait."""
    side = Conducted(leads=True).met(COUNTING, EASY)
    side.run(QUICK_START)
    side.step = 9001
    side.ready(ports=(41_000,))
    side.run(QUICK_START + 0.2)
    assert outcomes(side) == [RoundOutcome.NO_PATTERN]
    assert PunchOver(1, "no-pattern") in side.said(PunchOver)


def test_a_packet_that_authenticates_makes_its_socket_a_base() -> None:
    """The sending ends; without a direct pair the round has failed after two seconds."""
    side = Conducted(leads=True).met(RANDOM, EASY)
    side.run(QUICK_START)
    side.ready(ports=(41_000,))
    side.run(QUICK_START + 0.3)
    sent, socket = len(side.sent), side.sent[5][1].socket
    side.conductor.authenticated(socket, SOURCE, side.now)
    side.drain()
    assert side.found(Adopt) == [Adopt(socket, SOURCE)]
    side.run(side.now + AGREEMENT + 0.01)
    assert len(side.sent) == sent
    assert outcomes(side) == [RoundOutcome.NO_PAIR]


def test_few_sockets_become_bases_and_none_of_another_round() -> None:
    """However many packets come, and wherever."""
    side = Conducted(leads=True).met(RANDOM, EASY)
    side.run(QUICK_START)
    side.ready(ports=(41_000,))
    side.run(QUICK_START + 0.5)
    for _, probe in side.sent:
        side.conductor.authenticated(probe.socket, SOURCE, side.now)
    side.conductor.authenticated(100_000, SOURCE, side.now)
    side.drain()
    assert len(side.found(Adopt)) == MAX_HEARD
    side.conductor.direct(True, side.now)
    side.conductor.authenticated(side.sent[-1][1].socket, SOURCE, side.now)
    side.drain()
    assert len(side.found(Adopt)) == MAX_HEARD


def test_socket_numbers_are_never_used_again() -> None:
    """Closing those below a number closes no socket of the next round."""
    side = Conducted(leads=True).met(RANDOM, EASY)
    side.run(30.0)
    lowest, used = 0, set()
    for at, event in side.events:
        if isinstance(event, SocketsDone):
            numbers = {number for when, number in side.asked if when <= at and number < event.below}
            assert all(number >= lowest for number in numbers - used)
            lowest, used = event.below, used | numbers
    assert lowest > 0 and len({number for _, number in side.asked}) == len(side.asked)


# --- who may be sent to ---------------------------------------------------------------------------------


def test_the_hub_is_asked_about_the_host_of_the_profile_at_once() -> None:
    """Its answer is there when the first round needs it."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    assert side.found(VouchWanted) == [VouchWanted(PEER)]


def test_an_unproven_host_gets_nothing() -> None:
    """The round ends after a second in which somebody may vouch, and the other side hears why."""
    side = Conducted(leads=True, vouches=False).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.ready(pool=POOL)
    side.run(QUICK_START + PROOF_TIME + 0.01)
    assert side.sent == []
    assert outcomes(side) == [RoundOutcome.UNPROVEN]
    assert PunchOver(1, "unproven") in side.said(PunchOver)


def test_a_proof_that_comes_a_little_late_is_in_time() -> None:
    """The hub answers after the other side was ready."""
    side = Conducted(leads=True, vouches=False).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.ready(pool=POOL)
    side.run(QUICK_START + 0.4)
    side.conductor.host_proven(PEER, side.now)
    side.run(side.now + 0.1)
    assert len(side.sent) > 20 and outcomes(side) == []


def test_a_host_that_the_hub_sees_later_is_asked_about_again() -> None:
    """The other side's relay may come up after its profile, and a question may be lost with a WebSocket."""
    side = Conducted(leads=True, vouches=False).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.ready(pool=POOL)
    side.vouches = True
    side.run(QUICK_START + PROOF_TIME + 0.1)
    side.ready(ports=(41_000,), pool=POOL)
    side.run(side.now + 0.1)
    assert side.sent and {probe.destination.host for _, probe in side.sent} == {PEER}


def test_packets_that_are_used_up_end_the_cycle() -> None:
    """Nothing else may be sent either: one rest instead of a row of rounds without packets."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    assert side.budget.begin(side, PEER, MAX_PACKETS, 0.0) is None
    assert all(side.budget.spend(side, PEER, 0.0) for _ in range(MAX_PACKETS))
    side.budget.end(side)
    side.run(QUICK_START)
    side.ready(pool=POOL)
    side.run(1.0)
    assert outcomes(side) == [RoundOutcome.LIMITED]
    assert side.found(PlansExhausted) == [PlansExhausted(REST)]
    assert side.said(PunchOver)[0] == PunchOver(1, "limited")
    side.run(1.0 + REST)
    assert len(begun(side)) == 2


def test_a_side_whose_packets_are_used_up_ends_the_cycle_of_the_other() -> None:
    """No round of any way would have its part."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.hear(PunchOver(1, "limited"))
    side.run(QUICK_START + 1.0)
    assert begun(side) == [(Way.SPRAY, Opens.PEER)]
    assert side.found(PlansExhausted) == [PlansExhausted(REST)]


# --- the other side -------------------------------------------------------------------------------------


def test_the_side_that_follows_begins_what_is_called() -> None:
    """Nothing by itself; each call in the place of the one before."""
    side = Conducted(leads=False).met(EASY, RANDOM)
    side.run(30.0)
    assert begun(side) == []
    side.hear(PunchCall(1, "spray", "caller"))
    side.hear(PunchCall(2, "low-ttl", "both"))
    assert begun(side) == [(Way.SPRAY, Opens.PEER), (Way.LOW_TTL, Opens.BOTH)]
    assert outcomes(side) == [RoundOutcome.REPLACED]
    side.hear(PunchCall(2, "spray", "caller"))
    side.hear(PunchCall(1, "spray", "caller"))
    assert len(begun(side)) == 2


def test_a_leader_takes_no_calls() -> None:
    """Roles are agreed on by who joined."""
    side = Conducted(leads=True).met(EASY, EASY)
    side.hear(PunchCall(7, "spray", "callee"))
    assert begun(side) == []


def test_a_side_that_has_a_direct_pair_says_so_instead() -> None:
    """The one that leads waits a while then, and goes on if it was no good."""
    follower = Conducted(leads=False).met(EASY, RANDOM)
    follower.conductor.direct(True, 0.0)
    follower.hear(PunchCall(1, "spray", "caller"))
    assert follower.said(PunchOver) == [PunchOver(1, "direct")]
    leader = Conducted(leads=True).met(EASY, RANDOM)
    leader.run(QUICK_START)
    leader.hear(PunchOver(1, "direct"))
    leader.run(QUICK_START + SLOW_START - 0.01)
    assert len(begun(leader)) == 1
    leader.run(QUICK_START + SLOW_START)
    assert len(begun(leader)) == 2


def test_a_pair_of_the_other_side_shortens_no_rest() -> None:
    """The last round's number is still good for a word that comes late, or again and again."""
    side = Conducted(leads=True, answers=False).met(EASY, RANDOM)
    side.run(60.0)
    (ended, _) = next((at, event) for at, event in side.events if isinstance(event, PlansExhausted))
    other = Conducted(leads=True, answers=False).met(EASY, RANDOM)
    other.run(ended + 0.01)
    plans = len(begun(other))
    other.hear(PunchOver(other.round, "direct"))
    other.run(ended + REST - 0.01)
    assert len(begun(other)) == plans


def test_the_side_that_follows_hears_that_nothing_is_left() -> None:
    """So that both can say why the path is a relay."""
    side = Conducted(leads=False).met(RANDOM, RANDOM)
    side.hear(PunchCall(1, "spray", "caller"))
    side.hear(PunchOver(1, "exhausted"))
    assert side.found(PlansExhausted) == [PlansExhausted(None)]


def test_signals_of_other_rounds_change_nothing() -> None:
    """Neither what is late nor what is invented."""
    side = Conducted(leads=True).met(EASY, RANDOM)
    side.run(QUICK_START)
    side.hear(PunchReady(9, PEER, (41_000,), POOL))
    side.hear(PunchOver(9, "no-pattern"))
    side.run(QUICK_START + 0.1)
    assert side.sent == [] and outcomes(side) == []
