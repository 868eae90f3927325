"""The addresses of this machine."""

from __future__ import annotations

import ipaddress
import socket

import ifaddr

from crowline.base.addresses import Address

# Addresses to gather from: enough for every real host, few enough for a host with a thousand containers.
MAX_ADDRESSES = 8


def local_addresses(*, loopback: bool = False) -> list[str]:
    """The unicast addresses of all interfaces, IPv4 first; IPv6 link-local ones are left out.

    Loopback addresses only where `loopback` says that the other side may be on this machine.
    """
    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            address = ipaddress.ip_address(text)
            if address.is_link_local or address.is_multicast or address.is_unspecified:
                continue
            if address.is_loopback and not loopback:
                continue
            if str(address) not in found:
                found.append(str(address))
    found.sort(key=lambda text: ipaddress.ip_address(text).is_loopback)
    ipv4, ipv6 = ([text for text in found if (":" in text) is wanted] for wanted in (False, True))
    # Neither family crowds the other out: either may hold the only direct path.
    half = MAX_ADDRESSES // 2
    ipv4 = ipv4[: max(half, MAX_ADDRESSES - len(ipv6))]
    return ipv4 + ipv6[: MAX_ADDRESSES - len(ipv4)]


def source_towards(destination: Address) -> str | None:
    """The local address that packets to `destination` would leave by; None without a route."""
    family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((destination.host, destination.port or 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
