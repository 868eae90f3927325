"""Which pairs get a link, and which link is preferred."""

from __future__ import annotations

from dataclasses import replace

from crowline.base.addresses import Address
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.link.choice import HUB_RANK, MAX_LINKS_OF_A_KIND, deserves_link, rank_of

FACTORY = CandidateFactory()
LOCAL = FACTORY.host(Address("203.0.113.1", 5000))


def valid(remote: Candidate, priority: int) -> ValidPair:
    pair = CandidatePair(LOCAL, remote)
    pair.priority = priority
    return ValidPair(LOCAL, remote, pair)


def direct(port: int, priority: int) -> ValidPair:
    return valid(CandidateFactory().host(Address("198.51.100.1", port)), priority)


def relayed(port: int, priority: int) -> ValidPair:
    there = Address("198.51.100.9", port)
    return valid(CandidateFactory().relayed(there, there, there), priority)


def test_the_first_pair_of_each_kind_gets_a_link() -> None:
    """However low its priority."""
    assert deserves_link(direct(1, 1), [])
    assert deserves_link(relayed(1, 1), [direct(1, 99)])


def test_only_a_better_pair_gets_another() -> None:
    """Not one as good, and not the same pair again."""
    used = [direct(1, 50), relayed(1, 10)]
    assert deserves_link(direct(2, 51), used)
    assert not deserves_link(direct(2, 50), used)
    assert not deserves_link(direct(1, 99), used)
    assert not deserves_link(relayed(2, 9), used)


def test_links_are_bounded() -> None:
    """The best pair waits until one of the others has gone; relayed ones do not keep direct ones waiting."""
    used = [direct(port, port) for port in range(1, MAX_LINKS_OF_A_KIND + 1)]
    assert not deserves_link(direct(99, 99), used)
    assert deserves_link(direct(99, 99), used[1:])
    assert deserves_link(relayed(99, 99), used)


def test_the_kind_decides_before_the_priority() -> None:
    """Direct before relay before the hub, whatever a pair's priority may be."""
    highest = 2**63 - 1
    assert HUB_RANK < rank_of(relayed(1, 0)) == rank_of(relayed(1, highest)) < rank_of(direct(1, 0))
    assert rank_of(direct(1, 1)) == rank_of(direct(2, 2))


def test_a_pair_of_the_other_transport_gets_a_link_beside_the_better_one() -> None:
    """Its priority is less by rule, not by measurement."""
    over_tcp = replace(CandidateFactory().host(Address("198.51.100.1", 3)), transport="tcp")
    pair = CandidatePair(replace(LOCAL, transport="tcp"), over_tcp)
    pair.priority = 1
    assert deserves_link(ValidPair(pair.local, pair.remote, pair), [direct(1, 50)])
