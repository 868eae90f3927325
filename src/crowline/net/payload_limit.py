"""What this machine knows of how large a UDP datagram may be on its way to an address."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from crowline.base.addresses import Address

# linux/in.h and linux/in6.h: the MTU of the route, or what a router said of it.
_IP_MTU, _IPV6_MTU = 14, 24
_IPV4_HEADERS, _IPV6_HEADERS = 28, 48
# Ethernet, where the system does not say.
_USUAL_MTU = 1500


def largest_payload(local: Address, remote: Address) -> int:
    """Bytes of UDP payload that fit into a packet from `local` to `remote` as far as is known here.

    Nothing is sent. Routers on the way may have narrower links, of which only trying tells.
    """
    headers = _IPV6_HEADERS if remote.is_ipv6 else _IPV4_HEADERS
    return _route_mtu(local, remote) - headers


def _route_mtu(local: Address, remote: Address) -> int:
    if not sys.platform.startswith("linux"):
        return _USUAL_MTU
    family, level, option = (
        (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_MTU)
        if remote.is_ipv6
        else (socket.AF_INET, socket.IPPROTO_IP, _IP_MTU)
    )
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        with suppress(OSError):  # a relayed address is none of this machine's
            sock.bind((local.host, 0))
        sock.connect((remote.host, remote.port))
        return int(sock.getsockopt(level, option))
    return _USUAL_MTU
