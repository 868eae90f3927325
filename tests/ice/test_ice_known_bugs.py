"""Faults that ICE agents in wide use have had, as far as no test of a single part covers them.

Others are where they belong: roles in `test_ice_role.py`, foundations in `test_ice_checklist.py`, consent in
`test_ice_consent.py`; early checks, slow answers and nominations without an answer in `test_ice_agent.py`.
"""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateType
from crowline.ice.events import IceFailed, PairNominated, PairValid
from crowline.stun.message import MessageClass, parse
from ice_pair import IcePair
from puppet import BASE, HOST_PRIORITY, OTHER_REMOTE, REMOTE, STRANGER, Puppet, events, remote

MAPPED = Address("203.0.113.7", 40000)
LOW = 1000


def test_a_nomination_belongs_to_the_pair_that_was_proven_not_to_the_one_that_was_sent() -> None:
    """Behind a translator the valid pair has the mapped address for its local one, and is selected."""
    puppet = Puppet(True)
    puppet.meet()
    puppet.answer(puppet.one(), 0.01, mapped=MAPPED)
    puppet.answer(puppet.one(), 0.02, mapped=MAPPED)
    valid, nominated = events(puppet.agent)
    assert isinstance(valid, PairValid) and isinstance(nominated, PairNominated)
    assert valid.pair is nominated.pair is puppet.agent.selected
    assert (nominated.pair.local.address, nominated.pair.local.type) == (MAPPED, CandidateType.PEER_REFLEXIVE)
    assert nominated.pair.base == BASE


def test_a_reflexive_candidate_that_is_gathered_late_is_not_checked_twice() -> None:
    """It leaves by the same base, so that its pairs would be the same packets once more."""
    puppet = Puppet(True)
    puppet.meet()
    first = puppet.sent()
    puppet.agent.add_local_candidate(puppet.factory.server_reflexive(MAPPED, BASE, STRANGER), 0.01)
    assert len(first) == 1
    assert puppet.sent_by(0.4) == []


def test_two_agents_at_rest_send_less_than_a_packet_a_second() -> None:
    """Consent every 5 s each way and the answers to it, with nothing besides."""
    pair = IcePair(renominate=True)
    pair.start()
    pair.run(100.0)
    before = len(pair.carried)
    pair.run(600.0)
    for number in range(2):
        packets = [sender for _, sender, _ in pair.carried[before:]].count(number)
        assert 0.3 <= packets / 600.0 <= 0.51


def test_nothing_happens_after_the_end() -> None:
    """No check, no answer, no event and no timer, whatever comes after `close`."""
    puppet = Puppet(True)
    puppet.meet(remote(REMOTE), remote(OTHER_REMOTE, LOW, "2"))
    check = puppet.one()
    puppet.agent.close()
    puppet.answer(check, 0.1)
    puppet.receive(puppet.check(), now=0.2)
    puppet.agent.set_remote("another", "another password of the puppet", 0.3)
    puppet.agent.add_remote_candidate(remote(STRANGER, HOST_PRIORITY, "3"), 0.4)
    assert not puppet.agent.restart(0.5)
    puppet.agent.handle_timeout(100.0)
    assert puppet.sent() == [] and events(puppet.agent) == []
    assert puppet.agent.next_timeout() is None


def test_an_agent_whose_candidates_come_late_has_not_failed_before() -> None:
    """Nothing to check for 39 s, then one candidate: it is checked, and the pair is agreed on."""
    puppet = Puppet(True)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    assert puppet.sent_by(39.0) == []
    puppet.agent.add_remote_candidate(remote(REMOTE), 39.0)
    puppet.answer(puppet.one(), 39.1)
    puppet.answer(puppet.one(), 39.2)
    assert not any(isinstance(event, IceFailed) for event in events(puppet.agent))
    assert puppet.agent.selected is not None


def test_every_answer_is_one_to_a_request_that_was_heard() -> None:
    """In a whole session no side answers what it was not asked, nor asks without end."""
    pair = IcePair(bases=(2, 2))
    pair.start()
    pair.run(30.0)
    classes: tuple[list[MessageClass], list[MessageClass]] = ([], [])
    for _, number, transmit in pair.carried:
        classes[number].append(parse(transmit.data).message.message_class)
    for number in range(2):
        assert classes[number].count(MessageClass.SUCCESS) <= classes[1 - number].count(MessageClass.REQUEST)
        assert classes[number].count(MessageClass.ERROR) == 0
        assert classes[number].count(MessageClass.REQUEST) < 60
