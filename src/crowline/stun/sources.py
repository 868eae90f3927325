"""Sources that no client has: an answer to them would be somebody's attack on a third party."""

from __future__ import annotations

import functools
import ipaddress

from crowline.base.addresses import Address

# Ports of services that answer whatever comes in: echo, daytime, chargen, DNS, NTP, SNMP, LDAP, SSDP, mDNS,
# memcached. An answer sent there would start a conversation between two servers.
ANSWERING_PORTS = frozenset({0, 7, 13, 17, 19, 53, 69, 111, 123, 137, 161, 389, 1900, 5353, 11211})

# Teredo and 6to4: RFC 8656 §21.4 forbids a TURN server to take such clients.
_TUNNELS = (ipaddress.IPv6Network("2001::/32"), ipaddress.IPv6Network("2002::/16"))


def is_plausible_source(source: Address) -> bool:
    """Whether a client could have sent from there. A forged source may look as good as any other."""
    return source.port not in ANSWERING_PORTS and _is_plausible_host(source.host)


@functools.lru_cache(maxsize=4096)
def _is_plausible_host(host: str) -> bool:
    if ":" not in host:
        # Not the unspecified address, nor multicast; of what is beyond only the broadcast is in use.
        first = int(host.partition(".")[0])
        return host != "0.0.0.0" and not 224 <= first <= 239 and host != "255.255.255.255"
    ip = ipaddress.IPv6Address(host)
    return not (ip.is_unspecified or ip.is_multicast or any(ip in tunnel for tunnel in _TUNNELS))
