"""Everything that stands between one host and the internet: translators, firewall, IPv6, port mapping."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.base.errors import UsageError
from crowline.lab.behaviour import NatBehaviour


class PortMapping(Enum):
    """Which service of the innermost translator opens ports when a host asks."""

    NONE = "none"
    UPNP = "upnp"  # UPnP Internet Gateway Device
    NAT_PMP = "nat-pmp"  # RFC 6886
    PCP = "pcp"  # RFC 6887, and RFC 6886 for older clients


class Ipv6(Enum):
    """What IPv6 the host has."""

    NONE = "none"
    OPEN = "open"  # a global address that everybody reaches
    FIREWALLED = "firewalled"  # a global address behind a stateful firewall (RFC 6092)
    NAT64 = "nat64"  # IPv6 alone; `nats[0]` translates to IPv4 (RFC 6146)


class Firewall(Enum):
    """What is let out at all. It stands outside of the innermost translator and knows both IP families."""

    NONE = "none"
    UDP_BLOCKED = "udp-blocked"  # TCP to any port
    HTTPS_ONLY = "https-only"  # TCP to port 443
    PROXY_ONLY = "proxy-only"  # TCP to the site's own HTTP proxy, which knows CONNECT to port 443


@dataclass(frozen=True, slots=True)
class Profile:
    """A host's place in the world.

    `nats`: innermost first, empty for a public address. `summary`: one paragraph in the terms of RFC 4787
    and RFC 5382.
    """

    name: str
    nats: tuple[NatBehaviour, ...] = ()
    port_mapping: PortMapping = PortMapping.NONE
    ipv6: Ipv6 = Ipv6.NONE
    firewall: Firewall = Firewall.NONE
    summary: str = ""

    def __post_init__(self) -> None:
        if self.port_mapping is not PortMapping.NONE and not self.nats:
            raise UsageError("a port is mapped by a translator, and this profile has none")
        if self.ipv6 is Ipv6.NAT64 and len(self.nats) != 1:
            raise UsageError("NAT64 is the one translator of its profile")
