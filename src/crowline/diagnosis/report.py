"""An examination for people, as lines, and for programs, as the fields of schema `doctor/1`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crowline.diagnosis.diagnosis import Diagnosis
from crowline.diagnosis.facts import Facts, FamilyFacts, FirewallFacts, Portal, Privacy, RouterFacts, Stance
from crowline.diagnosis.fixes import Fix
from crowline.punch.nat_profile import Facet, Filtering, Hairpinning, Mapping, NatProfile

SCHEMA = "doctor/1"
"""Fields are added to it and never change their meaning; what changes one is another schema."""

SHOWN_FIXES = 3
"""More are not read; programs get all."""


def to_fields(facts: Facts, diagnosis: Diagnosis, seconds: float) -> dict[str, Any]:
    """Plain values, ready for JSON. ``None`` stands for what is not known."""
    return {
        "schema": SCHEMA,
        "verdict": diagnosis.verdict.value,
        "exit": diagnosis.verdict.exit_code,
        "summary": diagnosis.summary,
        "reach": round(diagnosis.reach, 3),
        "reasons": list(diagnosis.reasons),
        "fixes": [_fix(each) for each in diagnosis.fixes],
        "prospects": [
            {
                "behind": each.kind.words,
                "share": each.kind.weight / 100,
                "direct": each.is_direct,
                "way": each.way.name.lower().replace("_", "-"),
                "reason": each.reason,
            }
            for each in diagnosis.prospects
        ],
        "server": {
            "url": facts.server.url,
            "reached": facts.server.is_reached,
            "rtt_ms": _milliseconds(facts.server.round_trip),
            "problem": facts.server.problem,
        },
        "ipv4": _family(facts.ipv4),
        "ipv6": {**_family(facts.ipv6), "privacy": facts.privacy.name.lower()},
        "udp": facts.udp,
        "tcp": facts.tcp,
        "routers": [
            {"gateway": each.gateway, "protocols": list(each.protocols), "outside": each.outside_host}
            for each in facts.routers
        ],
        "double_nat": facts.is_double or facts.carrier,
        "carrier_nat": facts.carrier,
        "hops": list(facts.hops),
        "udp_ports": {
            "answering": list(facts.ports.answering),
            "silent": list(facts.ports.silent),
            "leaves": facts.ports.leaves,
        },
        "mtu": {"passed": facts.mtu.passed, "lost": facts.mtu.lost},
        "proxy": None if facts.proxy is None else facts.proxy.url,
        "captive_portal": {"found": _portal(facts), "login": facts.portal.login},
        "firewalls": [
            {
                "name": each.name,
                "inbound": each.inbound.name.lower(),
                "outbound": each.outbound.name.lower(),
                "note": each.note,
            }
            for each in facts.firewalls
        ],
        "vpn": facts.tunnel,
        "left_out": list(facts.left_out),
        "seconds": round(seconds, 2),
    }


def to_lines(facts: Facts, diagnosis: Diagnosis, seconds: float) -> Iterator[tuple[str, str]]:
    """Pairs of a heading and what stands beside it; a heading is "" where the one before goes on."""
    yield "Verdict", diagnosis.summary
    yield from _headed("Why", diagnosis.reasons)
    yield "IPv4", _ipv4_words(facts)
    if facts.ipv4.nat is not None and facts.ipv4.nat.answers:
        yield from _headed("NAT", _nat_words(facts.ipv4.nat))
    yield "IPv6", _ipv6_words(facts)
    if facts.server.is_reached:
        yield "UDP", _udp_words(facts)
        yield "TCP", _TCP[facts.tcp]
    yield "Router", "; ".join(map(_router_words, facts.routers)) or _no_router(facts)
    yield "Proxy", "none" if facts.proxy is None else facts.proxy.url
    yield "Portal", _PORTALS[facts.portal.portal]
    yield "Firewall", "; ".join(map(_firewall_words, facts.firewalls)) or "none on this machine"
    if facts.tunnel:
        yield "VPN", f"packets leave by {facts.tunnel}"
    yield "Server", _server_words(facts)
    yield from _headed("Fix first", _fix_lines(diagnosis.fixes))
    yield (
        "Measured",
        f"in {seconds:.1f} s" + (f", without {', '.join(facts.left_out)}" if facts.left_out else ""),
    )


def _headed(heading: str, lines: tuple[str, ...] | list[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        yield heading if number == 0 else "", line


def _fix(fix: Fix) -> dict[str, Any]:
    return {
        "key": fix.key,
        "title": fix.title,
        "gain": fix.gain.value,
        "why": fix.why,
        "commands": list(fix.commands),
    }


def _fix_lines(fixes: tuple[Fix, ...]) -> list[str]:
    if not fixes:
        return ["nothing needs to be changed"]
    lines: list[str] = []
    for number, fix in enumerate(fixes[:SHOWN_FIXES], 1):
        lines.append(f"{number}. {fix.title} (gain: {fix.gain.value})")
        lines += [f"   {command}" for command in fix.commands]
    return lines


def _family(family: FamilyFacts) -> dict[str, Any]:
    return {
        "addresses": list(family.hosts),
        "route": family.has_route,
        "translated": family.is_translated,
        "nat": None if family.nat is None else family.nat.as_dict(),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _portal(facts: Facts) -> bool | None:
    return {Portal.FOUND: True, Portal.NONE: False}.get(facts.portal.portal)


# --- words ----------------------------------------------------------------------------------------------

_MAPPINGS = {
    Mapping.NONE: "none: no translation",
    Mapping.ENDPOINT_INDEPENDENT: "same port for every destination (easy)",
    Mapping.ADDRESS_DEPENDENT: "another port for each host (hard)",
    Mapping.ADDRESS_AND_PORT_DEPENDENT: "another port for each destination (hard)",
    Mapping.UNKNOWN: "not known",
}
_FILTERS = {
    Filtering.ENDPOINT_INDEPENDENT: "lets everybody in",
    Filtering.ADDRESS_DEPENDENT: "by address",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "by address and port",
    Filtering.UNKNOWN: "not known",
}
_TCP = {
    True: "gets out to other ports",
    False: "gets out to the server's own port only",
    None: "not measured",
}
_PORTALS = {Portal.NONE: "none", Portal.FOUND: "this network wants a sign-in", Portal.UNKNOWN: "not known"}
_PRIVACY = {
    Privacy.TEMPORARY: "temporary address",
    Privacy.STABLE: "stable address",
    Privacy.HARDWARE: "shows the hardware's number",
}


def _ipv4_words(facts: Facts) -> str:
    nat, hosts = facts.ipv4.nat, facts.ipv4.hosts
    if facts.ipv4.is_translated:
        return "reached by NAT64: this network has IPv6 alone"
    if not hosts:
        return "none"
    if nat is None or not nat.outside_hosts:
        return hosts[0]
    if nat.mapping is Mapping.NONE:
        return f"{nat.outside_hosts[0]}, this machine's own address"
    layers = "2 NATs, the second of the carrier" if facts.carrier and len(facts.hops) > 1 else "a NAT"
    layers = "2 NATs" if facts.is_double and not facts.carrier else layers
    return f"{', '.join(nat.outside_hosts)} through {layers}"


def _nat_words(nat: NatProfile) -> list[str]:
    mapping = f"mapping: {_MAPPINGS[nat.mapping]}{_doubt(nat, Facet.MAPPING, nat.mapping is Mapping.UNKNOWN)}"
    filtering = f"filtering: {_FILTERS[nat.filtering]}"
    filtering += _doubt(nat, Facet.FILTERING, nat.filtering is Filtering.UNKNOWN)
    if nat.mapping is Mapping.NONE:
        return [f"{mapping}; {filtering}"]
    hairpin = {Hairpinning.UNKNOWN: "not known", Hairpinning.NO: "no"}.get(nat.hairpinning, "yes")
    return [
        mapping,
        filtering,
        f"ports: {nat.ports}; hairpin: {hairpin}",
        f'called "{nat.classic_name}" in RFC 3489',
    ]


def _doubt(nat: NatProfile, facet: Facet, is_unknown: bool) -> str:
    """Why something is not known, or not for certain."""
    if facet not in nat.unknown:
        return ""
    why = nat.unknown[facet].value
    return f": {why}" if is_unknown else f", not for certain: {why}"


def _ipv6_words(facts: Facts) -> str:
    family = facts.ipv6
    if not family.hosts:
        return "none"
    works = {True: "works", False: "no UDP comes back", None: "not measured"}[family.works]
    privacy = _PRIVACY.get(facts.privacy)
    return f"{family.hosts[0]}, {works}" + (f", {privacy}" if privacy else "")


def _udp_words(facts: Facts) -> str:
    words = {True: "open", False: "blocked", None: "not measured"}[facts.udp]
    if facts.is_narrow:
        words = f"open to port {', '.join(map(str, facts.ports.answering))} only"
    if facts.mtu.passed is None:
        return words
    return f"{words}; path MTU {'at least ' if facts.mtu.lost is None else ''}{facts.mtu.passed}"


def _router_words(router: RouterFacts) -> str:
    if not router.protocols:
        return f"{router.gateway} opens no ports (no UPnP, NAT-PMP or PCP)"
    outside = f", outside address {router.outside_host}" if router.outside_host else ""
    return f"{router.gateway} opens ports by {', '.join(router.protocols)}{outside}"


def _no_router(facts: Facts) -> str:
    return "none in between" if facts.ipv4.is_public else "none is known that could be asked"


def _firewall_words(firewall: FirewallFacts) -> str:
    if firewall.note:
        return f"{firewall.name}: {firewall.note}"
    if firewall.outbound is Stance.BLOCKS:
        return f"{firewall.name} blocks UDP that leaves"
    inbound = {Stance.LETS: "lets UDP in", Stance.BLOCKS: "lets in answers only", Stance.UNKNOWN: "is on"}
    return f"{firewall.name} {inbound[firewall.inbound]}"


def _server_words(facts: Facts) -> str:
    if not facts.server.is_reached:
        return facts.server.problem or "not reached"
    round_trip = _milliseconds(facts.server.round_trip)
    return f"{facts.server.url}" + ("" if round_trip is None else f", {round_trip:g} ms")
