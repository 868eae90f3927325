"""Consent to send, and keepalives."""

from __future__ import annotations

from itertools import pairwise

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.events import FailureReason, IceFailed, LossReason, PairLost, RoleChanged
from crowline.ice.nomination import FirstValid
from crowline.ice.pair import ValidPair
from crowline.stun.attributes import UseCandidate
from crowline.stun.message import MessageClass
from puppet import HIGH_TIE, REMOTE, Puppet, events, request, requests


def connected(*, use: bool = True, seed: int = 1) -> tuple[Puppet, ValidPair]:
    """A controlled agent with one valid pair, proven at 0.04 s, and in use."""
    puppet = Puppet(False, seed=seed)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    (pair,) = puppet.agent.valid_pairs()
    if use:
        assert puppet.agent.use(pair, 0.05)
    events(puppet.agent)
    return puppet, pair


def drive(puppet: Puppet, end: float, *, answering: bool) -> list[tuple[float, Transmit]]:
    sent = []
    while (now := puppet.agent.next_timeout()) is not None and now <= end:
        puppet.agent.handle_timeout(now)
        for each in puppet.sent():
            sent.append((now, each))
            if answering:
                puppet.answer(each, now + 0.02)
    return sent


def test_consent_is_asked_every_four_to_six_seconds_with_a_new_id() -> None:
    """RFC 7675: 5 s ± 20 %, each request sent once, signed, and no nomination."""
    puppet, _ = connected()
    sent = drive(puppet, 300.0, answering=True)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(sent)]
    assert all(3.999 <= gap <= 6.001 for gap in gaps)
    assert max(gaps) - min(gaps) > 1.0
    assert len({request(each).message.transaction_id for _, each in sent}) == len(sent) >= 50
    assert all(request(each).is_signed for _, each in sent)
    assert all(request(each).message.get(UseCandidate) is None for _, each in sent)
    assert events(puppet.agent) == []


def test_sending_ends_thirty_seconds_after_the_last_answer() -> None:
    """The pair is lost, is no longer valid, and nothing more is sent on it."""
    puppet, pair = connected()
    sent = drive(puppet, 200.0, answering=False)
    assert events(puppet.agent) == [PairLost(pair, LossReason.CONSENT_EXPIRED)]
    assert 24 < sent[-1][0] <= 30.05
    assert 5 <= len(sent) <= 7
    assert puppet.agent.valid_pairs() == []
    assert not puppet.agent.is_valid(pair.base, REMOTE)
    assert not puppet.agent.use(pair, 200.0)


def test_traffic_of_the_other_side_does_not_renew_consent() -> None:
    """Authenticated checks that keep coming are answered, and the pair expires all the same."""
    puppet, pair = connected()
    for number in range(35):
        now = 0.1 + number
        while (at := puppet.agent.next_timeout()) is not None and at <= now:
            puppet.agent.handle_timeout(at)
        puppet.sent()
        puppet.receive(puppet.check(), now=now)
        assert request(puppet.sent()[0]).message.message_class is MessageClass.SUCCESS
    assert events(puppet.agent) == [PairLost(pair, LossReason.CONSENT_EXPIRED)]


def test_expired_consent_is_not_given_back_by_a_check() -> None:
    """The other side's check is answered and triggers none of ours: new credentials are needed."""
    puppet, _ = connected()
    drive(puppet, 40.0, answering=False)
    events(puppet.agent)
    puppet.receive(puppet.check(use_candidate=True), now=41.0)
    assert request(puppet.one()).message.message_class is MessageClass.SUCCESS
    assert events(puppet.agent) == []


def test_a_403_revokes_consent_at_once() -> None:
    """Only a signed one: an unsigned 403 is anybody's."""
    puppet, pair = connected()
    now = puppet.agent.next_timeout()
    assert now is not None
    puppet.agent.handle_timeout(now)
    asked = puppet.one()
    puppet.receive(puppet.error(asked, 403, signed=False), now=now + 0.01)
    assert events(puppet.agent) == []
    puppet.receive(puppet.error(asked, 403), now=now + 0.02)
    assert events(puppet.agent) == [PairLost(pair, LossReason.CONSENT_REVOKED)]


def test_an_answer_from_elsewhere_renews_nothing() -> None:
    """Consent answers obey the rule of symmetry too."""
    puppet, pair = connected()
    now = puppet.agent.next_timeout()
    assert now is not None
    puppet.agent.handle_timeout(now)
    puppet.agent.receive(puppet.success(puppet.one()), Address(REMOTE.host, 9), now + 0.01, puppet.base)
    assert pair.proven_at == 0.04


def test_a_release_ends_the_questions_and_keeps_the_pair() -> None:
    """Nothing is sent any more, and the pair may be used again later, when it is asked at once."""
    puppet, pair = connected()
    puppet.agent.release(pair)
    assert drive(puppet, 100.0, answering=False) == []
    assert puppet.agent.valid_pairs() == [pair]
    puppet.agent.use(pair, 100.0)
    assert puppet.agent.next_timeout() == 100.0


def test_a_pair_at_rest_gets_keepalives_while_its_proof_is_young() -> None:
    """One unsigned indication after 15 s, none sooner, and none once the proof is 30 s old."""
    puppet, _ = connected(use=False)
    sent = drive(puppet, 300.0, answering=False)
    assert [time for time, _ in sent] == pytest.approx([15.04])
    received = request(sent[0][1])
    assert received.message.message_class is MessageClass.INDICATION
    assert not received.is_signed


def test_consent_measures_the_round_trip_time() -> None:
    """Each answer moves the estimate."""
    puppet, pair = connected()
    drive(puppet, 200.0, answering=True)
    assert pair.rtt == pytest.approx(0.02, abs=0.001)


def test_a_new_mapping_shows_in_the_pair() -> None:
    """When the translator gave us another address, the next answer tells it."""
    puppet, pair = connected()
    now = puppet.agent.next_timeout()
    assert now is not None
    puppet.agent.handle_timeout(now)
    moved = Address("203.0.113.7", 41000)
    puppet.answer(puppet.one(), now + 0.02, mapped=moved)
    assert pair.local.address == moved


def test_a_role_conflict_in_consent_is_settled_without_losing_the_pair() -> None:
    """A 487 switches the role it answered; the pair lives on."""
    puppet, _ = connected()
    now = puppet.agent.next_timeout()
    assert now is not None
    puppet.agent.handle_timeout(now)
    puppet.receive(puppet.error(puppet.one(), 487), now=now + 0.02)
    assert events(puppet.agent) == [RoleChanged(True)]
    assert len(puppet.agent.valid_pairs()) == 1


def test_when_every_pair_is_lost_the_agent_says_so() -> None:
    """With all candidates known and nothing left to check, that is the end of this agent."""
    puppet, pair = connected()
    puppet.end_candidates(1.0)
    drive(puppet, 100.0, answering=False)
    assert events(puppet.agent) == [
        PairLost(pair, LossReason.CONSENT_EXPIRED),
        IceFailed(FailureReason.ALL_LOST),
    ]


def test_a_lost_selection_is_replaced_by_the_controlling_side() -> None:
    """After the selected pair is revoked the next valid pair is nominated."""
    puppet = Puppet(True, renominate=True, policy=FirstValid())
    puppet.meet()
    for now in (0.04, 0.08):
        puppet.answer(puppet.one(), now)
    other = Address("198.51.100.3", 3000)
    puppet.receive(puppet.check(priority=5, claim=puppet.claim(controlling=False, tie=HIGH_TIE)), other, 0.1)
    puppet.answer(requests(puppet.sent())[0], 0.14)
    best, spare = puppet.agent.valid_pairs()
    assert puppet.agent.selected is best
    puppet.agent.use(best, 0.2)
    now = 5.2
    for _ in range(3):
        puppet.agent.handle_timeout(now)
        asked = puppet.sent()
        if asked:
            break
        now += 1.0
    puppet.receive(puppet.error(asked[0], 403), now=now + 0.02)
    nomination = puppet.one()
    assert nomination.destination == other
    puppet.answer(nomination, now + 0.06)
    assert puppet.agent.selected is spare
