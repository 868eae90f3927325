"""The first routers on the way to a server, as their own complaints name them (RFC 792, Time Exceeded).

A datagram with a small hop limit dies at the router that many hops off, which says so. Linux hands what it
says to the socket that sent (IP_RECVERR, ip(7)); other systems tell programs without privileges nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from contextlib import suppress

from crowline.base.addresses import Address
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method

HOPS = 4
"""Routers asked for: translators at home and of the provider stand among the first."""

PATIENCE = 1.0
"""Seconds for all of them; routers may keep silent, and limit how often they complain."""

_SEND_TIMES = (0.0, 0.3)  # seconds: a datagram may be lost
_IP_RECVERR, _MSG_ERRQUEUE = 11, 0x2000
_ERROR_SIZE = 16  # bytes of struct sock_extended_err, in front of the address of whoever complained
_ICMP, _TIME_EXCEEDED = 2, 11  # its fields ee_origin and ee_type
_OFFENDER = slice(_ERROR_SIZE + 4, _ERROR_SIZE + 8)  # sin_addr of the sockaddr_in behind


async def first_hops(server: Address, hops: int = HOPS) -> tuple[str | None, ...]:
    """The addresses of the first routers, ``None`` for silent ones; ends where the server itself answers.

    Empty over IPv6, on systems that do not tell, and where nobody says anything.
    """
    if server.is_ipv6 or not sys.platform.startswith("linux"):
        return ()
    found = await asyncio.gather(*(_hop(server, number) for number in range(1, hops + 1)))
    there = next((number for number, (_, is_there) in enumerate(found) if is_there), len(found))
    routers = [router for router, _ in found[:there]]
    while routers and routers[-1] is None:
        routers.pop()
    return tuple(routers)


async def _hop(server: Address, limit: int) -> tuple[str | None, bool]:
    """The router that many hops off, and whether the server answered instead."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[tuple[str | None, bool]] = loop.create_future()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
            sock.connect((server.host, server.port))
        except OSError:
            return None, False
        loop.add_reader(sock, _read, sock, told)
        request = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(TRANSACTION_ID_SIZE)).encode()
        timers = [loop.call_later(delay, _send, sock, request, told) for delay in _SEND_TIMES]
        try:
            async with asyncio.timeout(PATIENCE):
                return await told
        except TimeoutError:
            return None, False
        finally:
            loop.remove_reader(sock)
            for timer in timers:
                timer.cancel()


def _send(sock: socket.socket, request: bytes, told: asyncio.Future[tuple[str | None, bool]]) -> None:
    if not told.done():
        # What an earlier datagram met is told here too, and waits in the queue of errors all the same.
        with suppress(OSError):
            sock.send(request)


def _read(sock: socket.socket, told: asyncio.Future[tuple[str | None, bool]]) -> None:
    router = _complaint(sock)
    if router is not None:
        result: tuple[str | None, bool] = (router, False)
    else:
        try:
            sock.recv(2048)
        except OSError:
            return
        result = (None, True)
    if not told.done():
        told.set_result(result)


def _complaint(sock: socket.socket) -> str | None:
    """Who said that a datagram's hops were over; ``None`` where nobody did."""
    try:
        _, ancillary, _, _ = sock.recvmsg(1, 512, _MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, value in ancillary:
        is_report = (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR) and len(value) >= _OFFENDER.stop
        if is_report and value[4] == _ICMP and value[5] == _TIME_EXCEEDED:
            return str(ipaddress.IPv4Address(value[_OFFENDER]))
    return None
