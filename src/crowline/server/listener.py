"""Listening TCP sockets, and what to say when one cannot be had."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, LocalProblem
from crowline.server.config import ANYWHERE

BACKLOG = 1024
"""Connections that wait to be accepted: a burst of clients after a restart."""


ACCEPTS_PER_WAKE = 1
"""Connections accepted at once. The library goes on accepting when there are no descriptors left: with more,
each failure would be reported so many times, and be tried again by so many timers."""

_TURNS_TO_PROTOCOL = 4
"""Turns of the event loop from an accepted connection to its protocol: it takes two or three."""


def listen(address: Address, *, with_ipv4: bool = True) -> socket.socket:
    """A bound socket; all addresses are IPv6 and, `with_ipv4`, IPv4 on one socket. Raises `LocalProblem`."""
    is_dual = with_ipv4 and address.host == ANYWHERE
    try:
        return _bind(address, is_dual=is_dual)
    except OSError as error:
        if is_dual and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return listen(Address("0.0.0.0", address.port))
        raise problem(address, "TCP", error) from error


async def serve(sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Accept connections of a listening socket."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, sock=sock, backlog=ACCEPTS_PER_WAKE)
    # The library takes one number for two things.
    sock.listen(BACKLOG)
    return server


async def stop_accepting(servers: Iterable[asyncio.Server]) -> None:
    """Close the listening sockets, after what was accepted a moment ago has got its protocol.

    Of a server that is closed in that moment the library drops such a connection without closing it.
    """
    loop = asyncio.get_running_loop()
    closing = list(servers)
    for server in closing:
        for sock in server.sockets:
            # Not every loop has readers; those that have none lose no connection either.
            with suppress(NotImplementedError):
                loop.remove_reader(sock.fileno())
    for _ in range(_TURNS_TO_PROTOCOL):
        await asyncio.sleep(0)
    for server in closing:
        server.close()


def stun_addresses(address: Address) -> list[Address]:
    """Where STUN and TURN listen: all addresses means IPv4 and, where there is IPv6, that too.

    With port 0 the two would get different ports, so then it is IPv4 alone.
    """
    if address.host != ANYWHERE:
        return [address]
    ipv4 = Address("0.0.0.0", address.port)
    return [ipv4, address] if address.port and _has_ipv6() else [ipv4]


def problem(address: Address, protocol: str, error: OSError) -> CrowlineError:
    """The sentence for a socket that could not be bound."""
    if error.errno == errno.EADDRINUSE:
        return LocalProblem(
            f"Port {address.port} ({protocol}) is in use by another program.",
            hint="Stop that program, or choose another port with --listen, --stun-listen or --tls-listen.",
        )
    if error.errno == errno.EACCES:
        return LocalProblem(
            f"Listening on port {address.port} ({protocol}) is not permitted.",
            hint="Ports below 1024 need privileges: choose a higher one.",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return LocalProblem(
            f"This machine does not have the address {address.host}.",
            hint="`ip address` lists those that it has.",
        )
    return LocalProblem(f"Cannot listen on {address} ({protocol}): {error.strerror}.")


def bound_address(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host, port)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((ANYWHERE, 0))
    except OSError:
        return False
    return True


def _bind(address: Address, *, is_dual: bool) -> socket.socket:
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    # asyncio switches off Nagle's delay (up to 40 ms for a second message) only on sockets that name TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
