"""Candidates, pairs and their numbers."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.ice.candidate import (
    Candidate,
    CandidateFactory,
    CandidateType,
    TcpType,
    candidate_priority,
)
from crowline.ice.pair import CandidatePair, ValidPair, pair_priority

BASE = Address("10.0.0.2", 5000)
SERVER = Address("198.51.100.1", 3478)
OTHER_SERVER = Address("198.51.100.2", 3478)
MAPPED = Address("203.0.113.7", 5000)


@pytest.mark.parametrize(
    ("type_", "priority"),
    [
        (CandidateType.HOST, 2130706431),
        (CandidateType.SERVER_REFLEXIVE, 1694498815),
        (CandidateType.PEER_REFLEXIVE, 1862270975),
        (CandidateType.RELAYED, 16777215),
    ],
)
def test_priority_of_each_type(type_: CandidateType, priority: int) -> None:
    """The numbers that follow from RFC 8445 §5.1.2 for local preference 65535 and component 1."""
    assert candidate_priority(type_) == priority


def test_pair_priority_of_two_best_hosts() -> None:
    """2^32 times the smaller, twice the larger, and a bit for the larger controlling side."""
    assert pair_priority(2130706431, 2130706431) == 9151314442783293438
    assert pair_priority(2, 1) - pair_priority(1, 2) == 1
    assert pair_priority(3, 5) == 3 * 2**32 + 10


def test_a_check_announces_the_priority_as_peer_reflexive() -> None:
    """Same local preference and component, type preference 110."""
    host = CandidateFactory().host(BASE)
    assert host.peer_reflexive_priority == 1862270975


def test_foundations_follow_type_base_host_and_server() -> None:
    """Ports do not matter; type, base host and server do."""
    factory = CandidateFactory()
    host = factory.host(BASE)
    same = factory.host(Address(BASE.host, 6000))
    reflexive = factory.server_reflexive(MAPPED, BASE, SERVER)
    elsewhere = factory.server_reflexive(MAPPED, BASE, OTHER_SERVER)
    other_host = factory.host(Address("10.0.0.3", 5000))
    assert host.foundation == same.foundation
    assert len({c.foundation for c in (host, reflexive, elsewhere, other_host)}) == 4


def test_each_base_has_its_own_local_preference() -> None:
    """Two sockets never share a priority; the first is the better."""
    factory = CandidateFactory()
    first, second = factory.host(BASE), factory.host(Address("10.1.0.2", 5000))
    assert first.priority > second.priority
    assert factory.server_reflexive(MAPPED, BASE, SERVER).priority == 1694498815


HOSTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]


def priorities(factory: CandidateFactory, hosts: list[str], kind: TcpType | None = None) -> list[int]:
    return [factory.host(Address(host, 5000), kind).priority for host in hosts]


@pytest.mark.parametrize("kind", [None, *TcpType])
@pytest.mark.parametrize("new", range(4))
def test_a_host_that_comes_later_gets_its_place_among_the_others(new: int, kind: TcpType | None) -> None:
    """A cable plugged in beside a radio wins; what the other side has been told stays as it is."""
    factory = CandidateFactory()
    before = [host for host in HOSTS if host != HOSTS[new]]
    factory.prefer(before)
    told = priorities(factory, before, kind)
    factory.prefer(HOSTS)
    now = priorities(factory, HOSTS, kind)
    assert now == sorted(set(now), reverse=True)
    assert told == priorities(factory, before, kind)


def test_sockets_of_one_host_share_its_place() -> None:
    """A second one is behind the first, before any of a host that is preferred less, and never equal."""
    factory = CandidateFactory()
    factory.prefer(HOSTS)
    ports = [factory.host(Address(HOSTS[0], port)).priority for port in range(5000, 5100)]
    assert ports == sorted(set(ports), reverse=True)
    assert ports[-1] > factory.host(Address(HOSTS[1], 5000)).priority


def test_hosts_that_are_not_preferred_come_last() -> None:
    """Such as the one that leads to a relay; they are told apart all the same."""
    factory = CandidateFactory()
    factory.prefer(HOSTS)
    known = priorities(factory, HOSTS)
    others = priorities(factory, ["10.0.0.8", "10.0.0.9"])
    assert min(known) > others[0] > others[1]


@pytest.mark.parametrize("where", ["first", "last", "middle"])
def test_hosts_that_come_and_go_for_ever_have_preferences_all_the_same(where: str) -> None:
    """Within 16 bits, and 13 for TCP: at the end of the places several hosts share one."""
    factory = CandidateFactory()
    hosts = ["10.0.0.1", "10.0.0.2"]
    factory.prefer(hosts)
    priorities(factory, hosts)
    for number in range(300):
        new = f"10.1.{number // 250}.{number % 250}"
        hosts = {"first": [new, *hosts[:1]], "last": [hosts[-1], new], "middle": [hosts[0], new, hosts[-1]]}[
            where
        ]
        factory.prefer(hosts)
        udp, tcp = factory.host(Address(new, 1)), factory.host(Address(new, 1), TcpType.ACTIVE)
        assert udp.priority >> 24 == 126 and tcp.priority >> 24 == 96
        assert tcp.priority >> 21 & 7 == 6


def test_a_relayed_candidate_is_its_own_base() -> None:
    """Checks leave from the relay; the mapped address is told for information."""
    relayed = CandidateFactory().relayed(Address("198.51.100.1", 49152), MAPPED, SERVER)
    assert relayed.sending_base == relayed.address
    assert relayed.related == MAPPED


def valid(local: Candidate, remote: Candidate) -> ValidPair:
    return ValidPair(local, remote, CandidatePair(local, remote))


def host_at(text: str) -> Candidate:
    return CandidateFactory().host(Address.parse(text, 5000))


@pytest.mark.parametrize(
    ("local", "remote", "kind"),
    [
        ("10.0.0.2", "192.168.1.3", "lan"),
        ("2001:db8::2", "2001:db8::3", "lan"),
        ("fe80::2", "fd00::3", "lan"),
        ("203.0.113.5", "127.0.0.1", "lan"),
        ("198.51.100.3", "198.51.100.3", "lan"),
        ("203.0.113.7", "198.51.100.3", "direct"),
        ("10.0.0.2", "198.51.100.3", "direct"),
        ("2001:db8:1::2", "2001:db8:2::3", "direct"),
    ],
)
def test_kind_tells_neighbours_from_strangers(local: str, remote: str, kind: str) -> None:
    """Local address space on both ends, or one /64, is a LAN."""
    assert valid(host_at(local), host_at(remote)).kind == kind


def test_kind_is_relay_when_either_end_is() -> None:
    """One relayed end makes the whole path relayed."""
    relayed = CandidateFactory().relayed(Address("10.0.0.9", 49152), MAPPED, SERVER)
    assert valid(relayed, host_at("10.0.0.2")).kind == "relay"
    assert valid(host_at("10.0.0.2"), relayed).kind == "relay"


def test_round_trip_time_is_smoothed() -> None:
    """The first sample is taken as it is, later ones move it by an eighth."""
    pair = valid(host_at("10.0.0.2"), host_at("10.0.0.3"))
    pair.measure(0.08)
    pair.measure(0.16)
    assert pair.rtt == pytest.approx(0.09)
