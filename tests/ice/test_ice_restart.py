"""Restarts: new credentials on both sides, while data goes on where it went (RFC 8445 §9, RFC 7675 §5.1)."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.ice.budget import KEPT_FOR_HEARD, MAX_UNANSWERED
from crowline.ice.candidate import CandidateType
from crowline.ice.events import (
    IceFailed,
    LossReason,
    PairLost,
    PairNominated,
    PairValid,
    Restarted,
    RoleChanged,
)
from crowline.ice.former import LINGER
from crowline.ice.pair import ValidPair
from crowline.stun.attributes import UseCandidate, Username
from crowline.stun.message import MessageClass
from ice_pair import IcePair
from puppet import OTHER_REMOTE, REMOTE, STRANGER, Puppet, error_code, events, remote, request, requests

NEW_UFRAG, NEW_PWD = "puppet-2", "another password of the puppet"


def connected(**options: object) -> IcePair:
    """Two agents with a selected pair, both of which use it."""
    pair = IcePair(**options)  # type: ignore[arg-type]
    pair.start()
    pair.run(1.0)
    assert all(side.agent.selected is not None for side in pair.sides)
    return pair


def in_use(controlling: bool = False, **options: object) -> tuple[Puppet, ValidPair]:
    """An agent with one pair in use, nominated, before a puppet."""
    puppet = Puppet(controlling, **options)  # type: ignore[arg-type]
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    if controlling:
        puppet.answer(puppet.one(), 0.08)
    else:
        puppet.receive(puppet.check(use_candidate=True), now=0.05)
        puppet.sent()
    (pair,) = puppet.agent.valid_pairs()
    assert puppet.agent.selected is pair
    puppet.agent.use(pair, 0.1)
    events(puppet.agent)
    return puppet, pair


def renew(puppet: Puppet, now: float) -> None:
    """The puppet's answer to a restart: new credentials, from now on used by its messages."""
    puppet.ufrag, puppet.pwd = NEW_UFRAG, NEW_PWD
    puppet.agent.set_remote(NEW_UFRAG, NEW_PWD, now)


# --- two agents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("renominate", [False, True])
@pytest.mark.parametrize("starter", [0, 1])
def test_a_restart_of_either_side_ends_with_new_credentials_and_no_gap(
    starter: int, renominate: bool
) -> None:
    """Both change user fragment and password, keep their roles, and have a way to send at every moment."""
    pair = connected(renominate=renominate)
    before = [(side.agent.ufrag, side.agent.pwd) for side in pair.sides]
    roles = [side.agent.controlling for side in pair.sides]
    kept = [side.agent.selected for side in pair.sides]
    without: list[float] = []

    def look() -> None:
        if not all(side.usable and side.agent.selected is not None for side in pair.sides):
            without.append(pair.now)

    assert pair.sides[starter].restart()
    pair.run(60.0, each_step=look)
    assert without == []
    for number, side in enumerate(pair.sides):
        assert side.agent.ufrag != before[number][0]
        assert side.agent.pwd != before[number][1]
        assert side.of(Restarted) == [Restarted(by_peer=number != starter)]
        assert side.of(RoleChanged) == []
        assert side.agent.controlling is roles[number]
        assert len(side.of(PairNominated)) == 2
        assert side.agent.selected is kept[number], "the same way is the same pair"
        assert side.of(PairLost) == []


def test_restarts_of_both_sides_at_once_make_one_new_session() -> None:
    """The two descriptions cross, and each is the answer to the other."""
    pair = connected()
    for side in pair.sides:
        assert side.restart()
    pair.run(10.0)
    for side in pair.sides:
        assert side.of(Restarted) == [Restarted(by_peer=False)]
        assert len(side.of(PairNominated)) == 2


def test_restarts_in_quick_succession_come_to_rest() -> None:
    """A restart before the last one was answered is none; ten tries of both sides end in agreement."""
    pair = connected(seed=4)
    for _ in range(10):
        assert {pair.sides[0].restart(), pair.sides[0].restart()} == {True, False}
        pair.run(pair.random.uniform(0.0, 0.1))
        pair.sides[1].restart()
        pair.run(pair.random.uniform(0.06, 0.2))
        pair.run(0.2)
    pair.run(10.0)
    restarts = [len(side.of(Restarted)) for side in pair.sides]
    pair.run(100.0)
    assert restarts == [len(side.of(Restarted)) for side in pair.sides]
    one, other = (side.agent.selected for side in pair.sides)
    assert one is not None and other is not None
    assert one.key == (other.remote.address, other.base)
    assert all(side.usable for side in pair.sides)


def test_the_old_way_carries_on_while_the_new_session_finds_none() -> None:
    """Every check of the new session is lost: consent goes on under the old credentials for a minute."""
    pair = connected()
    old = [side.agent.ufrag for side in pair.sides]

    def is_new(_: int, transmit: object, __: float) -> bool:
        username = request(transmit).message.get(Username)  # type: ignore[arg-type]
        return username is not None and username.value.partition(":")[0] not in old

    pair.drops = is_new
    pair.sides[0].restart()
    pair.run(60.0)
    for side in pair.sides:
        assert side.usable
        assert side.of(PairLost) == side.of(IceFailed) == []
    pair.drops = lambda *_: False
    pair.sides[0].restart()
    pair.run(5.0)
    assert all(side.agent.selected is not None for side in pair.sides)


def test_a_network_change_moves_the_session_and_lets_the_old_base_linger() -> None:
    """A new base comes, the restart finds the way by it, and the old pair is lost three seconds later."""
    pair = connected()
    mover, other = pair.sides
    old = other.agent.selected
    assert old is not None
    new_base = Address("192.0.2.99", 1000)
    mover.bases.append(new_base)
    mover.agent.add_local_candidate(mover.factory.host(new_base), pair.now)
    mover.agent.remove_local_candidate(mover.bases[0], pair.now)
    mover.restart()
    began = pair.now
    pair.run(20.0)
    assert mover.of(PairLost) == [PairLost(mover.of(PairLost)[0].pair, LossReason.LOCAL_REMOVED)]
    assert [(event.pair, event.reason) for event in other.of(PairLost)] == [(old, LossReason.RESTARTED)]
    (lost_at,) = [time for time, event in other.events if isinstance(event, PairLost)]
    nominated_at = [time for time, event in other.events if isinstance(event, PairNominated)][-1]
    assert lost_at == pytest.approx(nominated_at + LINGER)
    assert nominated_at - began < 0.3
    assert other.agent.selected is not None
    assert other.agent.selected.remote.address == new_base


# --- one agent before a puppet --------------------------------------------------------------------------


def test_late_checks_of_the_old_session_are_answered_and_change_nothing() -> None:
    """Signed with the old password; no triggered check, no nomination, no candidate comes of them."""
    puppet, _ = in_use()
    old_check = puppet.check(use_candidate=True)
    assert puppet.agent.restart(1.0)
    puppet.sent()
    events(puppet.agent)
    for source in (REMOTE, OTHER_REMOTE):
        puppet.receive(old_check, source, 1.1)
        answer = puppet.one()
        assert request(answer).message.message_class is MessageClass.SUCCESS
        assert request(answer).is_signed
    renew(puppet, 1.2)
    assert puppet.sent() == events(puppet.agent) == []


def test_the_old_password_is_worth_nothing_once_the_new_session_has_a_pair() -> None:
    """Three seconds after the nomination a check with the old name is a stranger's."""
    puppet, _ = in_use()
    old_check = puppet.check()
    puppet.agent.restart(1.0)
    renew(puppet, 1.1)
    puppet.agent.add_remote_candidate(remote(REMOTE), 1.1)
    puppet.answer(puppet.one(), 1.2)
    puppet.receive(puppet.check(use_candidate=True), now=1.3)
    puppet.agent.handle_timeout(1.3 + LINGER)
    puppet.sent()
    puppet.receive(old_check, now=1.4 + LINGER)
    assert error_code(puppet.one()) == 401


def test_consent_goes_on_under_the_old_credentials_and_moves_to_the_new() -> None:
    """Asked with the old names until a new check has proven the way, with the new ones afterwards."""
    puppet, pair = in_use()
    old = (puppet.agent.ufrag, puppet.ufrag)
    puppet.agent.restart(1.0)
    names = {request(each).message.get(Username) for time, each in puppet.sent_by(12.0) if time > 1.0}
    assert names == {Username(f"{old[1]}:{old[0]}")}
    renew(puppet, 12.0)
    puppet.agent.add_remote_candidate(remote(REMOTE), 12.0)
    puppet.answer(puppet.one(), 12.1)
    later = [each for time, each in puppet.sent_by(25.0) if time > 12.5]
    assert {request(each).message.get(Username) for each in later} == {
        Username(f"{NEW_UFRAG}:{puppet.agent.ufrag}")
    }
    assert puppet.agent.valid_pairs() == [pair]


def test_a_pair_that_was_not_in_use_ends_with_its_session() -> None:
    """Only what carries data outlives the restart, and the pair that both had agreed on."""
    puppet = Puppet(False)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, 5, "2"))
    for time, check in puppet.sent_by(0.01):
        puppet.answer(check, time + 0.02)
    puppet.receive(puppet.check(use_candidate=True), now=0.05)
    selected, spare = puppet.agent.valid_pairs()
    events(puppet.agent)
    puppet.agent.restart(1.0)
    assert events(puppet.agent) == [PairLost(spare, LossReason.RESTARTED), Restarted(by_peer=False)]
    assert puppet.agent.valid_pairs() == [selected]
    assert puppet.agent.selected is selected
    assert puppet.agent.is_valid(selected.base, REMOTE)
    assert not puppet.agent.use(spare, 1.1)


def test_a_former_pair_that_is_let_go_ends() -> None:
    """Nobody needs it any more, and the new session goes on."""
    puppet, pair = in_use()
    puppet.agent.restart(1.0)
    events(puppet.agent)
    puppet.agent.release(pair)
    assert events(puppet.agent) == [PairLost(pair, LossReason.RELEASED)]
    assert puppet.agent.valid_pairs() == []
    assert puppet.agent.selected is None


def test_candidates_of_the_old_session_are_checked_only_when_they_are_told_again() -> None:
    """Neither what was known, nor what arrives before the other side's new credentials."""
    puppet, _ = in_use()
    puppet.agent.restart(1.0)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 1.1)
    puppet.agent.end_of_remote_candidates(1.1)
    puppet.sent()
    renew(puppet, 1.2)
    assert requests(puppet.sent()) == []
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 1.3)
    assert puppet.one().destination == OTHER_REMOTE


def test_a_restart_by_the_other_side_changes_our_credentials_too() -> None:
    """New ones in `set_remote` are the signal; the agent says so, and checks with the new names."""
    puppet, _ = in_use()
    before = (puppet.agent.ufrag, puppet.agent.pwd)
    renew(puppet, 1.0)
    assert events(puppet.agent) == [Restarted(by_peer=True)]
    assert puppet.agent.ufrag != before[0] and puppet.agent.pwd != before[1]
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 1.0)
    check = puppet.one()
    assert request(check).message.get(Username) == Username(f"{NEW_UFRAG}:{puppet.agent.ufrag}")


def test_the_same_credentials_again_are_no_restart() -> None:
    """A repeated description changes nothing, also while our own restart waits for its answer."""
    puppet, _ = in_use()
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 1.0)
    assert events(puppet.agent) == []
    puppet.agent.restart(1.1)
    events(puppet.agent)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 1.2)
    assert not puppet.agent.restart(1.3)
    assert events(puppet.agent) == []


def test_a_restart_must_change_both_halves_of_the_credentials() -> None:
    """RFC 8445 §9; whoever changes one only has made a mistake, and the session stays as it is."""
    puppet, pair = in_use()
    for ufrag, pwd in ((puppet.ufrag, NEW_PWD), (NEW_UFRAG, puppet.pwd)):
        with pytest.raises(UsageError):
            puppet.agent.set_remote(ufrag, pwd, 1.0)
    assert events(puppet.agent) == []
    assert puppet.agent.selected is pair


def test_without_the_other_side_there_is_nothing_to_restart() -> None:
    """Before its credentials are known, and after the end."""
    puppet = Puppet(True)
    assert not puppet.agent.restart(0.0)
    puppet.meet()
    puppet.agent.close()
    assert not puppet.agent.restart(1.0)
    assert events(puppet.agent) == []


def test_early_checks_of_the_new_session_are_remembered_until_its_credentials_come() -> None:
    """The other side may check us before its description has arrived."""
    puppet, _ = in_use()
    puppet.agent.restart(1.0)
    puppet.sent()
    puppet.ufrag, puppet.pwd = NEW_UFRAG, NEW_PWD
    puppet.receive(puppet.check(), OTHER_REMOTE, 1.1)
    assert request(puppet.one()).message.message_class is MessageClass.SUCCESS
    puppet.agent.set_remote(NEW_UFRAG, NEW_PWD, 1.2)
    assert puppet.one().destination == OTHER_REMOTE


def test_answers_to_checks_of_the_old_session_are_dropped() -> None:
    """Its transactions ended with it."""
    puppet, _ = in_use()
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 0.5)
    puppet.agent.restart(1.0)
    puppet.sent()
    puppet.receive(puppet.check(), STRANGER, 1.1)
    renew(puppet, 1.2)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 1.2)
    check = puppet.sent()[-1]
    puppet.agent.set_remote("puppet-3", "a third password of the puppet", 1.3)
    events(puppet.agent)
    puppet.answer(check, 1.4)
    assert events(puppet.agent) == []
    assert puppet.agent.counters["answer to nothing"] == 1


def test_a_restart_brings_back_a_pair_whose_consent_ended() -> None:
    """New credentials are what RFC 7675 §5.1 asks for."""
    puppet, lost = in_use()
    puppet.sent_by(40.0)
    assert PairLost(lost, LossReason.CONSENT_EXPIRED) in events(puppet.agent)
    puppet.agent.restart(41.0)
    renew(puppet, 41.1)
    puppet.agent.add_remote_candidate(remote(REMOTE), 41.1)
    puppet.answer(requests(puppet.sent())[-1], 41.2)
    (valid,) = [event for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert valid.pair is not lost
    assert valid.pair.remote.type is CandidateType.HOST


def test_a_restart_revives_an_agent_that_had_failed() -> None:
    """Nothing answered; a restart of either side begins the search anew, with its own patience."""
    for by_us in (True, False):
        puppet = Puppet(True)
        puppet.meet()
        puppet.end_candidates()
        puppet.sent_by(60.0)
        assert [type(event) for event in events(puppet.agent)] == [IceFailed]
        if by_us:
            assert puppet.agent.restart(61.0)
        renew(puppet, 61.0)
        puppet.agent.add_remote_candidate(remote(REMOTE), 61.0)
        puppet.answer(puppet.one(), 61.1)
        assert PairValid in [type(event) for event in events(puppet.agent)]


def test_a_former_pair_whose_consent_ends_is_lost_like_any_other() -> None:
    """With nothing new found, that is failure once both have told all candidates and patience has ended."""
    puppet, pair = in_use()
    puppet.agent.restart(1.0)
    renew(puppet, 1.1)
    puppet.end_candidates(1.1)
    puppet.sent_by(100.0)
    found = events(puppet.agent)
    assert PairLost(pair, LossReason.CONSENT_EXPIRED) in found
    assert isinstance(found[-1], IceFailed)


def test_a_restart_of_the_other_side_renews_no_budget() -> None:
    """Whoever restarts again and again with the same silent addresses gets no more than once; we may."""
    puppet, _ = in_use()
    sent = 0
    for number in range(30):
        puppet.agent.set_remote(f"puppet-{number}", f"password {number} of the puppet", 1.0 + number)
        puppet.agent.add_remote_candidate(remote(STRANGER), 1.0 + number)
        found = puppet.sent_by(1.9 + number)
        sent += len([each for _, each in found if each.destination == STRANGER])
    assert sent == MAX_UNANSWERED - KEPT_FOR_HEARD
    puppet.agent.restart(50.0)
    puppet.agent.set_remote("puppet-end", "the last password of the puppet", 50.0)
    puppet.agent.add_remote_candidate(remote(STRANGER), 50.0)
    assert STRANGER in [each.destination for each in puppet.sent()]


def test_a_thousand_restarts_keep_the_agent_small() -> None:
    """Sessions without a pair in use are forgotten, whoever restarts."""
    puppet, pair = in_use()
    for number in range(1000):
        puppet.agent.set_remote(f"puppet-{number}", f"password {number} of the puppet", 1.0)
    puppet.sent()
    assert len(puppet.agent._session.former._sessions) == 2
    assert puppet.agent.valid_pairs() == [pair]


def test_nomination_in_the_new_session_needs_a_new_check() -> None:
    """The kept pair counts as agreed on only until the new session has nominated."""
    puppet, pair = in_use(controlling=True)
    puppet.agent.restart(1.0)
    renew(puppet, 1.1)
    puppet.agent.add_remote_candidate(remote(REMOTE), 1.1)
    first = puppet.one()
    assert request(first).message.get(UseCandidate) is None
    puppet.answer(first, 1.2)
    assert puppet.agent.selected is pair and not pair.nominated
    nomination = puppet.one()
    assert request(nomination).message.get(UseCandidate) is not None
    puppet.answer(nomination, 1.3)
    assert pair.nominated
    assert PairNominated(pair) in events(puppet.agent)
