"""Order and states of the check list."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.ice.candidate import COMPONENT, UDP, Candidate, CandidateType
from crowline.ice.checklist import MAX_PAIRS, CheckList
from crowline.ice.pair import CandidatePair
from crowline.ice.states import PairState

BASE = Address("10.0.0.2", 5000)


def candidate(address: Address, priority: int, foundation: str) -> Candidate:
    return Candidate(foundation, COMPONENT, UDP, priority, address, CandidateType.HOST, base=address)


def pair(number: int, *, priority: int | None = None, local: str = "1", remote: str = "1") -> CandidatePair:
    ours = candidate(BASE, 1000, local)
    theirs = candidate(Address("198.51.100.1", number), priority or number, remote)
    made = CandidatePair(ours, theirs)
    made.prioritise(True)
    return made


def filled(*pairs: CandidatePair) -> CheckList:
    checklist = CheckList()
    for each in pairs:
        assert checklist.add(each)
    return checklist


def test_a_better_pair_of_a_foundation_waits_and_a_worse_one_freezes() -> None:
    """RFC 8838 §12: the best of a foundation may be checked, the others wait for its outcome."""
    best, worse = pair(9), pair(5)
    filled(best, worse)
    assert (best.state, worse.state) == (PairState.WAITING, PairState.FROZEN)


def test_a_late_pair_of_a_foundation_that_succeeded_waits() -> None:
    """What worked once is worth trying again at once."""
    best, worse = pair(9), pair(5)
    checklist = filled(best)
    best.state = PairState.SUCCEEDED
    checklist.add(worse)
    assert worse.state is PairState.WAITING


def test_foundations_are_compared_whole() -> None:
    """Foundations that share letters, or whose concatenations are equal, stay apart."""
    first = pair(9, local="12", remote="3")
    second = pair(5, local="1", remote="23")
    third = pair(4, local="21", remote="3")
    filled(first, second, third)
    assert [each.state for each in (first, second, third)] == [PairState.WAITING] * 3


def test_success_thaws_its_foundation_only() -> None:
    """Frozen companions wait from then on; other foundations are left alone."""
    best, companion = pair(9), pair(5)
    other, frozen = pair(8, remote="2"), pair(4, remote="2")
    checklist = filled(best, companion, other, frozen)
    checklist.thaw(best.foundation)
    assert companion.state is PairState.WAITING
    assert frozen.state is PairState.FROZEN


def test_ordinary_checks_go_by_priority() -> None:
    """The best Waiting pair is next, whatever the order of adding."""
    low, high, middle = pair(1, remote="a"), pair(9, remote="b"), pair(5, remote="c")
    checklist = filled(low, high, middle)
    order = []
    while (each := checklist.next_check()) is not None:
        each.state = PairState.IN_PROGRESS
        order.append(each)
    assert order == [high, middle, low]


def test_triggered_checks_come_first_in_the_order_of_their_queueing() -> None:
    """FIFO before priority, and no pair twice."""
    low, high, middle = pair(1, remote="a"), pair(9, remote="b"), pair(5, remote="c")
    checklist = filled(low, high, middle)
    checklist.trigger(low)
    checklist.trigger(middle)
    checklist.trigger(low)
    assert [checklist.next_check() for _ in range(3)] == [low, middle, high]


def test_a_failed_pair_that_is_triggered_waits_again() -> None:
    """The other side's check gives a failed pair another chance."""
    failed = pair(1)
    checklist = filled(failed)
    failed.state = PairState.FAILED
    checklist.trigger(failed)
    assert failed.state is PairState.WAITING
    assert checklist.next_check() is failed


def test_frozen_pairs_thaw_when_nobody_of_their_foundation_is_busy() -> None:
    """A foundation whose first pair failed gets its next pair checked; a busy one waits."""
    best, second, third = pair(9), pair(5), pair(3)
    checklist = filled(best, second, third)
    best.state = PairState.IN_PROGRESS
    assert not checklist.has_work()
    assert checklist.next_check() is None
    best.state = PairState.FAILED
    assert checklist.has_work()
    assert checklist.next_check() is second
    assert third.state is PairState.FROZEN


def test_a_redundant_pair_is_not_added() -> None:
    """Same base, same remote address: one pair."""
    checklist = filled(pair(5))
    assert not checklist.add(pair(5, priority=900, local="7"))
    assert len(checklist) == 1


def test_the_list_is_bounded_and_keeps_the_best() -> None:
    """A hundred pairs; a better one displaces the worst that is not under way, a worse one does not."""
    pairs = [pair(number + 10, remote=str(number)) for number in range(MAX_PAIRS)]
    checklist = filled(*pairs)
    assert not checklist.add(pair(1, remote="worse"))
    pairs[0].state = PairState.IN_PROGRESS
    assert checklist.add(pair(999, remote="better"))
    assert len(checklist) == MAX_PAIRS
    assert checklist.find(pairs[0].way) is pairs[0]
    assert checklist.find(pairs[1].key) is None


def test_failed_pairs_make_room_first() -> None:
    """What has failed is worth less than what has not been tried."""
    pairs = [pair(number + 10, remote=str(number)) for number in range(MAX_PAIRS)]
    checklist = filled(*pairs)
    pairs[-1].state = PairState.FAILED
    assert checklist.add(pair(1, remote="new"))
    assert checklist.find(pairs[-1].key) is None


def test_conclusion_drops_what_was_not_sent() -> None:
    """After a nomination only pairs under way stay, and those that the other side has nominated."""
    sent, unsent, wanted = pair(9, remote="a"), pair(8, remote="b"), pair(7, remote="c")
    checklist = filled(sent, unsent, wanted)
    sent.state = PairState.IN_PROGRESS
    wanted.nominate_on_success = True
    checklist.trigger(unsent)
    checklist.trigger(wanted)
    checklist.conclude()
    assert list(checklist) == [sent, wanted]
    assert checklist.next_check() is wanted


def test_priorities_follow_the_role() -> None:
    """After a role switch the bit for the larger controlling side is on the other side."""
    checklist = filled(pair(5))
    (only,) = checklist
    before = only.priority
    checklist.prioritise(False)
    assert before - only.priority == 1
