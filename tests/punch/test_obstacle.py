"""The sentences that say why there is no direct path, and what made the one that there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from crowline.base.addresses import Address
from crowline.ice.candidate import Candidate, CandidateFactory, TcpType
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.punch.obstacle import COMES_THROUGH, NOTHING_YET, merit, obstacle
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice, Way

HOME = NatSummary(MappingKind.INDEPENDENT, FilterKind.PER_PORT, PortChoice.PRESERVING)
RANDOM = NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM)
BLOCK = replace(RANDOM, ports=PortChoice.BLOCK)
COUNTING = replace(RANDOM, ports=PortChoice.SEQUENTIAL)
BLOCKED = replace(HOME, has_udp=False)
UNKNOWN = NatSummary()

SERVER = Address("198.51.100.9", 3478)
INSIDE = Address("192.168.1.2", 4000)
OUTSIDE = Address("203.0.113.1", 4000)
PEER = Address("198.51.100.1", 5000)


@pytest.mark.parametrize(
    ("own", "peer", "words"),
    [
        (RANDOM, RANDOM, "both NATs draw a new random port for each destination"),
        (RANDOM, BLOCK, "both NATs draw a new random port for each destination"),
        (COUNTING, RANDOM, "one of them draws it at random"),
        (COUNTING, COUNTING, "both NATs count on"),
        (RANDOM, HOME, "this side's NAT gives each destination another random port"),
        (HOME, RANDOM, "the other side's NAT gives each destination another random port"),
        (HOME, COUNTING, "the other side's NAT gives each destination the next port"),
        (HOME, HOME, "such as a firewall"),
        (BLOCKED, HOME, "no UDP gets out of this network"),
        (HOME, BLOCKED, "no UDP gets out of the other side's network"),
        (BLOCKED, BLOCKED, "no UDP gets out of either network"),
        (None, BLOCKED, "no UDP gets out of the other side's network"),
        (None, RANDOM, "and what this side's does is not known"),
        (RANDOM, UNKNOWN, "and what the other side's does is not known"),
        (None, None, NOTHING_YET),
        (UNKNOWN, HOME, NOTHING_YET),
    ],
)
def test_the_obstacle_is_named(own: NatSummary | None, peer: NatSummary | None, words: str) -> None:
    """Blocked UDP before all, then hard NATs, then what was not measured, then the rest."""
    assert words in obstacle(own, peer)


def test_both_sides_name_the_same_obstacle() -> None:
    """What one says of this side, the other says of the other side, for all profiles."""

    def mirrored(words: str) -> str:
        swaps = (("this side's", "@"), ("the other side's", "this side's"), ("@", "the other side's"))
        for old, new in swaps:
            words = words.replace(old, new)
        return words

    sides = (HOME, RANDOM, BLOCK, COUNTING, UNKNOWN, None)
    for own, peer in product(sides, sides):
        assert obstacle(own, peer) == mirrored(obstacle(peer, own))


def test_every_obstacle_is_part_of_a_line() -> None:
    """It begins small, ends without a full stop and is one line, whatever is known."""
    sides = [
        NatSummary(mapping, filtering, ports, has_udp, tcp)
        for mapping, filtering, ports, has_udp, tcp in product(
            MappingKind, FilterKind, PortChoice, (True, False), MappingKind
        )
    ]
    for side in sides:
        for other in (HOME, RANDOM, UNKNOWN, None):
            words = obstacle(side, other)
            assert words and words[0].islower() and words[-1].isalpha() and "\n" not in words


def pair(local: Candidate, remote: Candidate) -> ValidPair:
    return ValidPair(local, remote, CandidatePair(local, remote))


def theirs(address: Address) -> Candidate:
    return CandidateFactory().server_reflexive(address, address, SERVER)


OURS = CandidateFactory().server_reflexive(OUTSIDE, INSIDE, SERVER)


@pytest.mark.parametrize("way", list(Way))
def test_a_plan_that_found_a_pair_is_named_or_is_nothing_special(way: Way) -> None:
    """Openers with a low hop limit, TCP and the relay are how every meeting tries; the others are told."""
    words = merit(pair(OURS, theirs(PEER)), HOME, RANDOM, way)
    ordinary = way in (Way.LOW_TTL, Way.TCP, Way.RELAY)
    assert (words == COMES_THROUGH) is ordinary


@pytest.mark.parametrize("way", [Way.PREDICT_ONE, Way.SPRAY])
def test_the_nat_that_was_guessed_is_the_hard_one(way: Way) -> None:
    """Whichever side it is on."""
    assert "the other side's NAT" in merit(pair(OURS, theirs(PEER)), HOME, RANDOM, way)
    assert "this side's NAT" in merit(pair(OURS, theirs(PEER)), RANDOM, HOME, way)


def test_other_pairs_say_what_they_are() -> None:
    """Neighbours, IPv6, no NAT at all, a relay."""
    factory = CandidateFactory()
    assert merit(pair(factory.host(INSIDE), theirs(Address("192.168.1.3", 1)))) == "both are in one network"
    six, other = Address("2001:db8::1", 1), Address("2001:db8:1::1", 1)
    assert "IPv6" in merit(pair(factory.host(six), theirs(other)))
    public = factory.host(OUTSIDE)
    assert merit(pair(public, factory.host(PEER))) == "neither side is behind a NAT"
    assert merit(pair(OURS, theirs(PEER))) == COMES_THROUGH
    relayed = factory.relayed(Address("198.51.100.9", 7000), OUTSIDE, SERVER)
    assert merit(pair(relayed, theirs(PEER))) == NOTHING_YET


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TcpType.SIMULTANEOUS_OPEN, "both sides opened at the same moment"),
        (TcpType.PASSIVE, "the other side could open"),
        (TcpType.ACTIVE, "this side could open"),
    ],
)
def test_who_dialled_is_said(kind: TcpType, words: str) -> None:
    """Of a pair over TCP."""
    factory = CandidateFactory()
    local = factory.server_reflexive(OUTSIDE, INSIDE, SERVER, kind)
    assert words in merit(pair(local, factory.server_reflexive(PEER, PEER, SERVER, kind)))
