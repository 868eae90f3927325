"""Nomination policies as pure functions."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.ice.candidate import COMPONENT, UDP, Candidate, CandidateType
from crowline.ice.nomination import BestPossible, Decision, FirstValid
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.ice.states import PairState


def pair(priority: int, *, first_checked: float | None = None) -> CandidatePair:
    address = Address("198.51.100.1", priority)
    candidate = Candidate("1", COMPONENT, UDP, priority, address, CandidateType.HOST)
    return CandidatePair(candidate, candidate, priority, PairState.IN_PROGRESS, first_checked=first_checked)


def valid(priority: int, rtt: float | None = 0.04) -> ValidPair:
    checked = pair(priority)
    return ValidPair(checked.local, checked.remote, checked, rtt)


def test_first_valid_takes_the_best_there_is() -> None:
    """No outstanding pair is waited for."""
    best = valid(5)
    assert FirstValid().decide([valid(3), best], [pair(9)], False, 0.0) == Decision(best)


def test_nothing_valid_is_nothing_to_nominate() -> None:
    """Both policies wait for a first valid pair."""
    for policy in (FirstValid(), BestPossible()):
        assert policy.decide([], [pair(9)], False, 0.0) == Decision(None)


def test_best_possible_nominates_at_once_when_only_worse_pairs_are_open() -> None:
    """An outstanding pair of lower priority could not win."""
    best = valid(5)
    assert BestPossible().decide([best], [pair(4, first_checked=0.0)], False, 0.0) == Decision(best)


def test_best_possible_waits_for_a_better_pair_that_was_not_asked_yet() -> None:
    """Its first check is at most a few Ta away, and then the question comes again."""
    assert BestPossible().decide([valid(5)], [pair(9)], False, 0.0) == Decision(None)


def test_best_possible_gives_a_better_pair_two_round_trips() -> None:
    """A better way that is silent after two round trips of the known one is not waited for."""
    best, better = valid(5, rtt=0.04), pair(9, first_checked=1.0)
    assert BestPossible().decide([best], [better], False, 1.05) == Decision(None, 1.08)
    assert BestPossible().decide([best], [better], False, 1.08) == Decision(best)


def test_best_possible_waits_for_the_last_of_several_better_pairs() -> None:
    """The time to ask again is when the last of them has become hopeless."""
    pairs = [pair(9, first_checked=1.02), pair(8, first_checked=1.0)]
    assert BestPossible().decide([valid(5, rtt=0.04)], pairs, False, 1.03) == Decision(None, 1.1)


def test_best_possible_keeps_a_relayed_pair_back_while_candidates_may_come() -> None:
    """A nomination would end the search that may still find a direct way."""
    address = Address("198.51.100.9", 49152)
    relayed = Candidate("2", COMPONENT, UDP, 5, address, CandidateType.RELAYED)
    pair = ValidPair(relayed, relayed, CandidatePair(relayed, relayed, 5))
    assert BestPossible().decide([pair], [], True, 0.0) == Decision(None)
    assert BestPossible().decide([pair], [], False, 0.0) == Decision(pair)
    assert BestPossible().decide([valid(5)], [], True, 0.0).pair is not None
