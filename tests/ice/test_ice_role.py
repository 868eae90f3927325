"""Roles, conflicts and tie-breakers."""

from __future__ import annotations

import random

import pytest

from crowline.ice.events import PairNominated, PairValid, RoleChanged
from crowline.ice.pair import pair_priority
from crowline.ice.role import Role, Verdict
from crowline.stun.attributes import IceControlled, IceControlling, UseCandidate
from crowline.stun.message import MessageClass
from puppet import (
    BASE,
    HIGH_TIE,
    LOW_TIE,
    OTHER_REMOTE,
    REMOTE,
    Puppet,
    error_code,
    events,
    remote,
    request,
    requests,
)


@pytest.mark.parametrize(
    ("we_control", "they_control", "difference", "verdict"),
    [
        (True, True, 1, Verdict.SWITCH),
        (True, True, 0, Verdict.REFUSE),
        (True, True, -1, Verdict.REFUSE),
        (False, False, 1, Verdict.REFUSE),
        (False, False, 0, Verdict.SWITCH),
        (False, False, -1, Verdict.SWITCH),
        (True, False, 1, Verdict.AGREED),
        (False, True, -1, Verdict.AGREED),
    ],
)
def test_judgement_of_a_claim(
    we_control: bool, they_control: bool, difference: int, verdict: Verdict
) -> None:
    """RFC 8445 §7.3.1.1, by the difference of their tie-breaker to ours."""
    role = Role(we_control, random.Random(1).randbytes)
    theirs = role.tie_breaker + difference
    assert role.judge(IceControlling(theirs) if they_control else IceControlled(theirs)) is verdict


def test_a_claim_that_is_missing_is_no_conflict() -> None:
    """A check without a role attribute is answered as it is."""
    assert Role(True, random.Random(1).randbytes).judge(None) is Verdict.AGREED


def test_we_win_a_conflict_with_a_signed_487_and_nothing_else() -> None:
    """The loser's check has no effect on us."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.sent()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=True, tie=LOW_TIE)))
    answer = puppet.one()
    assert error_code(answer) == 487
    assert request(answer).is_signed
    assert puppet.agent.controlling
    assert events(puppet.agent) == []


@pytest.mark.parametrize(("controlling", "tie"), [(True, HIGH_TIE), (False, LOW_TIE)])
def test_after_giving_in_to_a_check_it_is_answered_with_success(controlling: bool, tie: int) -> None:
    """Two agents of one role: the loser switches, and the very same check goes on."""
    puppet = Puppet(controlling)
    puppet.meet()
    puppet.sent()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=controlling, tie=tie)))
    assert puppet.agent.controlling is not controlling
    assert RoleChanged(not controlling) in events(puppet.agent)
    assert request(puppet.sent()[0]).message.message_class is MessageClass.SUCCESS


def test_two_controlled_agents_compare_the_right_field() -> None:
    """The controlled side with the smaller tie-breaker stays controlled and hears a 487."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.sent()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=False, tie=HIGH_TIE)))
    assert error_code(puppet.one()) == 487
    assert not puppet.agent.controlling


def test_a_487_switches_the_role_and_the_tie_breaker_and_checks_again() -> None:
    """The new check claims the other role, with a new tie-breaker, at the next turn."""
    puppet = Puppet(True)
    puppet.meet()
    first = puppet.one()
    before = request(first).message.get(IceControlling)
    puppet.receive(puppet.error(first, 487), now=0.04)
    assert events(puppet.agent) == [RoleChanged(False)]
    after = request(puppet.one()).message.get(IceControlled)
    assert before is not None and after is not None
    assert before.tie_breaker != after.tie_breaker


def test_a_late_487_for_a_role_already_left_changes_nothing() -> None:
    """The request that it answers claimed the old role; only the check is repeated."""
    puppet = Puppet(True)
    puppet.meet()
    first = puppet.one()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=True, tie=HIGH_TIE)), now=0.01)
    second = requests(puppet.sent())
    assert not puppet.agent.controlling
    claim = request(second[0]).message.get(IceControlled)
    puppet.receive(puppet.error(first, 487), now=0.02)
    assert not puppet.agent.controlling
    third = requests(puppet.sent())
    assert [request(each).message.get(IceControlled) for each in third] == [claim]


def test_a_replayed_487_is_ignored() -> None:
    """Its transaction has ended with the first copy."""
    puppet = Puppet(True)
    puppet.meet()
    conflict = puppet.error(puppet.one(), 487)
    puppet.receive(conflict, now=0.04)
    puppet.sent()
    puppet.receive(conflict, now=0.05)
    assert not puppet.agent.controlling
    assert puppet.sent() == []


def test_a_peer_that_only_answers_487_is_given_up() -> None:
    """The pair fails after a few rounds instead of being checked for ever."""
    puppet = Puppet(True)
    puppet.meet()
    now, rounds = 0.0, 0
    while checks := requests(puppet.sent()):
        rounds += 1
        now += 0.04
        puppet.receive(puppet.error(checks[0], 487), now=now)
        assert rounds < 20
    assert rounds == 9


def test_pair_priorities_follow_a_role_switch() -> None:
    """The controlling side's priority comes first in the formula, also when the roles have changed."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=True, tie=HIGH_TIE)), now=0.01)
    puppet.answer(check, 0.04)
    (pair,) = puppet.agent.valid_pairs()
    assert pair.priority == pair_priority(pair.remote.priority, pair.local.priority)


def test_a_nomination_heard_before_becoming_controlling_is_void() -> None:
    """Only the present controlling side nominates; the old wish of the other side is forgotten."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.receive(puppet.check(use_candidate=True))
    puppet.receive(puppet.check(claim=puppet.claim(controlling=False, tie=LOW_TIE)), now=0.001)
    assert puppet.agent.controlling
    check = requests(puppet.sent())[-1]
    puppet.answer(check, 0.04)
    found = events(puppet.agent)
    assert [event for event in found if isinstance(event, PairValid)]
    assert not [event for event in found if isinstance(event, PairNominated)]
    (nomination,) = requests(puppet.sent())
    assert request(nomination).message.get(UseCandidate) is not None
    assert (nomination.local, nomination.destination) == (BASE, REMOTE)


def test_after_a_switch_no_check_is_sent_again_under_the_old_role() -> None:
    """The old request would stir up the conflict anew; a new one with the new role takes its place."""
    puppet = Puppet(True)
    puppet.meet()
    old = request(puppet.one()).message.transaction_id
    puppet.receive(puppet.check(claim=puppet.claim(controlling=True, tie=HIGH_TIE)), OTHER_REMOTE, 0.1)
    later = [request(each).message for _, each in puppet.sent_by(30.0) if requests([each])]
    assert len(later) >= 12
    assert all(message.transaction_id != old for message in later)
    assert all(message.get(IceControlled) is not None for message in later)


def test_a_new_controlling_side_nominates_again() -> None:
    """What was agreed before the switch holds until then; the pair stays selected and valid."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    puppet.receive(puppet.check(use_candidate=True), now=0.05)
    selected = puppet.agent.selected
    assert selected is not None
    puppet.sent()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=False, tie=LOW_TIE)), now=0.06)
    assert puppet.agent.selected is selected
    (nomination,) = requests(puppet.sent())
    assert request(nomination).message.get(UseCandidate) is not None


def test_a_nomination_abandoned_by_a_switch_is_a_plain_success() -> None:
    """The answer to our USE-CANDIDATE comes when the other side controls: it does not select the pair."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    nomination = puppet.one()
    puppet.receive(puppet.check(claim=puppet.claim(controlling=True, tie=HIGH_TIE)), now=0.05)
    puppet.answer(nomination, 0.08)
    assert not puppet.agent.controlling
    assert puppet.agent.selected is None


def test_the_new_controlling_side_may_choose_a_worse_pair() -> None:
    """What was selected under the old roles gives way to any nomination under the new ones."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, 1000, "2"))
    first, second = (each for _, each in puppet.sent_by(0.01))
    puppet.answer(second, 0.02)
    puppet.answer(first, 0.021)
    puppet.answer(requests(puppet.sent())[0], 0.05)
    assert puppet.agent.selected is not None and puppet.agent.selected.remote.address == REMOTE
    claim = puppet.claim(controlling=True, tie=HIGH_TIE)
    puppet.receive(puppet.check(claim=claim, use_candidate=True), OTHER_REMOTE, 0.1)
    assert puppet.agent.selected.remote.address == OTHER_REMOTE


def test_renomination_goes_on_after_becoming_controlling() -> None:
    """A pair that the other side once nominated is replaced by a better one that we nominate."""
    puppet = Puppet(False, renominate=True)
    puppet.meet(remote(REMOTE, 1000, "2"))
    puppet.answer(puppet.one(), 0.04)
    puppet.receive(puppet.check(use_candidate=True), now=0.05)
    puppet.receive(puppet.check(claim=puppet.claim(controlling=False, tie=LOW_TIE)), now=0.06)
    puppet.answer(requests(puppet.sent())[0], 0.1)
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 1.0)
    for now in (1.04, 1.08):
        puppet.answer(puppet.one(), now)
    assert puppet.agent.selected is not None and puppet.agent.selected.remote.address == OTHER_REMOTE
    assert puppet.sent() == []
