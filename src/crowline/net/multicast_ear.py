"""A socket that hears what one multicast group of one network is told."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress

from crowline.base.addresses import Address

# linux/in.h and linux/in6.h: whether a socket hears groups that others of this machine have joined.
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29


def multicast_ear(group: Address, host: str, index: int) -> socket.socket:
    """A non-blocking UDP socket at the group's port, beside any other of this machine.

    `host` is this machine's address on the network, `index` the number of the interface. Raises `OSError`.
    """
    family = socket.AF_INET6 if group.is_ipv6 else socket.AF_INET
    ear = socket.socket(family, socket.SOCK_DGRAM)
    try:
        ear.setblocking(False)
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux" and hasattr(socket, "SO_REUSEPORT"):
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _listen(ear, group, index)
        _join(ear, group, host, index)
    except BaseException:
        ear.close()
        raise
    return ear


def speak_to_groups(sock: socket.socket, host: str, index: int, hops: int) -> None:
    """Have the multicast datagrams of that socket leave by this interface, and get so many hops far.

    Raises `OSError`.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("@I", index))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)


def _listen(ear: socket.socket, group: Address, index: int) -> None:
    """On Linux at the group itself, so that nothing that is sent to this machine alone is heard."""
    is_linux = sys.platform == "linux"
    if group.is_ipv6:
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_linux:
            with suppress(OSError):
                ear.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        ear.bind((group.host if is_linux else "::", group.port, 0, index))
        return
    if is_linux:
        with suppress(OSError):
            ear.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    ear.bind((group.host if is_linux else "", group.port))


def _join(ear: socket.socket, group: Address, host: str, index: int) -> None:
    packed = group.packed
    if group.is_ipv6:
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + struct.pack("@I", index))
    else:
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed + socket.inet_aton(host))
