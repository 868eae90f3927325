"""A pair whose remote candidate is told after its checks: of what kind it is shows only then."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.ice.candidate import CandidateFactory, CandidateType
from crowline.ice.events import PairNominated, PairReclassified, PairValid
from puppet import OTHER_REMOTE, REMOTE, Puppet, events, remote

SERVER = Address("198.51.100.200", 3478)


def checked_from(address: Address) -> Puppet:
    """An agent that has learnt of `address` by a check alone, and has proven it."""
    puppet = Puppet(True)
    puppet.meet(remote(OTHER_REMOTE))
    puppet.sent()
    puppet.receive(puppet.check(), address, 0.01)
    puppet.agent.handle_timeout(1.0)
    for check in puppet.sent():
        if check.destination == address:
            puppet.answer(check, 1.02)
    [valid] = [event for event in events(puppet.agent) if isinstance(event, PairValid)]
    assert valid.pair.remote.type is CandidateType.PEER_REFLEXIVE and valid.pair.kind == "direct"
    return puppet


def test_a_pair_that_turns_out_to_be_relayed_is_told() -> None:
    """Once, and it is the same pair."""
    puppet = checked_from(REMOTE)
    [pair] = puppet.agent.valid_pairs()
    relayed = CandidateFactory().relayed(REMOTE, OTHER_REMOTE, SERVER)
    puppet.agent.add_remote_candidate(relayed, 2.0)
    puppet.agent.add_remote_candidate(relayed, 2.1)
    told = [event for event in events(puppet.agent) if not isinstance(event, PairNominated)]
    assert told == [PairReclassified(pair)]
    assert pair.kind == "relay" and puppet.agent.valid_pairs() == [pair]


def test_a_pair_that_is_what_it_seemed_is_not_told() -> None:
    """A host candidate behind the address changes nothing."""
    puppet = checked_from(REMOTE)
    puppet.agent.add_remote_candidate(remote(REMOTE), 2.0)
    assert not [event for event in events(puppet.agent) if isinstance(event, PairReclassified)]
