"""The facts that an examination finds at the places of the laboratory, NATs measured in virtual time."""

from __future__ import annotations

from crowline.diagnosis.facts import (
    Facts,
    FamilyFacts,
    Portal,
    PortalFacts,
    ProxyFacts,
    RouterFacts,
    ServerFacts,
)
from crowline.lab import behaviour
from crowline.lab.expectation import expected
from crowline.lab.measured import TcpReach
from crowline.lab.presets import PRESETS
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile
from crowline.punch.nat_profile import AllocationPattern, NatProfile, PortPattern
from crowline.punch.tcp_profile import TcpProfile
from crowline.stun.nat_findings import Mapping
from nat_discoveries import discover

INSIDE, GATEWAY = "192.168.1.10", "192.168.1.1"
PUBLIC, PUBLIC6 = "44.100.1.10", "2a01:100:1::10"
CARRIER_HOP = "100.64.1.1"
REACHED = ServerFacts("ws://44.1.0.1:443", is_reached=True, round_trip=0.02, has_stun=True)

_SERVICES = {
    PortMapping.UPNP: ("UPnP",),
    PortMapping.NAT_PMP: ("NAT-PMP",),
    PortMapping.PCP: ("NAT-PMP", "PCP"),
}
_TCP_MAPPINGS = {
    behaviour.Mapping.ENDPOINT_INDEPENDENT: Mapping.ENDPOINT_INDEPENDENT,
    behaviour.Mapping.ADDRESS_DEPENDENT: Mapping.ADDRESS_DEPENDENT,
    behaviour.Mapping.ADDRESS_AND_PORT_DEPENDENT: Mapping.ADDRESS_AND_PORT_DEPENDENT,
}


def facts_of(place: Profile | str, *, addresses: int = 2) -> Facts:
    """What a host there finds out by a server with so many addresses; its router may be asked."""
    profile = PRESETS[place] if isinstance(place, str) else place
    is_translated = profile.ipv6 is Ipv6.NAT64
    hosts = () if is_translated else (INSIDE if profile.nats else PUBLIC,)
    has_ipv6 = profile.ipv6 is not Ipv6.NONE
    nat = nat_of(profile, addresses=addresses)
    services = _SERVICES.get(profile.port_mapping, ())
    router = RouterFacts(GATEWAY, services, nat.outside_hosts[0] if services else None)
    return Facts(
        REACHED,
        FamilyFacts(hosts, bool(hosts), nat, is_translated),
        FamilyFacts((PUBLIC6,), True, nat_of(profile, ipv6=True)) if has_ipv6 else FamilyFacts(),
        tcp=expected(profile).tcp is TcpReach.ANY,
        routers=(router,) if INSIDE in hosts else (),
        proxy=ProxyFacts("http://44.100.1.2:3128") if profile.firewall is Firewall.PROXY_ONLY else None,
        portal=PortalFacts(Portal.NONE),
        hops=(GATEWAY, CARRIER_HOP)[: len(profile.nats)],
    )


def nat_of(profile: Profile, *, ipv6: bool = False, addresses: int = 2) -> NatProfile:
    """Measured; of TCP the mapping alone, as the laboratory's own test of its places expects it."""
    run = discover(profile, ipv6=ipv6, alternates=addresses > 1, ports=2)
    nat = NatProfile.of(run.findings)
    mapping = expected(profile).tcp_mapping
    if not profile.nats or ipv6:
        tcp = Mapping.NONE
    else:
        tcp = Mapping.UNKNOWN if mapping is None else _TCP_MAPPINGS[mapping]
    ports = PortPattern(AllocationPattern.UNKNOWN)
    return nat.with_tcp(TcpProfile(expected(profile).tcp is TcpReach.ANY, tcp, ports))
