"""When links are opened, tried again and let go."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateFactory
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link.choice import MAX_LINKS_OF_A_KIND
from crowline.link.plan import FRESH, LINGER, LONGEST_RETRY, REST, RETRY_AFTER, STEADY, LinkPlan

LOCAL = CandidateFactory().host(Address("203.0.113.1", 5000))


def direct(port: int, priority: int) -> ValidPair:
    pair = CandidatePair(LOCAL, CandidateFactory().host(Address("198.51.100.1", port)))
    pair.priority = priority
    return ValidPair(pair.local, pair.remote, pair)


def relayed(priority: int) -> ValidPair:
    there = Address("198.51.100.9", 9)
    pair = CandidatePair(LOCAL, CandidateFactory().relayed(there, there, there))
    pair.priority = priority
    return ValidPair(pair.local, pair.remote, pair)


FIRST, SECOND, RELAY = direct(1, 10), direct(2, 5), relayed(1)


def test_a_link_is_tried_again_for_ever_each_time_after_twice_as_long() -> None:
    """1, 2, 4 … 60, 60, 60 seconds: a path that comes back after hours is found within a minute."""
    plan, now = LinkPlan(), 100.0
    waits = []
    for _ in range(20):
        assert plan.wants(FIRST, [], [], now)
        now += 5
        plan.ended(FIRST, now)
        assert not plan.wants(FIRST, [], [], now)
        at = plan.next_timeout()
        assert at is not None
        waits.append(at - now)
        assert not plan.due(at - 0.01).look
        now = at
        assert plan.due(now).look
    assert waits[:4] == [RETRY_AFTER, 2 * RETRY_AFTER, 4 * RETRY_AFTER, 8 * RETRY_AFTER]
    assert waits[10:] == [LONGEST_RETRY] * 10
    assert plan.next_timeout() is None


@pytest.mark.parametrize(("lasted", "wait"), [(STEADY, RETRY_AFTER), (STEADY / 2, 8 * RETRY_AFTER)])
def test_only_a_link_that_lasted_makes_up_for_failures(lasted: float, wait: float) -> None:
    """One that comes up and goes again at once is tried ever less often."""
    plan = LinkPlan()
    for _ in range(3):
        plan.ended(FIRST, 0.0)
    plan.up(FIRST, 10.0)
    plan.ended(FIRST, 10.0 + lasted)
    assert plan.next_timeout() == 10.0 + lasted + wait


def test_a_change_of_the_network_makes_failures_forgotten() -> None:
    """The next try is at once, and so is the one after that after one second."""
    plan = LinkPlan()
    for _ in range(9):
        plan.ended(FIRST, 0.0)
    plan.start_over([])
    assert plan.wants(FIRST, [], [], 0.0)
    plan.ended(FIRST, 1.0)
    assert plan.next_timeout() == 1.0 + RETRY_AFTER


def test_a_pair_that_is_no_better_gets_a_link_beside_one_that_carries_nothing() -> None:
    """Or beside one whose way will not last; not beside one that works, and never a second one on a pair."""
    plan = LinkPlan()
    assert not plan.wants(SECOND, [FIRST], [], 0.0)
    assert plan.wants(SECOND, [FIRST], [FIRST.key], 0.0)
    assert not plan.wants(FIRST, [FIRST], [FIRST.key], 0.0)
    plan.start_over([FIRST])
    assert plan.wants(SECOND, [FIRST], [], 0.0)
    plan.ended(FIRST, 0.0)
    assert not plan.wants(SECOND, [FIRST], [], 0.0)


def test_what_has_a_fading_end_gets_no_link_beside_one_that_works() -> None:
    """And does not keep a lasting pair from one, although that is no better."""
    plan = LinkPlan()
    plan.fade(SECOND.remote.address)
    assert plan.is_fading(SECOND)
    assert not plan.wants(SECOND, [direct(3, 1)], [], 0.0)
    assert plan.wants(SECOND, [], [], 0.0)
    assert plan.wants(direct(3, 1), [SECOND], [], 0.0)


def test_a_pair_that_nothing_has_proven_for_long_must_answer_first() -> None:
    """Nothing but a question for consent goes there (RFC 7675); it is looked at again soon."""
    plan = LinkPlan()
    assert not plan.must_answer(FIRST, FRESH)
    assert plan.must_answer(FIRST, FRESH + 1)
    assert not plan.wants(FIRST, [], [], FRESH + 1.5)
    FIRST.proven_at = FRESH + 1.5
    try:
        assert plan.due(FRESH + 2).look
        assert plan.wants(FIRST, [], [], FRESH + 2)
        assert not plan.must_answer(FIRST, FRESH + 2)
    finally:
        FIRST.proven_at = 0.0


def test_links_are_bounded_whatever_ails() -> None:
    """A peer with many candidates cannot have one opened after the other."""
    used = [direct(port, port) for port in range(10, 10 + MAX_LINKS_OF_A_KIND)]
    assert not LinkPlan().wants(FIRST, used, [pair.key for pair in used], 0.0)


def test_direct_links_beside_the_chosen_one_go_after_a_while_and_the_relayed_one_stays() -> None:
    """What is on its way arrives first; the relay is what remains when the direct path dies."""
    plan = LinkPlan()
    plan.chosen(FIRST, [FIRST, SECOND, RELAY], 0.0)
    assert plan.next_timeout() == LINGER
    plan.chosen(FIRST, [FIRST, SECOND, RELAY], LINGER / 2)
    assert plan.due(LINGER).ending == [SECOND.key]


def test_nothing_goes_while_the_streams_take_the_relay() -> None:
    """Whichever direct link answers first again may be needed."""
    plan = LinkPlan()
    plan.chosen(FIRST, [FIRST, SECOND, RELAY], 0.0)
    plan.chosen(RELAY, [FIRST, SECOND, RELAY], 1.0)
    assert plan.next_timeout() is None


def test_a_pair_that_was_let_go_for_a_shorter_one_rests_until_that_one_ends() -> None:
    """Its priority would bring it back at once otherwise."""
    plan = LinkPlan()
    plan.let_go(FIRST, SECOND, 0.0)
    assert not plan.wants(FIRST, [SECOND], [], REST - 1)
    assert plan.wants(FIRST, [SECOND], [], REST)
    plan.let_go(FIRST, SECOND, REST)
    plan.ended(SECOND, REST + 1)
    assert plan.wants(FIRST, [], [], REST + 1)


def test_a_link_that_outlasts_another_after_a_change_of_the_network_is_as_good_as_any() -> None:
    """No other pair that is no better is opened beside it from then on."""
    plan = LinkPlan()
    plan.start_over([FIRST])
    assert plan.wants(SECOND, [FIRST], [], 0.0)
    plan.let_go(SECOND, FIRST, LINGER)
    assert not plan.wants(SECOND, [FIRST], [], LINGER)


def test_what_failed_least_has_its_turn_first() -> None:
    """Among those the best."""
    plan = LinkPlan()
    assert plan.in_turn([RELAY, SECOND, FIRST]) == [FIRST, SECOND, RELAY]
    plan.ended(FIRST, 0.0)
    assert plan.in_turn([RELAY, SECOND, FIRST]) == [SECOND, RELAY, FIRST]
