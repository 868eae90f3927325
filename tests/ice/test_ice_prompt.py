"""How soon a pair is agreed on: nothing waits that has no reason to wait."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.events import PairNominated
from crowline.ice.nomination import BestPossible, FirstValid
from crowline.stun.attributes import UseCandidate
from ice_pair import DELAY, SIGNAL_DELAY, IcePair
from puppet import HIGH_TIE, LOW_TIE, OTHER_REMOTE, REMOTE, Puppet, remote, request, requests

LOW = 1000
TA = 0.05
SLACK = 1e-9  # seconds by which sums of the same delays differ


def is_nomination(transmit: Transmit) -> bool:
    return request(transmit).message.get(UseCandidate) is not None


def test_a_pair_is_nominated_in_the_moment_of_its_success() -> None:
    """The nominating check does not wait for Ta: it opens no new binding and goes where one has answered."""
    puppet = Puppet(True, ta=TA)
    puppet.meet()
    puppet.answer(puppet.one(), 0.001)
    assert is_nomination(puppet.one())


def test_a_nominating_check_moves_no_other_check() -> None:
    """Ordinary checks leave at the same times with and without a nomination between them."""
    ordinary = []
    for succeeds in (True, False):
        puppet = Puppet(True, ta=TA, renominate=True)
        others = (Address("198.51.100.9", 1 + n) for n in range(3))
        puppet.meet(remote(REMOTE), *(remote(each, LOW - n, str(n + 2)) for n, each in enumerate(others)))
        first = puppet.one()
        if succeeds:
            puppet.answer(first, 0.01)
        times = [time for time, each in puppet.sent_by(0.4) if each.destination != REMOTE]
        ordinary.append(times)
    assert ordinary[0] == ordinary[1] == pytest.approx([TA, 2 * TA, 3 * TA])


def test_two_agents_agree_within_four_one_way_delays() -> None:
    """Check, answer, nominating check, answer: the controlled side knows after three, both after four."""
    pair = IcePair(ta=TA)
    pair.start()
    pair.run(1.0)
    controlling, controlled = (
        next(time for time, event in side.events if isinstance(event, PairNominated)) for side in pair.sides
    )
    assert controlled <= SIGNAL_DELAY + 3 * DELAY + SLACK
    assert controlling <= SIGNAL_DELAY + 4 * DELAY + SLACK


def test_a_side_that_keeps_changing_roles_gets_a_check_and_an_answer_for_each_check() -> None:
    """Each change makes the agent nominate anew; what that costs is bounded by what the other side spends."""
    puppet = Puppet(True, ta=TA, renominate=True, policy=FirstValid())
    puppet.meet()
    puppet.answer(puppet.one(), 0.001)
    puppet.answer(puppet.one(), 0.002)
    nominations = 0
    for _ in range(200):
        controlling = puppet.agent.controlling
        # The larger tie-breaker controls: with these the agent gives in each time.
        claim = puppet.claim(controlling, tie=HIGH_TIE if controlling else LOW_TIE)
        puppet.receive(puppet.check(claim=claim), now=0.003)
        assert puppet.agent.controlling is not controlling
        checks = requests(sent := puppet.sent())
        assert len(sent) <= 2
        nominations += len(checks)
    assert 0 < nominations <= 100


def test_a_silent_nomination_holds_the_next_one_up_for_two_seconds_and_no_longer() -> None:
    """Not for the 39.5 s after which its transaction has failed; with and without renomination."""
    for renominate in (True, False):
        puppet = Puppet(True, ta=TA, renominate=renominate, policy=FirstValid() if renominate else None)
        puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
        for time, check in puppet.sent_by(TA):
            if not is_nomination(check):
                puppet.answer(check, time + 0.001)
        sent = puppet.sent_by(3.0)
        first = next(t for t, each in sent if is_nomination(each) and each.destination == OTHER_REMOTE)
        assert 2.0 <= first <= 2.1, renominate


def test_a_nomination_that_was_passed_over_ends_no_later_one() -> None:
    """The first one fails after 39.5 s; another one of the same pair is on its way then, and may succeed."""
    puppet = Puppet(True, renominate=True, policy=BestPossible())
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    puppet.agent.handle_timeout(0.01)
    for transmit in puppet.sent():
        puppet.answer(transmit, 0.02)
    (pair,) = (each for each in puppet.agent.valid_pairs() if each.remote.address == REMOTE)
    puppet.agent.use(pair, 0.02)
    puppet.sent_by(20.0)
    asked = [each for _, each in puppet.sent_by(26.0) if each.destination == REMOTE]
    consent = next(each for each in asked if not is_nomination(each))
    puppet.answer(consent, 26.0)
    again = [each for each in requests(puppet.sent()) if is_nomination(each)]
    assert [each.destination for each in again] == [REMOTE]
    puppet.sent_by(45.0)
    assert pair in puppet.agent.valid_pairs()
    puppet.answer(again[0], 45.0)
    assert puppet.agent.selected is pair
