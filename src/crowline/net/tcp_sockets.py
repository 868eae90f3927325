"""TCP sockets that share one port, so that a NAT gives all of them one address (RFC 6544 §4.1)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from crowline.base.addresses import Address

# SO_LINGER on, for no time: closing resets the connection, and no TIME_WAIT keeps its addresses. Two numbers
# of the size that this system has them in.
_RESET = struct.pack("HH" if hasattr(socket, "SO_EXCLUSIVEADDRUSE") else "ii", 1, 0)


def open_shared(local: Address) -> socket.socket:
    """A new socket at that address, which others of this program may have too. Raises `OSError`.

    Linux wants both options as soon as one socket of the port listens, BSD and macOS want the second. Windows
    knows the first alone, and lets other programs have the port too: what comes by it has to prove itself.
    """
    family = socket.AF_INET6 if local.is_ipv6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        if local.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((local.host, local.port))
    except BaseException:
        sock.close()
        raise
    return sock


def lower_hop_limit(sock: socket.socket, hops: int) -> Callable[[], None]:
    """Let packets leave with so many hops; the call that comes back restores what was before."""
    if sock.family == socket.AF_INET6:
        level, option = socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS
    else:
        level, option = socket.IPPROTO_IP, socket.IP_TTL
    before = sock.getsockopt(level, option)
    sock.setsockopt(level, option, hops)
    return lambda: sock.setsockopt(level, option, before)


def reset(sock: socket.socket) -> None:
    """Close at once: the other side hears of it, and the addresses are free for the next attempt."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass  # macOS refuses options of a socket whose connection is gone
    finally:
        sock.close()


def name_of(name: tuple[str, int]) -> Address:
    """An address as sockets give it."""
    return Address.parse(str(name[0]).partition("%")[0], int(name[1]))
