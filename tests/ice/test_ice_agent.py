"""The agent against a hand-written other side: pacing, triggered checks, valid pairs, nomination, failure."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.ice.agent import PATIENCE, IceAgent
from crowline.ice.candidate import CandidateFactory, CandidateType
from crowline.ice.events import (
    FailureReason,
    IceFailed,
    LossReason,
    PairLost,
    PairNominated,
    PairValid,
)
from crowline.ice.locals import LocalCandidates
from crowline.ice.nomination import FirstValid
from crowline.ice.nominator import FALLBACK_AFTER
from crowline.stun.attributes import Priority, UnknownAttribute, UseCandidate, Username, XorMappedAddress
from crowline.stun.message import MessageClass, is_stun
from puppet import (
    BASE,
    HOST_PRIORITY,
    OTHER_REMOTE,
    REMOTE,
    STRANGER,
    Puppet,
    events,
    remote,
    request,
    requests,
)

MAPPED = Address("203.0.113.7", 40000)
SECOND_BASE = Address("192.0.2.77", 1000)
LOW = 1000


def is_nomination(transmit: Transmit) -> bool:
    return request(transmit).message.get(UseCandidate) is not None


# --- pacing and retransmission --------------------------------------------------------------------------


def test_the_first_check_leaves_at_once_and_the_next_after_ta() -> None:
    """No fixed wait before the first; then one for each Ta."""
    puppet = Puppet(True, ta=0.02)
    puppet.meet(*(remote(Address("198.51.100.2", 2000 + n), HOST_PRIORITY - n, str(n)) for n in range(4)))
    times = [time for time, _ in puppet.sent_by(0.3)]
    assert times == pytest.approx([0.0, 0.02, 0.04, 0.06])


def test_ta_has_a_floor() -> None:
    """RFC 8445 §14.2: never more often than every 5 ms."""
    puppet = Puppet(True, ta=0.0)
    puppet.meet(*(remote(Address("198.51.100.2", 2000 + n), HOST_PRIORITY - n, str(n)) for n in range(3)))
    times = [time for time, _ in puppet.sent_by(0.3)]
    assert times == pytest.approx([0.0, 0.005, 0.01])


def test_nothing_leaves_before_the_password_is_known() -> None:
    """Candidates that are trickled ahead of the credentials wait for them."""
    puppet = Puppet(True)
    puppet.agent.add_remote_candidate(remote(REMOTE), 0.0)
    assert puppet.sent() == []
    assert puppet.agent.next_timeout() is None
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 1.0)
    assert puppet.one().destination == REMOTE


def test_a_check_says_who_and_how_much() -> None:
    """USERNAME is receiver:sender, PRIORITY that of a peer-reflexive candidate, and it leaves by the base."""
    puppet = Puppet(True)
    puppet.meet()
    transmit = puppet.one()
    message = request(transmit).message
    assert message.get(Username) == Username(f"{puppet.ufrag}:{puppet.agent.ufrag}")
    assert message.get(Priority) == Priority(1862270975)
    assert transmit.local == BASE
    assert is_stun(transmit.data)


def test_a_check_is_retransmitted_on_the_schedule_of_stun() -> None:
    """Sends at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s, all with one transaction id."""
    puppet = Puppet(True)
    puppet.meet()
    sent = puppet.sent_by(60.0)
    assert [time for time, _ in sent] == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])
    assert len({request(transmit).message.transaction_id for _, transmit in sent}) == 1


def test_an_answer_after_a_second_still_counts() -> None:
    """A round-trip time above the first retransmission time does not fail a pair."""
    puppet = Puppet(True)
    puppet.meet()
    first = puppet.one()
    puppet.agent.handle_timeout(0.5)
    puppet.answer(first, 1.2)
    assert [type(event) for event in events(puppet.agent)] == [PairValid]


def test_trickled_candidates_of_both_sides_are_paired() -> None:
    """A candidate that comes late on either side is checked against all that are known."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.sent()
    puppet.agent.add_local_candidate(puppet.factory.host(SECOND_BASE), 1.0)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE, LOW, "2"), 1.0)
    ways = {(each.local, each.destination) for _, each in puppet.sent_by(1.1)}
    assert {(SECOND_BASE, REMOTE), (BASE, OTHER_REMOTE), (SECOND_BASE, OTHER_REMOTE)} <= ways


def test_reflexive_candidates_make_no_pairs_of_their_own() -> None:
    """They leave by their base, so a pair with it would be the same check again."""
    puppet = Puppet(True)
    server = Address("198.51.100.1", 3478)
    puppet.agent.add_local_candidate(puppet.factory.server_reflexive(MAPPED, BASE, server), 0.0)
    puppet.meet()
    assert [each.local for _, each in puppet.sent_by(0.4)] == [BASE]


def test_families_are_not_mixed() -> None:
    """An IPv4 base has no pair with an IPv6 candidate."""
    puppet = Puppet(True)
    puppet.meet(remote(Address("2001:db8::2", 2000)))
    assert puppet.sent_by(1.0) == []


# --- answering checks -----------------------------------------------------------------------------------


def test_a_check_is_answered_with_its_source_and_triggers_one() -> None:
    """XOR-MAPPED-ADDRESS is where it came from; a check goes back at once."""
    puppet = Puppet(False)
    puppet.meet(remote(OTHER_REMOTE))
    puppet.sent()
    puppet.receive(puppet.check(), now=0.1)
    answer, triggered = puppet.sent()
    assert request(answer).message.get(XorMappedAddress) == XorMappedAddress(REMOTE)
    assert request(answer).is_signed
    assert triggered.destination == REMOTE


def test_a_check_before_the_description_is_answered_and_remembered() -> None:
    """The answer leaves at once, the triggered check as soon as the password is known."""
    puppet = Puppet(False)
    puppet.receive(puppet.check(use_candidate=True))
    answer = puppet.one()
    assert request(answer).message.message_class is MessageClass.SUCCESS
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.3)
    check = puppet.one()
    assert check.destination == REMOTE
    puppet.answer(check, 0.34)
    assert [type(event) for event in events(puppet.agent)] == [PairValid, PairNominated]


def test_an_early_check_of_another_session_is_forgotten() -> None:
    """Its user name does not fit the description that came later."""
    puppet = Puppet(False)
    puppet.receive(puppet.check(username=f"{puppet.agent.ufrag}:someone"))
    puppet.sent()
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.3)
    assert puppet.sent() == []


def test_a_check_on_a_pair_in_progress_starts_a_new_one_and_the_old_answer_counts() -> None:
    """RFC 8445 §7.3.1.4: no more retransmission of the old, its late reply is still good."""
    puppet = Puppet(True)
    puppet.meet()
    old = puppet.one()
    puppet.receive(puppet.check(), now=0.1)
    (new,) = requests(puppet.sent())
    assert request(new).message.transaction_id != request(old).message.transaction_id
    assert [request(each).message.transaction_id for _, each in puppet.sent_by(0.6)] == [
        request(new).message.transaction_id
    ]
    puppet.answer(old, 0.7)
    assert [type(event) for event in events(puppet.agent)] == [PairValid]
    assert [each for _, each in puppet.sent_by(14.0) if not is_nomination(each)] == []


def test_a_check_on_a_pair_that_succeeded_triggers_nothing() -> None:
    """It is only answered."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    puppet.receive(puppet.check(), now=0.05)
    assert request(puppet.one()).message.message_class is MessageClass.SUCCESS


def test_a_check_on_a_failed_pair_gives_it_another_chance() -> None:
    """After a failure the other side's check starts one of ours."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.receive(puppet.error(puppet.one(), 500), now=0.04)
    puppet.receive(puppet.check(), now=1.0)
    assert [each.destination for each in requests(puppet.sent())] == [REMOTE]


def test_a_peer_reflexive_candidate_is_paired_with_the_receiving_base_only() -> None:
    """Another local candidate, older or younger, is not paired with it."""
    puppet = Puppet(False)
    puppet.agent.add_local_candidate(puppet.factory.host(SECOND_BASE), 0.0)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    puppet.receive(puppet.check())
    puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.78", 1000)), 0.1)
    assert {each.local for _, each in puppet.sent_by(0.4)} == {BASE}


def test_a_peer_reflexive_candidate_that_is_signalled_later_takes_the_signalled_form() -> None:
    """It keeps its pair, gets type and priority of the signal, and is paired with every base."""
    puppet = Puppet(False)
    puppet.agent.add_local_candidate(puppet.factory.host(SECOND_BASE), 0.0)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    puppet.receive(puppet.check(priority=1234))
    puppet.answer(requests(puppet.sent())[0], 0.04)
    (pair,) = puppet.agent.valid_pairs()
    assert (pair.remote.type, pair.remote.priority) == (CandidateType.PEER_REFLEXIVE, 1234)
    signalled = replace(remote(REMOTE, 99_999), type=CandidateType.SERVER_REFLEXIVE)
    puppet.agent.add_remote_candidate(signalled, 0.05)
    assert (pair.remote.type, pair.remote.priority) == (CandidateType.SERVER_REFLEXIVE, 99_999)
    assert [each.local for each in requests(puppet.sent())] == [SECOND_BASE]


# --- valid pairs ----------------------------------------------------------------------------------------


def test_an_unknown_mapped_address_becomes_a_local_peer_reflexive_candidate() -> None:
    """The valid pair has the address the other side saw, leaves by the base, and is what is nominated."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04, mapped=MAPPED)
    puppet.answer(puppet.one(), 0.08, mapped=MAPPED)
    valid, nominated = events(puppet.agent)
    assert isinstance(valid, PairValid) and isinstance(nominated, PairNominated)
    assert valid.pair is nominated.pair is puppet.agent.selected
    local = valid.pair.local
    assert (local.type, local.address, local.base) == (CandidateType.PEER_REFLEXIVE, MAPPED, BASE)
    assert local.priority == 1862270975
    assert valid.pair.nominated


def test_a_known_mapped_address_makes_the_valid_pair_of_that_candidate() -> None:
    """A success that shows our reflexive address proves the reflexive candidate."""
    puppet = Puppet(True)
    reflexive = puppet.factory.server_reflexive(MAPPED, BASE, Address("198.51.100.1", 3478))
    puppet.agent.add_local_candidate(reflexive, 0.0)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04, mapped=MAPPED)
    (pair,) = puppet.agent.valid_pairs()
    assert pair.local == reflexive
    assert puppet.agent.is_valid(BASE, REMOTE)
    assert not puppet.agent.is_valid(MAPPED, REMOTE)
    assert not puppet.agent.is_valid(BASE, OTHER_REMOTE)


def test_the_round_trip_time_is_that_of_the_check() -> None:
    """Measured from one send to its answer; a retransmitted check measures nothing."""
    puppet = Puppet(False)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    sent = {each.destination: (time, each) for time, each in puppet.sent_by(0.1)}
    puppet.answer(sent[REMOTE][1], 0.1)
    puppet.agent.handle_timeout(0.6)
    puppet.answer(sent[OTHER_REMOTE][1], 0.7)
    found = {pair.remote.address: pair.rtt for pair in puppet.agent.valid_pairs()}
    assert found == {REMOTE: pytest.approx(0.1), OTHER_REMOTE: None}


# --- nomination -----------------------------------------------------------------------------------------


def test_the_controlling_side_repeats_the_check_with_use_candidate() -> None:
    """Regular nomination: first a success, then the nominating check, then the event."""
    puppet = Puppet(True)
    puppet.meet()
    first = puppet.one()
    assert not is_nomination(first)
    puppet.answer(first, 0.04)
    second = puppet.one()
    assert is_nomination(second)
    assert [type(event) for event in events(puppet.agent)] == [PairValid]
    puppet.answer(second, 0.08)
    assert [type(event) for event in events(puppet.agent)] == [PairNominated]
    assert puppet.sent_by(10.0) == []


def test_a_worse_pair_is_nominated_when_the_better_one_stays_silent() -> None:
    """Two round trips of the pair that works, not the 39 s of the one that does not."""
    puppet = Puppet(True)
    puppet.meet(remote(OTHER_REMOTE), remote(REMOTE, LOW, "2"))
    silent, good = (each for _, each in puppet.sent_by(0.1))
    assert (silent.destination, good.destination) == (OTHER_REMOTE, REMOTE)
    puppet.answer(good, 0.105)
    nominations = [(time, each.destination) for time, each in puppet.sent_by(1.0) if is_nomination(each)]
    assert nominations[0] == (pytest.approx(0.2), REMOTE)


def test_the_controlled_side_takes_a_nomination_before_and_after_its_own_success() -> None:
    """USE-CANDIDATE counts once our own check has succeeded, and at once when it already has."""
    for check_first in (True, False):
        puppet = Puppet(False)
        puppet.meet()
        check = puppet.one()
        if check_first:
            puppet.receive(puppet.check(use_candidate=True), now=0.01)
            assert events(puppet.agent) == []
            puppet.answer(check, 0.04)
        else:
            puppet.answer(check, 0.04)
            puppet.receive(puppet.check(use_candidate=True), now=0.05)
        assert [type(event) for event in events(puppet.agent)] == [PairValid, PairNominated]


def test_a_nomination_by_the_controlled_side_is_ignored() -> None:
    """USE-CANDIDATE means nothing to a controlling agent."""
    puppet = Puppet(True, renominate=True, policy=FirstValid())
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    puppet.sent()
    puppet.receive(puppet.check(use_candidate=True), now=0.05)
    assert [type(event) for event in events(puppet.agent)] == [PairValid]
    assert puppet.agent.selected is None


def test_a_nomination_that_gets_no_answer_falls_back_to_the_next_pair() -> None:
    """After two seconds the next best is nominated; the silent pair is lost when its check is over."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    for time, check in puppet.sent_by(0.01):
        puppet.answer(check, time + 0.02)
    nominations = [(time, each) for time, each in puppet.sent_by(3.0) if is_nomination(each)]
    assert [each.destination for _, each in nominations] == [REMOTE] * 3 + [OTHER_REMOTE] * 2
    since, fallback = nominations[3]
    assert since == pytest.approx(FALLBACK_AFTER, abs=0.05)
    puppet.answer(fallback, 3.0)
    assert puppet.agent.selected is not None
    assert puppet.agent.selected.remote.address == OTHER_REMOTE
    assert not [event for event in events(puppet.agent) if isinstance(event, PairLost)]
    later = [each.destination for _, each in puppet.sent_by(60.0) if is_nomination(each)]
    assert later == [REMOTE] * 4
    (lost,) = [event for event in events(puppet.agent) if isinstance(event, PairLost)]
    assert (lost.pair.remote.address, lost.reason) == (REMOTE, LossReason.NOMINATION_FAILED)


def test_a_nomination_that_is_refused_with_nothing_left_is_failure() -> None:
    """An error answer to the only nomination ends the agent after its patience."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.end_candidates()
    puppet.answer(puppet.one(), 0.04)
    puppet.receive(puppet.error(puppet.one(), 400), now=0.08)
    assert puppet.sent_by(60.0) == []
    assert [type(event) for event in events(puppet.agent)] == [PairValid, PairLost, IceFailed]


def test_after_the_nomination_other_checks_stop() -> None:
    """RFC 8445 §8.1.2: waiting pairs go, those in progress are not sent again."""
    puppet = Puppet(False)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"), remote(Address("198.51.100.4", 1), 5, "3"))
    puppet.receive(puppet.check(use_candidate=True))
    first = requests(puppet.sent())[0]
    puppet.answer(first, 0.003)
    assert [type(event) for event in events(puppet.agent)] == [PairValid, PairNominated]
    puppet.agent.add_remote_candidate(remote(Address("198.51.100.5", 1), 5, "4"), 0.01)
    assert puppet.sent_by(10.0) == []


def test_an_aggressive_peer_ends_with_the_best_of_its_nominations() -> None:
    """Old agents put USE-CANDIDATE into every check; both sides then take the highest priority."""
    puppet = Puppet(False)
    puppet.meet(remote(REMOTE, LOW, "2"), remote(OTHER_REMOTE))
    for source in (REMOTE, OTHER_REMOTE, Address("198.51.100.9", 9)):
        puppet.receive(puppet.check(use_candidate=True, priority=5), source)
    for time, check in puppet.sent_by(0.1):
        if request(check).message.message_class is MessageClass.REQUEST:
            puppet.answer(check, time + 0.2)
    assert puppet.agent.selected is not None
    assert puppet.agent.selected.remote.address == OTHER_REMOTE


def test_renomination_moves_to_a_better_pair_and_keeps_looking() -> None:
    """The first valid pair is nominated at once; a better one that comes late is nominated after it."""
    puppet = Puppet(True, renominate=True, policy=FirstValid())
    puppet.meet(remote(REMOTE, LOW, "2"))
    for now in (0.04, 0.08):
        puppet.answer(puppet.one(), now)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 3.0)
    puppet.answer(puppet.one(), 3.04)
    second = puppet.one()
    assert is_nomination(second)
    puppet.answer(second, 3.08)
    nominated = [event.pair for event in events(puppet.agent) if isinstance(event, PairNominated)]
    assert [pair.remote.address for pair in nominated] == [REMOTE, OTHER_REMOTE]
    assert puppet.agent.selected is nominated[1]


def test_with_renomination_a_worse_pair_is_not_nominated_again() -> None:
    """A pair that becomes valid later and is no better changes nothing."""
    puppet = Puppet(True, renominate=True, policy=FirstValid())
    puppet.meet()
    for now in (0.04, 0.08):
        puppet.answer(puppet.one(), now)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE, LOW, "2"), 3.0)
    puppet.answer(puppet.one(), 3.04)
    assert len(puppet.agent.valid_pairs()) == 2
    assert puppet.sent() == []


def test_the_controlled_side_follows_a_renomination_but_not_a_retransmission() -> None:
    """The latest new nomination counts; a repeated copy of an older one does not bring it back."""
    puppet = Puppet(False, renominate=True)
    puppet.meet(remote(REMOTE, LOW, "2"), remote(OTHER_REMOTE))
    for time, check in puppet.sent_by(0.01):
        puppet.answer(check, time + 0.02)
    older = puppet.check(use_candidate=True)
    puppet.receive(older, REMOTE, 0.1)
    puppet.receive(puppet.check(use_candidate=True), OTHER_REMOTE, 0.2)
    puppet.receive(older, REMOTE, 0.3)
    assert puppet.agent.selected is not None
    assert puppet.agent.selected.remote.address == OTHER_REMOTE
    puppet.receive(puppet.check(use_candidate=True), REMOTE, 0.4)
    assert puppet.agent.selected.remote.address == REMOTE


# --- failure and the end --------------------------------------------------------------------------------


def test_failure_waits_for_both_ends_of_candidates() -> None:
    """Without the other side's end of candidates another one may still come."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.agent.end_of_local_candidates(0.0)
    puppet.sent_by(100.0)
    assert events(puppet.agent) == []
    puppet.agent.end_of_remote_candidates(101.0)
    assert events(puppet.agent) == [IceFailed(FailureReason.NO_ANSWER)]


def test_failure_needs_patience_even_with_nothing_to_check() -> None:
    """RFC 8863: an empty list is not failure before 39.5 s; the other side may still check us."""
    puppet = Puppet(False)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    puppet.end_candidates()
    assert puppet.agent.next_timeout() == PATIENCE
    puppet.agent.handle_timeout(PATIENCE - 0.1)
    assert events(puppet.agent) == []
    puppet.agent.handle_timeout(PATIENCE)
    assert events(puppet.agent) == [IceFailed(FailureReason.NO_CANDIDATES)]
    assert puppet.agent.next_timeout() is None


def test_frozen_pairs_are_all_checked_before_failure() -> None:
    """Pairs of one foundation follow each other although none succeeds."""
    puppet = Puppet(True)
    remotes = [remote(Address("198.51.100.2", 2000 + n), HOST_PRIORITY - n) for n in range(3)]
    puppet.meet(*reversed(remotes))
    puppet.end_candidates()
    sent = puppet.sent_by(200.0)
    assert {each.destination for _, each in sent} == {each.address for each in remotes}
    assert [type(event) for event in events(puppet.agent)] == [IceFailed]


def test_a_closed_agent_is_silent() -> None:
    """No check is left alive, nothing is answered, no event follows."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.agent.close()
    puppet.answer(check, 0.04)
    puppet.receive(puppet.check(), now=0.05)
    puppet.agent.handle_timeout(1.0)
    assert puppet.sent() == events(puppet.agent) == []
    assert puppet.agent.next_timeout() is None


def test_misuse_is_told_to_the_caller() -> None:
    """Weak or changed credentials and too many local candidates raise `UsageError`."""
    puppet = Puppet(True)
    with pytest.raises(UsageError):
        puppet.agent.set_remote("abc", puppet.pwd, 0.0)
    with pytest.raises(UsageError):
        puppet.agent.set_remote(puppet.ufrag, "short", 0.0)
    puppet.meet()
    with pytest.raises(UsageError):
        puppet.agent.set_remote(puppet.ufrag, puppet.pwd + "!", 0.0)
    with pytest.raises(UsageError):
        for number in range(100):
            puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.2", 1 + number)), 0.0)


def test_checks_keep_their_distance_under_a_storm_of_triggers() -> None:
    """Triggered checks are paced by Ta like all others."""
    puppet = Puppet(False, ta=0.02)
    puppet.meet()
    puppet.sent()
    for number in range(10):
        puppet.receive(puppet.check(), Address("198.51.100.2", 4000 + number), 0.001)
    times = [time for time, each in puppet.sent_by(0.4) if requests([each])]
    assert len(times) == 10
    assert all(later - earlier >= 0.02 - 1e-9 for earlier, later in pairwise(times))


def test_an_older_nomination_that_succeeds_late_does_not_undo_a_newer_one() -> None:
    """Our check of the first pair was lost; its success comes after the second nomination was followed."""
    puppet = Puppet(False, renominate=True)
    puppet.meet(remote(REMOTE, LOW, "2"), remote(OTHER_REMOTE))
    checks = {each.destination: each for _, each in puppet.sent_by(0.01)}
    puppet.receive(puppet.check(use_candidate=True), REMOTE, 0.02)
    puppet.receive(puppet.check(use_candidate=True), OTHER_REMOTE, 0.1)
    puppet.answer(checks[OTHER_REMOTE], 0.12)
    puppet.answer(checks[REMOTE], 0.6)
    nominated = [event.pair for event in events(puppet.agent) if isinstance(event, PairNominated)]
    assert [pair.remote.address for pair in nominated] == [OTHER_REMOTE]


def test_a_peer_that_never_ends_its_candidates_is_waited_for_no_longer_than_any_check() -> None:
    """A relayed pair is kept back while candidates may come, and nominated when patience ends."""
    puppet = Puppet(True)
    puppet.agent.end_of_local_candidates(0.0)
    puppet.meet(replace(remote(REMOTE), type=CandidateType.RELAYED))
    puppet.answer(puppet.one(), 0.04)
    nominations = [time for time, each in puppet.sent_by(41.0) if is_nomination(each)]
    assert nominations[0] == PATIENCE


# --- finer points ---------------------------------------------------------------------------------------


def test_a_success_moves_its_foundation_ahead_of_worse_ones() -> None:
    """A frozen companion thaws at once, and is checked before a worse pair that was waiting."""
    puppet = Puppet(False, ta=0.05)
    companion, worse = Address("198.51.100.2", 2001), Address("198.51.100.4", 1)
    puppet.meet(remote(REMOTE, 90, "1"), remote(companion, 80, "1"), remote(worse, 70, "2"))
    puppet.answer(puppet.one(), 0.04)
    ways = [each.destination for _, each in puppet.sent_by(0.4)]
    assert ways == [companion, worse]


def test_after_the_nomination_checks_in_progress_are_not_sent_again() -> None:
    """They were sent once; their late answers would still count."""
    puppet = Puppet(False)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    first, second = (each for _, each in puppet.sent_by(0.1))
    puppet.answer(first, 0.1)
    puppet.receive(puppet.check(use_candidate=True), now=0.11)
    puppet.sent()
    assert requests([each for _, each in puppet.sent_by(14.0)]) == []
    puppet.answer(second, 14.1)
    assert len(puppet.agent.valid_pairs()) == 2


def test_after_the_nomination_a_check_on_another_pair_is_only_answered() -> None:
    """The search is over; a check without USE-CANDIDATE starts nothing, on a new pair or a failed one."""
    puppet = Puppet(False)
    failed = Address("198.51.100.4", 1)
    puppet.meet(remote(REMOTE), remote(failed, LOW, "2"))
    first, second = (each for _, each in puppet.sent_by(0.01))
    puppet.receive(puppet.error(second, 500), failed, 0.03)
    puppet.answer(first, 0.04)
    puppet.receive(puppet.check(use_candidate=True), now=0.05)
    puppet.sent()
    puppet.receive(puppet.check(), OTHER_REMOTE, 0.1)
    puppet.receive(puppet.check(), failed, 0.1)
    assert requests(puppet.sent()) == []
    puppet.receive(puppet.check(use_candidate=True), OTHER_REMOTE, 0.2)
    assert [each.destination for each in requests(puppet.sent())] == [OTHER_REMOTE]


def test_a_better_answer_that_comes_after_the_nomination_does_not_reopen_it() -> None:
    """Without renomination the first nomination stands."""
    puppet = Puppet(True)
    puppet.meet(remote(OTHER_REMOTE), remote(REMOTE, LOW, "2"))
    better, good = (each for _, each in puppet.sent_by(0.1))
    puppet.answer(good, 0.105)
    (nomination,) = [each for _, each in puppet.sent_by(0.3) if is_nomination(each)]
    puppet.answer(nomination, 0.3)
    puppet.answer(better, 0.4)
    assert len(puppet.agent.valid_pairs()) == 2
    assert puppet.sent() == []
    assert puppet.agent.selected is not None
    assert puppet.agent.selected.remote.address == REMOTE


def test_a_sign_of_life_of_a_better_pair_holds_the_nomination_back() -> None:
    """The other side's check shows that the pair may work: it gets its round trips anew."""
    puppet = Puppet(True)
    puppet.meet(remote(OTHER_REMOTE), remote(REMOTE, LOW, "2"))
    _, good = (each for _, each in puppet.sent_by(0.1))
    puppet.answer(good, 0.105)
    puppet.receive(puppet.check(), OTHER_REMOTE, 0.15)
    (triggered,) = requests(puppet.sent())
    puppet.agent.handle_timeout(0.21)
    assert puppet.sent() == []
    puppet.answer(triggered, 0.25)
    nomination = puppet.one()
    assert is_nomination(nomination)
    assert nomination.destination == OTHER_REMOTE


def test_many_checks_are_retransmitted_less_often() -> None:
    """RFC 8445 §14.3: the time grows with Ta times the checks that are open."""
    puppet = Puppet(True, ta=0.05)
    puppet.meet(*(remote(Address(f"198.51.100.{n + 1}", 1), 1000 - n, str(n)) for n in range(30)))
    last = Address("198.51.100.30", 1)
    first, second, *_ = (time for time, each in puppet.sent_by(5.0) if each.destination == last)
    assert second - first == pytest.approx(29 * 0.05)


def test_a_success_with_an_unknown_required_attribute_is_none() -> None:
    """RFC 8489 §6.3.3: what must be understood and is not makes the answer worthless."""
    puppet = Puppet(True)
    puppet.meet()
    strange = request(puppet.one()).message.answer(
        MessageClass.SUCCESS, XorMappedAddress(BASE), UnknownAttribute(0x7777, b"")
    )
    puppet.receive(strange.encode(key=puppet.pwd.encode(), fingerprint=True), now=0.04)
    assert events(puppet.agent) == []


def test_with_relays_only_nothing_leaves_elsewhere() -> None:
    """An agent that was given no host candidate sends and answers by the relay alone."""
    agent = IceAgent(True, entropy=random.Random(1).randbytes)
    relayed = CandidateFactory().relayed(Address("198.51.100.9", 49152), MAPPED, STRANGER)
    agent.add_local_candidate(relayed, 0.0)
    agent.set_remote("puppet", "p" * 24, 0.0)
    agent.add_remote_candidate(remote(REMOTE), 0.0)
    ways = []
    while (transmit := agent.next_transmit()) is not None:
        ways.append(transmit.local)
    assert ways == [relayed.address]


def test_pairs_are_made_with_the_base_itself_where_it_is_a_candidate() -> None:
    """Whatever the priorities say, the host candidate stands for its reflexive ones."""
    factory, candidates = CandidateFactory(), LocalCandidates()
    host = factory.host(BASE)
    reflexive = replace(factory.server_reflexive(MAPPED, BASE, STRANGER), priority=host.priority + 1)
    candidates.add(reflexive)
    assert candidates.senders() == [reflexive]
    candidates.add(host)
    assert candidates.senders() == [host]
    assert not candidates.add(host)
