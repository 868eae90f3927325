"""TCP connections of ICE that carry something else from some time on."""

from __future__ import annotations

from crowline.base.transport import Transport
from crowline.ice.events import (
    ConnectionUnwanted,
    ConnectionWanted,
    LossReason,
    PairLost,
)
from puppet import BASE, OTHER_REMOTE, REMOTE, events, remote
from tcp_puppet import ACTIVE, TcpPuppet, nominated, tcp_remote, wanted


def test_a_connection_that_was_handed_over_gets_no_more_stun() -> None:
    """No consent, and no second nomination of its pair, which stays valid until the connection ends."""
    puppet = nominated(renominate=True, regain=True, udp=True)
    pair = puppet.agent.selected
    puppet.agent.use(pair, 0.1)
    puppet.agent.hand_over(pair)
    assert puppet.agent.use(pair, 0.2)
    assert puppet.sent_by(100.0) == []
    puppet.agent.add_remote_candidate(remote(OTHER_REMOTE), 100.0)
    puppet.agent.receive(puppet.success(puppet.one()), OTHER_REMOTE, 100.1, BASE)
    puppet.agent.receive(puppet.success(puppet.one()), OTHER_REMOTE, 100.2, BASE)
    better = puppet.agent.selected
    assert better is not pair
    puppet.agent.remove_remote_candidate(OTHER_REMOTE, 101.0)
    assert puppet.sent_by(200.0) == []
    assert puppet.agent.valid_pairs() == [pair]
    events(puppet.agent)
    puppet.agent.disconnected(BASE, REMOTE, 200.0)
    assert events(puppet.agent) == [PairLost(pair, LossReason.CONNECTION_LOST)]
    puppet.agent.handle_timeout(201.0)
    assert wanted(events(puppet.agent)) == [ConnectionWanted(BASE, REMOTE, False)]


def test_a_restart_asks_for_no_second_connection_beside_one_that_was_handed_over() -> None:
    """There is one for each 5-tuple; when it ends, the pair is tried anew."""
    puppet = nominated()
    puppet.agent.hand_over(puppet.agent.selected)
    puppet.ufrag, puppet.pwd = "another", "another password of the puppet"
    puppet.meet(tcp_remote(), now=1.0)
    assert puppet.sent_by(100.0) == []
    assert not wanted(happened := events(puppet.agent))
    assert not any(isinstance(event, ConnectionUnwanted) for event in happened)
    puppet.agent.disconnected(BASE, REMOTE, 101.0)
    assert wanted(events(puppet.agent)) == [ConnectionWanted(BASE, REMOTE, False)]


def test_what_was_asked_by_a_connection_before_it_was_handed_over_is_not_waited_for() -> None:
    """The pair stays valid although its nominating check never gets an answer."""
    puppet = TcpPuppet(True, ACTIVE)
    puppet.meet(tcp_remote())
    puppet.connect(0.01)
    puppet.answer(puppet.one(), 0.02)
    (pair,) = puppet.agent.valid_pairs()
    assert puppet.one().destination == REMOTE
    puppet.agent.hand_over(pair)
    assert puppet.sent_by(100.0) == []
    assert puppet.agent.valid_pairs() == [pair]


def test_a_pair_that_is_lost_hands_no_connection_over() -> None:
    """The next one between the same addresses is checked like any other."""
    puppet = nominated()
    lost = puppet.agent.selected
    puppet.agent.disconnected(BASE, REMOTE, 5.0)
    puppet.connect(5.1)
    puppet.agent.hand_over(lost)
    assert not lost.handed_over
    puppet.answer(puppet.one(), 5.2)
    puppet.answer(puppet.one(), 5.3)
    assert puppet.agent.selected not in (None, lost)


def test_a_connection_that_was_handed_over_and_is_told_again_is_still_a_link() -> None:
    """Nothing that becomes of its pair ends it: only `disconnected` does."""
    puppet = nominated()
    pair = puppet.agent.selected
    puppet.agent.hand_over(pair)
    puppet.connect(1.0)
    puppet.agent.remove_remote_candidate(REMOTE, 2.0, transport=Transport.TCP)
    assert events(puppet.agent) == [PairLost(pair, LossReason.REMOTE_REMOVED)]
