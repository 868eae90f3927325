"""The verdict, the reasons for it in words for a person, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crowline.diagnosis.facts import Facts, Portal, Stance
from crowline.diagnosis.fixes import LEAST_MTU, Fix, fixes
from crowline.diagnosis.prospects import LEAST_DATAGRAM, Prospect
from crowline.diagnosis.standing import Standing
from crowline.diagnosis.verdict import Verdict
from crowline.punch.nat_profile import AllocationPattern, Facet, Filtering, Mapping, NatProfile
from crowline.punch.plan_choice import Way

LIKELY = 0.5
"""The share of peers from which on a direct connection is likely."""

_MOST = 0.95  # with more than this share of peers nobody is worth a warning in the first sentence


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`reach` is the share of peers that are reached directly, 0 to 1; 0 where nothing was measured."""

    verdict: Verdict
    summary: str
    reasons: tuple[str, ...]
    fixes: tuple[Fix, ...]
    prospects: tuple[Prospect, ...]
    reach: float


def diagnose(facts: Facts) -> Diagnosis:
    """What follows from the facts."""
    standing = Standing.of(facts)
    found = standing.prospects if facts.server.is_reached and facts.udp is not None else ()
    reach = standing.reach if facts.server.is_reached and facts.udp is not None else 0.0
    verdict = _verdict(facts, reach)
    summary = _summary(verdict, facts, found, reach)
    return Diagnosis(verdict, summary, tuple(_reasons(facts)), fixes(facts), found, reach)


def _verdict(facts: Facts, reach: float) -> Verdict:
    if not facts.server.is_reached:
        return Verdict.NO_SERVER
    if facts.udp is False:
        return Verdict.UDP_BLOCKED
    # Nothing is promised of what was not measured.
    is_likely = facts.udp is not None and reach >= LIKELY
    return Verdict.DIRECT_LIKELY if is_likely else Verdict.RELAY_NEEDED


def _summary(verdict: Verdict, facts: Facts, found: tuple[Prospect, ...], reach: float) -> str:
    if verdict is Verdict.NO_SERVER:
        return _no_server(facts)
    if verdict is Verdict.UDP_BLOCKED:
        by_tcp = sum(each.kind.weight for each in found if each.is_direct)
        if by_tcp:
            return (
                "UDP is blocked here. TCP still connects you directly to many people, a relay to the others."
            )
        return "UDP is blocked here, and TCP goes nowhere else. A relay connects you to everybody."
    if facts.udp is None:
        return (
            "Nothing could be measured here. A relay connects you to everybody; what else works is not known."
        )
    if verdict is Verdict.RELAY_NEEDED:
        return "You need a relay with most people. It connects you to everybody, at its own speed."
    hard = _by_relay(found)
    if not hard:
        return "You can connect directly to nearly everybody."
    many = "most" if reach < _MOST else "nearly all"
    return f"You can connect directly to {many} people. By relay: those behind {_listed(hard)}."


def _by_relay(found: tuple[Prospect, ...]) -> list[str]:
    """The kinds of peers that are reached by a relay, in as few words as they allow."""
    hard = [each for each in found if each.kind.summary.is_hard]
    by_relay = [each for each in found if each.way is Way.RELAY]
    if hard and all(each in by_relay for each in hard):
        return ["a hard NAT", *(each.kind.words for each in by_relay if each not in hard)]
    return [each.kind.words for each in by_relay]


def _no_server(facts: Facts) -> str:
    if facts.is_offline:
        return "This machine is offline."
    if facts.portal.portal is Portal.FOUND:
        return "This network wants you to sign in before it lets anything through."
    return f"No server can be reached. {facts.server.problem}".strip()


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


# --- reasons --------------------------------------------------------------------------------------------


def _reasons(facts: Facts) -> Iterator[str]:
    """The weightiest first."""
    if facts.portal.portal is Portal.FOUND:
        yield "A captive portal answers in the place of the server."
    if facts.udp is False:
        yield "No UDP comes back from the server" + (
            ", and TCP only gets out to its port." if facts.tcp is False else "."
        )
    if facts.ports.silent:
        yield _of_ports(facts)
    if facts.ipv4.nat is not None and facts.ipv4.nat.answers:
        yield from _of_nat(facts.ipv4.nat, opens_ports=facts.opens_ports)
    yield from _of_layers(facts)
    if facts.opens_ports:
        protocols = _listed(sorted({name for each in facts.routers for name in each.protocols}))
        end = ": everybody reaches this machine." if facts.lets_in else "."
        yield f"The router opens ports when it is asked ({protocols}){end}"
    yield from _of_ipv6(facts)
    if facts.proxy is not None and facts.proxy.is_used:
        yield "A proxy stands between this machine and the server; it carries no UDP."
    for firewall in facts.firewalls:
        if Stance.BLOCKS in (firewall.inbound, firewall.outbound):
            yield f"{firewall.name} on this machine {_blocked(firewall.inbound, firewall.outbound)}."
    passed = facts.mtu.passed
    if passed is not None and passed < LEAST_MTU and facts.mtu.lost is not None:
        verb = "is too small for" if passed < LEAST_DATAGRAM else "leaves little room for"
        yield f"The path to the server carries packets of {passed} bytes at most, which {verb} direct links."
    if facts.tunnel:
        yield f"Packets leave by a VPN ({facts.tunnel}): what others see is its other end."
    if facts.server.is_reached and facts.udp is None and facts.server.has_stun:
        yield "What the NAT does was not found out in time."
    if facts.server.is_reached and not facts.server.has_stun:
        yield "The server names no STUN server, so nothing could be measured."


def _of_nat(nat: NatProfile, *, opens_ports: bool) -> Iterator[str]:
    if nat.mapping is Mapping.NONE:
        if nat.filtering in (Filtering.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT):
            yield "No NAT is in between, but a firewall lets in only answers."
        elif nat.filtering is Filtering.UNKNOWN:
            yield "No NAT is in between."
        else:
            yield "No NAT is in between: others reach this machine directly."
        return
    if nat.mapping is Mapping.ENDPOINT_INDEPENDENT:
        yield "Your NAT keeps one port for every destination (easy): others can be told where to send."
    elif nat.mapping is Mapping.UNKNOWN:
        why = nat.unknown.get(Facet.MAPPING)
        yield "What your NAT does with ports could not be learnt" + (f": {why.value}." if why else ".")
    else:
        yield f"Your NAT takes {_PORTS[nat.ports.kind]} for each destination (hard): others must guess it."
    if not opens_ports and nat.filtering is Filtering.ADDRESS_AND_PORT_DEPENDENT:
        yield "Your NAT lets in only answers from the very address and port that was sent to."


def _of_ports(facts: Facts) -> str:
    ports = _listed([str(port) for port in facts.ports.silent])
    where = {True: "closed at the server", False: "blocked in this network", None: "blocked somewhere"}
    return f"UDP to port {ports} of the server stays unanswered: it is {where[facts.ports.leaves]}."


_PORTS = {
    AllocationPattern.PRESERVING: "another port",
    AllocationPattern.SEQUENTIAL: "the next port",
    AllocationPattern.PARITY: "a random port",
    AllocationPattern.BLOCK: "a random port out of a small block",
    AllocationPattern.RANDOM: "a random port",
    AllocationPattern.UNKNOWN: "another port",
}


def _of_layers(facts: Facts) -> Iterator[str]:
    if facts.carrier and not facts.ipv4.is_public:
        yield "Your provider translates once more (CGN), which nothing at home can open."
    elif facts.is_double:
        yield "Two NATs stand in a row."


def _of_ipv6(facts: Facts) -> Iterator[str]:
    if facts.ipv6.works:
        yield "IPv6 works: you meet others that have it without any NAT."
    elif facts.ipv6.works is False and facts.udp:
        yield "There is an IPv6 address, but no UDP comes back by IPv6."
    elif facts.udp and not facts.ipv6.hosts:
        yield "There is no IPv6 here."


def _blocked(inbound: Stance, outbound: Stance) -> str:
    if outbound is Stance.BLOCKS:
        return "blocks UDP that this machine sends"
    return "lets in only answers" if inbound is Stance.BLOCKS else ""
