"""The order of the ways through two NATs, for every pair of profiles."""

from __future__ import annotations

import itertools

import pytest

from crowline.punch.plan_choice import (
    ONE_SIDED,
    FilterKind,
    Fit,
    MappingKind,
    NatSummary,
    Opens,
    PlannedWay,
    PortChoice,
    Way,
    choose_plans,
)

FULL_CONE = NatSummary(MappingKind.INDEPENDENT, FilterKind.OPEN)
ADDRESS_FILTER = NatSummary(MappingKind.INDEPENDENT, FilterKind.PER_HOST)
HOME = NatSummary(MappingKind.INDEPENDENT, FilterKind.PER_PORT)
HARD = (MappingKind.PER_PORT, FilterKind.PER_PORT)
SEQUENTIAL = NatSummary(*HARD, PortChoice.SEQUENTIAL)
BLOCK = NatSummary(*HARD, PortChoice.BLOCK)
RANDOM = NatSummary(*HARD, PortChoice.RANDOM)
PRESERVING = NatSummary(*HARD, PortChoice.PRESERVING)
UNKNOWN = NatSummary()
NO_UDP = NatSummary(has_udp=False)

ALL = [
    NatSummary(mapping, filtering, ports, has_udp, tcp)
    for mapping in MappingKind
    for filtering in FilterKind
    for ports in PortChoice
    for has_udp in (True, False)
    for tcp in (MappingKind.UNKNOWN, MappingKind.INDEPENDENT, MappingKind.PER_PORT)
]
PAIRS = list(itertools.product(ALL[::7], ALL[::11]))
MIRROR = {Opens.OWN: Opens.PEER, Opens.PEER: Opens.OWN, Opens.BOTH: Opens.BOTH}
EVERY_PLAN = {(way, Opens.BOTH) for way in Way if way not in ONE_SIDED} | {
    (way, opens) for way in ONE_SIDED for opens in (Opens.OWN, Opens.PEER)
}


def plans(own: NatSummary, peer: NatSummary, *, leads: bool = True) -> tuple[PlannedWay, ...]:
    return choose_plans(own, peer, leads=leads)


def find(chosen: tuple[PlannedWay, ...], way: Way, opens: Opens = Opens.BOTH) -> PlannedWay:
    (found,) = (plan for plan in chosen if (plan.way, plan.opens) == (way, opens))
    return found


def test_no_profile_forbids_a_way() -> None:
    """Every pair of profiles has every way once, in both roles, with a reason, and the relay at the end."""
    for own, peer in PAIRS:
        chosen = plans(own, peer)
        assert {(plan.way, plan.opens) for plan in chosen} == EVERY_PLAN
        assert len(chosen) == len(EVERY_PLAN)
        assert chosen[-1].way is Way.RELAY and all(plan.reason for plan in chosen)


def test_both_sides_have_the_same_order() -> None:
    """What one side opens is what the other finds that its peer opens, in the same place."""
    for own, peer in PAIRS:
        ours, theirs = plans(own, peer, leads=True), plans(peer, own, leads=False)
        mirrored = [PlannedWay(plan.way, MIRROR[plan.opens], plan.fit, plan.reason) for plan in theirs]
        assert list(ours) == mirrored


@pytest.mark.parametrize(
    ("own", "peer", "way", "opens"),
    [
        (HOME, HOME, Way.LOW_TTL, Opens.BOTH),
        (FULL_CONE, HOME, Way.LOW_TTL, Opens.BOTH),
        (FULL_CONE, RANDOM, Way.PEER_FIRST, Opens.OWN),
        (RANDOM, ADDRESS_FILTER, Way.PEER_FIRST, Opens.PEER),
        (HOME, SEQUENTIAL, Way.PREDICT_ONE, Opens.PEER),
        (SEQUENTIAL, HOME, Way.PREDICT_ONE, Opens.OWN),
        (HOME, RANDOM, Way.SPRAY, Opens.PEER),
        (BLOCK, HOME, Way.SPRAY, Opens.OWN),
        (HOME, PRESERVING, Way.SAME_PORT, Opens.PEER),
        (SEQUENTIAL, SEQUENTIAL, Way.PREDICT_BOTH, Opens.BOTH),
        (UNKNOWN, UNKNOWN, Way.LOW_TTL, Opens.BOTH),
    ],
)
def test_the_way_that_fits_comes_first(own: NatSummary, peer: NatSummary, way: Way, opens: Opens) -> None:
    """The cheapest way that the measured behaviour promises is the first."""
    first = plans(own, peer)[0]
    assert (first.way, first.opens) == (way, opens)


def test_a_filter_by_address_needs_no_spray() -> None:
    """Against any hard NAT, opening the filter comes before everything that guesses."""
    for easy, hard in itertools.product((FULL_CONE, ADDRESS_FILTER), (SEQUENTIAL, BLOCK, RANDOM)):
        chosen = plans(easy, hard)
        opening = chosen.index(find(chosen, Way.PEER_FIRST, Opens.OWN))
        assert opening < min(
            chosen.index(plan) for plan in chosen if plan.way in (Way.SPRAY, Way.PREDICT_ONE)
        )


def test_a_count_that_is_lost_is_sprayed() -> None:
    """Prediction comes before spraying where the NAT counts, and spraying follows as likely."""
    chosen = plans(HOME, SEQUENTIAL)
    spraying = find(chosen, Way.SPRAY, Opens.PEER)
    assert chosen.index(find(chosen, Way.PREDICT_ONE, Opens.PEER)) < chosen.index(spraying)
    assert spraying.fit is Fit.LIKELY


def test_two_random_nats_are_told_why_they_stay_on_the_relay() -> None:
    """No UDP way is likely, and the relay's reason says what stands in the way."""
    chosen = plans(RANDOM, RANDOM)
    assert all(plan.fit is not Fit.LIKELY for plan in chosen if plan.way not in (Way.RELAY, Way.TCP))
    assert "random port" in chosen[-1].reason


def test_tcp_comes_first_where_only_tcp_keeps_its_port() -> None:
    """Symmetric for UDP on both sides, endpoint-independent for TCP: TCP is the likely way."""
    hard = NatSummary(*HARD, PortChoice.RANDOM, tcp_mapping=MappingKind.INDEPENDENT)
    assert plans(hard, hard)[0].way is Way.TCP


def test_without_udp_tcp_is_tried_first() -> None:
    """Where no UDP gets out, every way of UDP is unlikely and comes after TCP."""
    chosen = plans(NO_UDP, HOME)
    assert chosen[0].way is Way.TCP
    assert {plan.fit for plan in chosen if plan.way not in (Way.TCP, Way.RELAY)} == {Fit.UNLIKELY}


def test_the_side_that_leads_opens_first() -> None:
    """Of one way in two roles that are as promising, the leader's comes first."""
    for leads, first in ((True, Opens.OWN), (False, Opens.PEER)):
        spraying = [plan.opens for plan in plans(UNKNOWN, UNKNOWN, leads=leads) if plan.way is Way.SPRAY]
        assert spraying[0] is first


def test_filters_by_host_on_both_sides_leave_one_port_to_guess() -> None:
    """Two mappings for each host with filters by host need one side's guess only."""
    per_host = NatSummary(MappingKind.PER_HOST, FilterKind.PER_HOST, PortChoice.RANDOM)
    assert find(plans(per_host, per_host), Way.SPRAY, Opens.OWN).fit is Fit.POSSIBLE
    assert find(plans(RANDOM, RANDOM), Way.SPRAY, Opens.OWN).fit is Fit.UNLIKELY
