"""What one side of a common examination tells the other of itself: the outcome of its own, in few words."""

from __future__ import annotations

from crowline.diagnosis.diagnosis import Diagnosis
from crowline.diagnosis.facts import Facts, FirewallFacts, Stance
from crowline.diagnosis.pair_messages import MAX_NAME, MAX_NAMES, MAX_WORDS, SideFacts
from crowline.diagnosis.prospects import own_summary
from crowline.punch.nat_profile import Mapping, NatProfile


def side_of(facts: Facts, diagnosis: Diagnosis) -> SideFacts:
    """No address of this machine or of its network is among it."""
    nat = facts.ipv4.nat or facts.ipv6.nat
    routers = dict.fromkeys(name for router in facts.routers for name in router.protocols)
    return SideFacts.of(
        own_summary(facts),
        verdict=diagnosis.verdict.value,
        nat=nat_words(nat)[:MAX_WORDS],
        has_ipv6=facts.ipv6.works is True,
        is_double=facts.is_double,
        routers=tuple(name[:MAX_NAME] for name in routers)[:MAX_NAMES],
        firewall=_blocking(facts.firewalls)[:MAX_WORDS],
    )


def nat_words(nat: NatProfile | None) -> str:
    """A NAT in one line: the old name, and what it does."""
    if nat is None:
        return "not measured"
    if not nat.answers:
        return "no UDP comes back"
    if nat.mapping is Mapping.NONE:
        return nat.classic_name
    return f"{nat.classic_name}, ports {nat.ports}"


def _blocking(firewalls: tuple[FirewallFacts, ...]) -> str:
    for each in firewalls:
        if each.outbound is Stance.BLOCKS:
            return f"{each.name} lets not all packets out"
    for each in firewalls:
        if each.inbound is Stance.BLOCKS:
            return f"{each.name} lets in only what was asked for"
    return ""
