"""Candidates that go away, on either side."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.ice.events import LossReason, PairLost, PairNominated, PairValid
from crowline.ice.pair import ValidPair
from crowline.stun.attributes import UseCandidate
from crowline.stun.message import MessageClass
from puppet import BASE, OTHER_REMOTE, REMOTE, STRANGER, Puppet, events, remote, request, requests

SECOND_BASE = Address("192.0.2.77", 1000)
MAPPED = Address("203.0.113.7", 40000)
LOW = 1000


def two_pairs(controlling: bool = True, **options: object) -> tuple[Puppet, ValidPair, ValidPair]:
    """An agent with two valid pairs, the better one selected; to REMOTE and to OTHER_REMOTE."""
    puppet = Puppet(controlling, **options)  # type: ignore[arg-type]
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    for time, check in puppet.sent_by(0.01):
        puppet.answer(check, time + 0.02)
    if controlling:
        puppet.answer(requests(puppet.sent())[0], 0.1)
    else:
        puppet.receive(puppet.check(use_candidate=True), now=0.1)
        puppet.sent()
    best, spare = puppet.agent.valid_pairs()
    assert puppet.agent.selected is best
    events(puppet.agent)
    return puppet, best, spare


def test_a_remote_candidate_that_is_removed_takes_its_pairs_along() -> None:
    """What carried is lost with the reason, nothing is sent there any more, and the rest stays."""
    puppet, best, spare = two_pairs(False)
    puppet.agent.use(best, 0.2)
    puppet.agent.remove_remote_candidate(REMOTE, 0.3)
    assert events(puppet.agent) == [PairLost(best, LossReason.REMOTE_REMOVED)]
    assert puppet.agent.valid_pairs() == [spare]
    assert puppet.agent.selected is None
    assert not puppet.agent.use(best, 0.4)
    assert [each for _, each in puppet.sent_by(60.0) if each.destination == REMOTE] == []


def test_the_controlling_side_nominates_another_pair_after_a_removal() -> None:
    """The agreed pair is gone, so that the search is open again."""
    puppet, _, spare = two_pairs()
    puppet.agent.remove_remote_candidate(REMOTE, 0.3)
    nomination = puppet.one()
    assert nomination.destination == OTHER_REMOTE
    assert request(nomination).message.get(UseCandidate) is not None
    puppet.answer(nomination, 0.4)
    assert events(puppet.agent)[-1] == PairNominated(spare)


def test_candidates_are_paired_again_after_the_agreed_pair_was_removed() -> None:
    """A nomination had ended the search; without its pair new candidates are checked."""
    puppet, _, spare = two_pairs(False)
    puppet.agent.remove_remote_candidate(REMOTE, 0.3)
    puppet.agent.add_remote_candidate(remote(STRANGER), 0.4)
    assert [each.destination for each in requests(puppet.sent())] == [STRANGER]
    assert puppet.agent.valid_pairs() == [spare]


def test_a_removal_ends_checks_under_way_and_those_that_wait() -> None:
    """No retransmission, no first check, and a late answer proves nothing."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    check = puppet.one()
    puppet.agent.remove_remote_candidate(REMOTE, 0.001)
    puppet.agent.remove_remote_candidate(OTHER_REMOTE, 0.001)
    puppet.answer(check, 0.04)
    assert [each for time, each in puppet.sent_by(60.0) if time > 0] == []
    assert events(puppet.agent) == []
    assert puppet.agent.counters["answer to nothing"] == 1


def test_a_removed_candidate_that_checks_us_is_a_new_one() -> None:
    """An authenticated check shows that somebody is there after all, and is paired where it arrived."""
    puppet, _, _ = two_pairs(False)
    puppet.agent.remove_remote_candidate(REMOTE, 0.3)
    puppet.receive(puppet.check(), REMOTE, 0.4)
    answer, check = puppet.sent()
    assert request(answer).message.message_class is MessageClass.SUCCESS
    puppet.answer(check, 0.5)
    (valid,) = [event for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert valid.pair.remote.foundation.startswith("prflx:")


def test_a_base_that_went_away_takes_everything_along() -> None:
    """Its candidates, its pairs, its checks; packets that still arrive there are unknown."""
    puppet = Puppet(False)
    puppet.agent.add_local_candidate(puppet.factory.host(SECOND_BASE), 0.0)
    server = Address("198.51.100.1", 3478)
    puppet.agent.add_local_candidate(puppet.factory.server_reflexive(MAPPED, BASE, server), 0.0)
    puppet.meet()
    first, second = (each for _, each in puppet.sent_by(0.01))
    puppet.answer(first, 0.04, mapped=MAPPED)
    (pair,) = puppet.agent.valid_pairs()
    events(puppet.agent)
    puppet.agent.remove_local_candidate(BASE, 0.1)
    assert events(puppet.agent) == [PairLost(pair, LossReason.LOCAL_REMOVED)]
    assert [each.address for each in puppet.agent.local_candidates()] == [SECOND_BASE]
    puppet.receive(puppet.check(), now=0.2)
    assert puppet.agent.counters["unknown base"] == 1
    assert {each.local for _, each in puppet.sent_by(10.0)} == {second.local} == {SECOND_BASE}


def test_a_reflexive_candidate_that_went_away_leaves_its_base() -> None:
    """The mapping has changed; pairs are by base, and go on."""
    puppet = Puppet(False)
    server = Address("198.51.100.1", 3478)
    puppet.agent.add_local_candidate(puppet.factory.server_reflexive(MAPPED, BASE, server), 0.0)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    puppet.agent.remove_local_candidate(MAPPED, 0.1)
    assert [each.address for each in puppet.agent.local_candidates()] == [BASE]
    assert len(puppet.agent.valid_pairs()) == 1


def test_a_private_base_goes_with_its_last_reflexive_candidate() -> None:
    """Where the host candidate was kept back, nothing else stands for the base."""
    puppet = Puppet(False)
    server = Address("198.51.100.1", 3478)
    reflexive = puppet.factory.server_reflexive(MAPPED, SECOND_BASE, server)
    puppet.agent.add_local_candidate(reflexive, 0.0)
    puppet.meet()
    assert {each.local for _, each in puppet.sent_by(0.1)} == {BASE, SECOND_BASE}
    puppet.agent.remove_local_candidate(MAPPED, 0.2)
    assert {each.local for _, each in puppet.sent_by(10.0)} == {BASE}


@pytest.mark.parametrize("address", [STRANGER, Address("2001:db8::9", 1)])
def test_the_removal_of_what_was_never_there_is_nothing(address: Address) -> None:
    """Removals may come twice, or before their candidate was kept."""
    puppet, best, spare = two_pairs()
    puppet.agent.remove_remote_candidate(address, 0.3)
    puppet.agent.remove_local_candidate(address, 0.3)
    assert puppet.agent.valid_pairs() == [best, spare]
    assert events(puppet.agent) == puppet.sent() == []


def test_a_candidate_that_comes_and_goes_leaves_room_for_others() -> None:
    """A thousand changes of address on either side are no flood as long as each goes before the next."""
    puppet = Puppet(True)
    puppet.meet()
    for number in range(1000):
        theirs, ours = Address("198.51.100.9", 1 + number), Address("192.0.2.9", 1 + number)
        puppet.agent.add_remote_candidate(remote(theirs), 1.0)
        puppet.agent.add_local_candidate(puppet.factory.host(ours), 1.0)
        puppet.agent.remove_remote_candidate(theirs, 1.0)
        puppet.agent.remove_local_candidate(ours, 1.0)
    assert puppet.agent.counters["remote candidate ignored"] == 0
    assert len(puppet.agent._session.checklist) == 1


def test_a_kept_pair_goes_with_its_candidate_during_a_restart() -> None:
    """What the restart left in use is no longer where the other side can be reached."""
    puppet, best, _ = two_pairs()
    puppet.agent.use(best, 0.2)
    puppet.agent.restart(0.3)
    events(puppet.agent)
    puppet.agent.remove_remote_candidate(REMOTE, 0.4)
    assert events(puppet.agent) == [PairLost(best, LossReason.REMOTE_REMOVED)]
    assert puppet.agent.valid_pairs() == []


def test_a_nomination_under_way_is_over_when_its_candidate_goes() -> None:
    """The next best pair is nominated at once, not when the check of a removed one has timed out."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    for time, check in puppet.sent_by(0.01):
        puppet.answer(check, time + 0.02)
    assert puppet.sent()[-1].destination == REMOTE
    puppet.agent.remove_remote_candidate(REMOTE, 0.1)
    nomination = puppet.one()
    assert nomination.destination == OTHER_REMOTE
    assert request(nomination).message.get(UseCandidate) is not None
