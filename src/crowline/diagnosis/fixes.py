"""What would help: each remedy that applies, weighed by what it would change, the best first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from crowline.diagnosis.facts import Facts, Portal, Privacy, Stance
from crowline.diagnosis.prospects import ORDINARY, opened
from crowline.diagnosis.remedies import allow_inbound, allow_outbound
from crowline.diagnosis.standing import Standing
from crowline.punch.nat_profile import Facet, Mapping, Reason
from crowline.punch.plan_choice import FilterKind, MappingKind

LEAST_MTU = 1280
"""Bytes that every link of IPv6 carries whole (RFC 8200 §5)."""

# Differences of `Standing.ease`, in shares of all peers.
_LARGE, _SOME, _LEAST = 0.10, 0.02, 0.004


class Gain(Enum):
    """How much a remedy changes."""

    LARGE = "large"
    SOME = "some"
    SMALL = "small"


@dataclass(frozen=True, slots=True)
class Fix:
    """`key` is stable, for programs; `commands` are for a terminal of this machine; `why` is a sentence."""

    key: str
    title: str
    gain: Gain
    why: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Remedy:
    """A fix before it is weighed: `after` is where the machine would stand then.

    `must`: nothing works without it. `is_kept`: it is worth a word whatever it changes.
    """

    key: str
    title: str
    why: str
    commands: tuple[str, ...] = ()
    after: Standing | None = None
    must: bool = False
    is_kept: bool = False


def fixes(facts: Facts) -> tuple[Fix, ...]:
    """What applies, what cannot be done without first, then by gain, then the easiest to do."""
    now = Standing.of(facts)
    weighed = [
        (remedy, remedy.after.ease - now.ease if remedy.after is not None else 0.0)
        for source in _SOURCES
        for remedy in source(facts, now)
    ]
    useful = [(each, gain) for each, gain in weighed if each.must or each.is_kept or gain >= _LEAST]
    ranked = sorted(useful, key=lambda pair: (not pair[0].must, -round(pair[1], 2)))
    return tuple(
        Fix(each.key, each.title, _gain(each, gain), each.why, each.commands) for each, gain in ranked
    )


def _gain(remedy: _Remedy, gain: float) -> Gain:
    if remedy.must or gain >= _LARGE:
        return Gain.LARGE
    return Gain.SOME if gain >= _SOME else Gain.SMALL


# --- what stands before everything else -----------------------------------------------------------------


def _entrance(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """What keeps this machine from the server."""
    if facts.is_offline:
        yield _Remedy(
            "connect", "Connect this machine to a network.", "No packet has a way out of it.", must=True
        )
        return
    if facts.portal.portal is Portal.FOUND:
        where = f" at {facts.portal.login}" if facts.portal.login else ": open any http:// page in a browser"
        yield _Remedy(
            "sign-in",
            f"Sign in to this network{where}.",
            "Until then it answers in the place of every server.",
            must=True,
        )
    elif not facts.server.is_reached:
        yield _Remedy(
            "server",
            facts.server.hint or "Check the server's address, and whether it runs.",
            "Without a server two sides cannot find each other by a code.",
            must=True,
        )


def _blocked_udp(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """UDP that does not get out, and TCP that does not either."""
    if not facts.server.is_reached or not (facts.udp is False or facts.is_narrow):
        return
    blocking = [each for each in facts.firewalls if each.outbound is Stance.BLOCKS]
    freed = replace(now, summary=replace(now.summary, has_udp=True))
    if facts.udp is False:
        # What lies behind the firewall is not known: most likely what most networks have.
        freed = replace(freed, summary=replace(ORDINARY, tcp_mapping=now.summary.tcp_mapping))
    for firewall in blocking:
        yield _Remedy(
            "local-firewall-out",
            f"Let UDP out of this machine: {firewall.name} blocks it.",
            "Direct connections go by UDP where they can.",
            allow_outbound(firewall),
            after=freed,
            must=True,
        )
    if not blocking and facts.tunnel:
        yield _Remedy(
            "vpn-udp",
            f"Try without the VPN ({facts.tunnel}), or let its other end pass UDP.",
            "All packets leave by it, and no UDP comes back.",
            after=freed,
        )
    if not blocking and facts.is_narrow:
        ports = " and ".join(map(str, facts.ports.answering))
        yield _Remedy(
            "network-udp-ports",
            f"Have the firewall of this network let UDP out to all ports from 1024, not to {ports} alone.",
            "Other people's ports are any; packets to them end in this network.",
            after=freed,
        )
    elif not blocking:
        yield _Remedy(
            "network-udp",
            "Have the firewall of this network let UDP out, to any host and to ports from 1024.",
            "No UDP comes back from outside, and nothing on this machine is known to block it.",
            after=freed,
        )
    if facts.tcp is False:
        yield _Remedy(
            "network-tcp",
            "Have the firewall of this network let TCP out, to ports from 1024.",
            "Two sides without UDP can still meet directly by TCP, where it gets out to more than port 443.",
            after=replace(now, has_tcp=True, summary=replace(now.summary, tcp_mapping=ORDINARY.mapping)),
            is_kept=True,
        )


# --- the translators ------------------------------------------------------------------------------------


def _router(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """A router that could open ports, or map as it should. Nothing of it gets past a carrier's translator."""
    nat = facts.ipv4.nat
    if nat is None or not nat.answers or nat.mapping is Mapping.NONE or facts.carrier or facts.tunnel:
        return
    gateway = f" at {facts.routers[0].gateway}" if facts.routers else ""
    if facts.is_double:
        yield _Remedy(
            "one-router",
            "Let only one of the two routers translate: set the inner one to bridge or access point mode.",
            "A port that the inner router opens leads to the outer one, which knows nothing of it.",
            after=replace(now, summary=opened(now.summary, facts)),
        )
    elif not facts.opens_ports:
        yield _Remedy(
            "router-mapping",
            f"Turn on UPnP, PCP or NAT-PMP in the router{gateway}.",
            "It then opens a port for a connection by itself, and everybody reaches this machine.",
            after=replace(now, summary=opened(now.summary, facts)),
        )
    if now.summary.is_hard:
        tamed = replace(now.summary, mapping=MappingKind.INDEPENDENT, tcp_mapping=MappingKind.INDEPENDENT)
        yield _Remedy(
            "router-nat-mode",
            f"Have the router{gateway} keep one outside port for each program.",
            'Menus call it "static port", "endpoint-independent" or "full cone" NAT, against "symmetric".',
            after=replace(now, summary=tamed),
        )


def _vpn(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """A VPN whose other end is a worse place than what lies beneath it most likely is."""
    if facts.tunnel and facts.udp and not facts.is_narrow:
        yield _Remedy(
            "vpn",
            f"Try without the VPN ({facts.tunnel}).",
            "All packets leave by it: it is the translator at its other end that others meet.",
            after=replace(now, summary=ORDINARY),
        )


def _provider(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """What only the provider can change."""
    if not facts.server.is_reached:
        return
    if facts.carrier and not facts.ipv4.is_public:
        yield _Remedy(
            "provider-address",
            "Ask the provider for a public IPv4 address of your own.",
            "The provider's translator (CGN) is between, and no router at home opens a port in it.",
            after=replace(now, summary=opened(now.summary, facts)),
            is_kept=True,
        )
    if facts.ipv6.works is False and facts.udp:
        yield _Remedy(
            "network-udp-ipv6",
            "Have the firewall of this network let UDP out by IPv6, too.",
            "This machine has an IPv6 address, and no UDP comes back to it.",
            after=replace(now, has_ipv6=True),
        )
    if facts.ipv6.works is None and facts.udp is not False and (facts.ipv6.has_route or not facts.tunnel):
        title = (
            "Use a server with IPv6 too: this machine has it, and could not try it."
            if facts.ipv6.has_route
            else "Ask the provider for IPv6, or turn it on in the router."
        )
        yield _Remedy(
            "ipv6",
            title,
            "Two sides with IPv6 meet without any translator in between.",
            after=replace(now, has_ipv6=True),
            is_kept=facts.carrier,
        )


# --- this machine ---------------------------------------------------------------------------------------


def _local_firewall(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """A firewall here that keeps out what no translator would."""
    is_reachable = facts.ipv4.is_public or facts.opens_ports
    for firewall in facts.firewalls:
        if firewall.inbound is Stance.BLOCKS and (is_reachable or facts.ipv6.works):
            after = replace(now, summary=replace(now.summary, filtering=FilterKind.OPEN))
            yield _Remedy(
                "local-firewall-in",
                f"Let UDP in to this machine: {firewall.name} blocks what was not asked for.",
                "It keeps others from beginning a connection.",
                allow_inbound(firewall),
                after=after if is_reachable else None,
                is_kept=True,
            )


def _path(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """A path that carries small packets alone."""
    passed = facts.mtu.passed
    if passed is not None and passed < LEAST_MTU and facts.mtu.lost is not None:
        where = f"the VPN ({facts.tunnel})" if facts.tunnel else "a tunnel or a link on the way"
        yield _Remedy(
            "mtu",
            f"Raise the MTU of {where} to {LEAST_MTU} bytes at least.",
            f"Packets of {facts.mtu.lost} bytes do not arrive whole; direct links need 1,228.",
            after=replace(now, summary=replace(now.summary, has_udp=facts.udp is not False)),
            is_kept=True,
        )


def _minor(facts: Facts, now: Standing) -> Iterator[_Remedy]:
    """What changes nothing for connections, or only what is known of them."""
    if facts.privacy is Privacy.HARDWARE:
        yield _Remedy(
            "ipv6-privacy",
            "Use temporary IPv6 addresses.",
            "The address has the hardware's number in it: others know this machine again on every network.",
            ("sudo sysctl -w net.ipv6.conf.all.use_tempaddr=2 net.ipv6.conf.default.use_tempaddr=2",),
            is_kept=True,
        )
    if facts.ports.silent and facts.ports.leaves:
        yield _Remedy(
            "server-ports",
            f"Open UDP port {' and '.join(map(str, facts.ports.silent))} of the server, too.",
            "Without it the server cannot tell for certain what kind of NAT this is.",
            is_kept=True,
        )
    nat = facts.ipv4.nat
    if nat is not None and nat.answers and nat.unknown.get(Facet.MAPPING) is Reason.ONE_ADDRESS:
        yield _Remedy(
            "server-address",
            "Give the server a second address (crowline serve --alternate-address).",
            "With one address it cannot tell for certain what kind of NAT this is.",
            is_kept=True,
        )


_SOURCES: tuple[Callable[[Facts, Standing], Iterator[_Remedy]], ...] = (
    _entrance, _blocked_udp, _router, _vpn, _provider, _local_firewall, _path, _minor,
)  # fmt: skip
