"""The named translators, and the named places in the world that are made of them."""

from __future__ import annotations

from dataclasses import replace

from crowline.base.errors import UsageError
from crowline.lab.behaviour import (
    Allocation,
    Filtering,
    Hairpin,
    Lifetimes,
    Mapping,
    NatBehaviour,
    UnsolicitedSyn,
)
from crowline.lab.profile import Firewall, Ipv6, PortMapping, Profile

HOME = NatBehaviour(
    Mapping.ENDPOINT_INDEPENDENT,
    Filtering.ADDRESS_AND_PORT_DEPENDENT,
    Allocation.PRESERVING,
    inbound_refreshes=True,
)
"""The common home router: Linux, whose connection tracking takes packets in both directions for traffic."""

FULL_CONE = replace(HOME, filtering=Filtering.ENDPOINT_INDEPENDENT)
"""RFC 3489's full cone."""

ADDRESS_RESTRICTED = replace(HOME, filtering=Filtering.ADDRESS_DEPENDENT)
"""RFC 3489's restricted cone."""

ADDRESS_DEPENDENT = NatBehaviour(Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT, Allocation.RANDOM)
"""One outside port for each remote host."""

SYMMETRIC = NatBehaviour(
    Mapping.ADDRESS_AND_PORT_DEPENDENT,
    Filtering.ADDRESS_AND_PORT_DEPENDENT,
    Allocation.RANDOM,
    inbound_refreshes=True,
)
"""RFC 3489's symmetric NAT, with ports that nobody guesses."""

SYMMETRIC_SEQUENTIAL = replace(SYMMETRIC, allocation=Allocation.sequential(1))
"""A symmetric NAT that counts up."""

SYMMETRIC_BLOCK = replace(SYMMETRIC, allocation=Allocation.block(512))
"""A symmetric NAT that gives each subscriber 512 ports (RFC 7422)."""

PARITY = replace(HOME, allocation=Allocation.PARITY)
"""A home router that keeps the parity of ports, not the ports."""

CARRIER = NatBehaviour(
    Mapping.ENDPOINT_INDEPENDENT,
    Filtering.ADDRESS_AND_PORT_DEPENDENT,
    Allocation.RANDOM,
    hairpin=Hairpin.EXTERNAL_SOURCE,
)
"""A carrier's translator that does what RFC 6888 REQ-1 asks for."""

MOBILE = replace(SYMMETRIC, lifetimes=Lifetimes(udp_idle=40.0, absolute=60.0))
"""A mobile carrier's translator: mappings end after a minute, however busy."""

NAT64 = NatBehaviour(Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT, Allocation.RANDOM)
"""From IPv6 to IPv4 (RFC 6146)."""

_PROFILES = (
    Profile(
        "public",
        summary="A public address: no translator, no filter, no firewall.",
    ),
    Profile(
        "home",
        (HOME,),
        summary="Endpoint-independent mapping, address and port-dependent filtering, port preservation, no "
        "hairpinning; UDP mappings live 120 s without traffic in either direction; an unsolicited SYN is "
        "dropped.",
    ),
    Profile(
        "full-cone",
        (FULL_CONE,),
        summary="Endpoint-independent mapping, endpoint-independent filtering, port preservation.",
    ),
    Profile(
        "address-restricted",
        (ADDRESS_RESTRICTED,),
        summary="Endpoint-independent mapping, address-dependent filtering, port preservation.",
    ),
    Profile(
        "address-dependent",
        (ADDRESS_DEPENDENT,),
        summary="Address-dependent mapping, address-dependent filtering, random ports.",
    ),
    Profile(
        "symmetric",
        (SYMMETRIC,),
        summary="Address and port-dependent mapping, address and port-dependent filtering, random ports.",
    ),
    Profile(
        "symmetric-sequential",
        (SYMMETRIC_SEQUENTIAL,),
        summary="Address and port-dependent mapping, address and port-dependent filtering, each new port one "
        "above the last.",
    ),
    Profile(
        "symmetric-block",
        (SYMMETRIC_BLOCK,),
        summary="Address and port-dependent mapping, address and port-dependent filtering, random ports out "
        "of the 512 of the subscriber (RFC 7422).",
    ),
    Profile(
        "parity",
        (PARITY,),
        summary="Endpoint-independent mapping, address and port-dependent filtering, port parity "
        "preservation without port preservation.",
    ),
    Profile(
        "hairpin",
        (replace(HOME, hairpin=Hairpin.EXTERNAL_SOURCE),),
        summary="As home, with hairpinning of the kind external source address and port (RFC 4787 REQ-9).",
    ),
    Profile(
        "cgn",
        (HOME, CARRIER),
        summary="Two layers: home behind a carrier's translator with endpoint-independent mapping, address "
        "and port-dependent filtering, random ports and hairpinning (RFC 6888).",
    ),
    Profile(
        "cgn-symmetric",
        (HOME, SYMMETRIC),
        summary="Two layers: home behind a carrier's translator with address and port-dependent mapping and "
        "filtering and random ports.",
    ),
    Profile(
        "mobile",
        (MOBILE,),
        summary="Address and port-dependent mapping, address and port-dependent filtering, random ports; "
        "mappings end after 40 s of silence, and after 60 s however busy: below RFC 4787 REQ-5.",
    ),
    Profile(
        "short-lived",
        (replace(HOME, lifetimes=Lifetimes(udp_idle=30.0, tcp_idle=240.0)),),
        summary="As home, but mappings live 30 s (UDP) and 240 s (TCP) without traffic: below RFC "
        "4787 REQ-5 and RFC 5382 REQ-5.",
    ),
    Profile(
        "rst-sender",
        (replace(HOME, unsolicited_syn=UnsolicitedSyn.RST),),
        summary="As home, but an unsolicited SYN is answered with RST: against RFC 5382 REQ-4.",
    ),
    Profile(
        "upnp-home",
        (HOME,),
        port_mapping=PortMapping.UPNP,
        summary="As home, with a UPnP Internet Gateway Device that maps ports.",
    ),
    Profile(
        "ipv6-home",
        (HOME,),
        ipv6=Ipv6.FIREWALLED,
        summary="As home, and a global IPv6 address behind a stateful firewall: address and port-dependent "
        "filtering, no translation (RFC 6092).",
    ),
    Profile(
        "udp-blocked",
        (HOME,),
        firewall=Firewall.UDP_BLOCKED,
        summary="As home, but no UDP leaves or enters; TCP may leave to any port.",
    ),
    Profile(
        "https-only",
        (HOME,),
        firewall=Firewall.HTTPS_ONLY,
        summary="As home, but nothing leaves except TCP to port 443.",
    ),
    Profile(
        "proxy-only",
        (HOME,),
        firewall=Firewall.PROXY_ONLY,
        summary="As home, but nothing leaves except through the site's HTTP proxy, which knows CONNECT to "
        "port 443.",
    ),
    Profile(
        "nat64",
        (NAT64,),
        ipv6=Ipv6.NAT64,
        summary="IPv6 alone, and a translator to IPv4 with endpoint-independent mapping, address-dependent "
        "filtering and random ports (RFC 6146).",
    ),
)

PRESETS: dict[str, Profile] = {profile.name: profile for profile in _PROFILES}


def preset(name: str) -> Profile:
    """The profile of that name. Raises `UsageError` that names the others."""
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(f"{name} is no preset of the laboratory; there are: {', '.join(PRESETS)}") from None
