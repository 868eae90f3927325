"""Pairs that fell silent and come back, where both sides have agreed to that."""

from __future__ import annotations

from itertools import pairwise

from crowline.base.machine import Transmit
from crowline.ice.events import IceFailed, LossReason, PairLost, PairValid
from crowline.ice.retries import FIRST_GAP, LONGEST_GAP, TRY_TIME
from crowline.stun.message import MessageClass
from ice_pair import IcePair
from puppet import REMOTE, Puppet, events, request, requests


def silenced() -> Puppet:
    """An agent that regains pairs, and whose only pair in use has just lost its consent."""
    puppet = Puppet(False, regain=True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.0)
    (pair,) = puppet.agent.valid_pairs()
    puppet.agent.use(pair, 0.0)
    puppet.sent_by(30.0)
    assert PairLost(pair, LossReason.CONSENT_EXPIRED) in events(puppet.agent)
    return puppet


def tries(sent: list[tuple[float, Transmit]]) -> list[float]:
    """When each check was sent first."""
    first: dict[bytes, float] = {}
    for time, each in sent:
        first.setdefault(request(each).message.transaction_id, time)
    return list(first.values())


def test_a_silent_pair_is_tried_again_ever_more_rarely() -> None:
    """1 s after the loss, then 2, 4, 8 … 60 s after the end of the last try; less than a packet in 10 s."""
    puppet = silenced()
    sent = [(time, each) for time, each in puppet.sent_by(3000.0) if time > 30.0]
    times = tries(sent)
    gaps = [later - earlier - TRY_TIME for earlier, later in pairwise(times)]
    assert times[0] == 30.0 + FIRST_GAP
    assert [round(gap, 3) for gap in gaps[:6]] == [2, 4, 8, 16, 32, 60]
    assert {round(gap, 3) for gap in gaps[5:]} == {LONGEST_GAP}
    assert len(sent) < 300


def test_a_pair_that_answers_again_is_valid_again() -> None:
    """A new check, a new event; and its next loss begins with the shortest gap."""
    puppet = silenced()
    puppet.sent_by(100.0)
    now = puppet.agent.next_timeout()
    assert now is not None
    puppet.agent.handle_timeout(now)
    puppet.answer(puppet.sent()[-1], now + 0.05)
    (valid,) = [event for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert puppet.agent.use(valid.pair, now + 0.05)
    sent = [time for time in tries(puppet.sent_by(now + 40.0))[1:] if time > now + 30.05]
    assert sent[0] == now + 30.05 + FIRST_GAP


def test_a_check_of_the_other_side_brings_a_silent_pair_back_at_once() -> None:
    """Its packets arrive again, so ours may too."""
    puppet = silenced()
    puppet.receive(puppet.check(), now=30.2)
    answer, check = puppet.sent()
    assert request(answer).message.message_class is MessageClass.SUCCESS
    puppet.answer(check, 30.3)
    assert [type(event) for event in events(puppet.agent)] == [PairValid]


def test_a_pair_whose_consent_was_revoked_is_not_tried_again() -> None:
    """The other side has forbidden it: only a restart helps."""
    puppet = Puppet(False, regain=True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.0)
    (pair,) = puppet.agent.valid_pairs()
    puppet.agent.use(pair, 0.0)
    now = puppet.agent.next_timeout()
    assert now is not None
    puppet.agent.handle_timeout(now)
    puppet.receive(puppet.error(puppet.one(), 403), now=now)
    assert puppet.sent_by(300.0) == []
    puppet.receive(puppet.check(), now=300.0)
    assert requests(puppet.sent()) == []


def test_a_pair_that_is_not_wanted_any_more_is_left_alone() -> None:
    """The user gives it up, or its candidate is removed, or the session restarts."""
    for how in ("abandon", "remove", "restart"):
        puppet = Puppet(False, regain=True)
        puppet.meet()
        puppet.answer(puppet.one(), 0.0)
        (pair,) = puppet.agent.valid_pairs()
        puppet.agent.use(pair, 0.0)
        puppet.sent_by(30.0)
        if how == "abandon":
            puppet.agent.abandon(pair)
        elif how == "remove":
            puppet.agent.remove_remote_candidate(REMOTE, 30.1)
        else:
            puppet.agent.restart(30.1)
        assert [each for time, each in puppet.sent_by(300.0) if time > 30.1] == [], how


def test_an_agent_that_may_regain_a_pair_has_not_failed() -> None:
    """All candidates are known and no pair works: it goes on trying; without the agreement it fails."""
    for regain in (True, False):
        puppet = Puppet(False, regain=regain)
        puppet.meet()
        puppet.end_candidates()
        puppet.answer(puppet.one(), 0.0)
        (pair,) = puppet.agent.valid_pairs()
        puppet.agent.use(pair, 0.0)
        puppet.sent_by(1000.0)
        failed = any(isinstance(event, IceFailed) for event in events(puppet.agent))
        assert failed is not regain


def test_a_way_that_dies_for_ten_minutes_comes_back_by_itself() -> None:
    """Two agents, every datagram lost between 10 s and 600 s: both have the pair again within 100 s."""
    pair = IcePair(regain=True, renominate=True)
    pair.drops = lambda _, __, now: 10.0 < now < 600.0
    pair.start()
    pair.run(60.0)
    assert all(not side.usable for side in pair.sides)
    pair.run(540.0)
    assert all(not side.usable for side in pair.sides)
    pair.run(100.0)
    assert all(len(side.usable) == 1 for side in pair.sides)
    assert all(side.agent.selected in side.usable.values() for side in pair.sides)


def test_trying_again_costs_less_than_a_packet_in_five_seconds() -> None:
    """Two agents that have lost each other for an hour send little more than keepalives would."""
    pair = IcePair(regain=True, renominate=True)
    pair.drops = lambda _, __, now: now > 10.0
    pair.start()
    pair.run(3600.0)
    for number in range(2):
        sent = [time for time, sender, _ in pair.carried if sender == number and time > 60.0]
        assert len(sent) / 3540.0 < 0.2


def test_a_nomination_that_was_lost_is_tried_again_with_the_rest() -> None:
    """The only pair fails its nominating check; it comes back by a new check and is nominated."""
    puppet = Puppet(True, regain=True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.0)
    puppet.sent_by(39.6)
    found = events(puppet.agent)
    assert isinstance(found[-1], PairLost) and found[-1].reason is LossReason.NOMINATION_FAILED
    for _ in range(2):
        now = puppet.agent.next_timeout()
        assert now is not None
        puppet.agent.handle_timeout(now)
        puppet.answer(puppet.sent()[-1], now + 0.01)
    assert puppet.agent.selected is not None


def test_many_lost_pairs_cost_no_more_than_a_packet_a_second() -> None:
    """All ways between five addresses and five, with nobody left at the other end."""
    pair = IcePair(renominate=True, regain=True, bases=(5, 5))
    pair.start()
    pair.run(10.0)
    pair.drops = lambda *_: True
    pair.run(200.0)
    assert all(len(side.of(PairLost)) == 25 for side in pair.sides)
    before = len(pair.carried)
    pair.run(1000.0)
    # From a few tries more or less at the ends come some packets.
    assert 1000 < len(pair.carried) - before <= 1.1 * 2 * 1000
