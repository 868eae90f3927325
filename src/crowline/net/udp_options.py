"""What the system is asked for when a UDP socket is made, and what it says when a datagram did not arrive."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.segmentation import UDP_GRO

# Two hundred milliseconds of 200 MB/s: room for a busy event loop.
_KERNEL_BUFFER = 8 << 20
_LEAST_BUFFER = 65536

# linux/in.h and linux/in6.h; the socket module names only some of them.
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_IP_RECVERR = 11
_IPV6_MTU_DISCOVER, _IPV6_PMTUDISC_DO = 23, 2
_IPV6_RECVERR = 25
_REPORTS = ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
_MSG_ERRQUEUE = 0x2000
# linux/errqueue.h: struct sock_extended_err, and who reports.
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
_LOCAL, _ICMP, _ICMP6 = 1, 2, 3
# An error of this machine's own, as a router would have said it: RFC 792 (3, 4) and RFC 4443 (2, 0).
_TOO_BIG = {socket.AF_INET: (3, 4), socket.AF_INET6: (2, 0)}
# Errors taken at one time, so that a flood of them keeps nothing else waiting.
_ERRORS_PER_READ = 16

_DONT_FRAGMENT = (
    ((socket.IPPROTO_IP, _IP_MTU_DISCOVER), _IP_PMTUDISC_DO),
    ((socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER), _IPV6_PMTUDISC_DO),
)
_HOP_LIMIT = ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS))

CAN_SET_DONT_FRAGMENT = sys.platform.startswith("linux")
"""Whether a datagram can be sent with the bit of that name set for it alone."""

# What an earlier datagram met; the socket tells it once, in place of the call's own outcome.
_EARLIER = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPROTO, errno.EMSGSIZE}

IcmpReceiver: TypeAlias = Callable[[Address, int, int, int], None]
"""Gets the peer that a datagram did not reach, ICMP type and code, and the error data (RFC 8656 §18.13)."""


def prepare(sock: socket.socket) -> None:
    """Large buffers, and runs of datagrams in one read where there are such."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    linux = sys.platform.startswith("linux")
    # asm-generic/socket.h: past rmem_max and wmem_max where the process may (CAP_NET_ADMIN).
    if not (linux and _force_buffers(sock)):
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            _set_buffer(sock, option)
    if linux:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)


def report_errors(sock: socket.socket) -> bool:
    """Ask for ICMP errors of what is sent; False where the system cannot say them."""
    if not sys.platform.startswith("linux"):
        return False
    is_ipv6 = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if is_ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
    try:
        sock.setsockopt(level, option, 1)
    except OSError:
        return False
    return True


def is_earlier(error: int) -> bool:
    """Whether a call failed with what an earlier datagram met."""
    return error in _EARLIER


def read_errors(sock: socket.socket, on_icmp: IcmpReceiver) -> None:
    """Take what waits in the socket's queue of errors."""
    for _ in range(_ERRORS_PER_READ):
        try:
            _, ancillary, _, peer = sock.recvmsg(1, 512, _MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, value in ancillary:
            if (level, kind) in _REPORTS and len(value) >= _EXTENDED_ERROR.size:
                number, origin, icmp_type, icmp_code, info, _ = _EXTENDED_ERROR.unpack_from(value)
                if origin == _LOCAL and number == errno.EMSGSIZE:
                    icmp_type, icmp_code = _TOO_BIG[sock.family]
                elif origin not in (_ICMP, _ICMP6):
                    continue
                on_icmp(Address.parse(peer[0].partition("%")[0], peer[1]), icmp_type, icmp_code, info)


class _OptionFor:
    """While it is entered, the socket has another value of an option; one that it refuses changes nothing."""

    def __init__(self, sock: socket.socket, option: tuple[int, int], value: int) -> None:
        self._socket = sock
        self._option = option
        self._value = value
        self._before: int | None = None

    def __enter__(self) -> None:
        with suppress(OSError):
            self._before = self._socket.getsockopt(*self._option)
            self._socket.setsockopt(*self._option, self._value)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            with suppress(OSError):
                self._socket.setsockopt(*self._option, self._before)


def asked_by(transmit: Transmit, sock: socket.socket) -> AbstractContextManager[object]:
    """While it is entered, the socket sends as the transmit asks: with its hop limit, whole or not at all."""
    is_ipv6 = sock.family == socket.AF_INET6
    options = ExitStack()
    if transmit.dont_fragment and CAN_SET_DONT_FRAGMENT:
        option, value = _DONT_FRAGMENT[is_ipv6]
        options.enter_context(_OptionFor(sock, option, value))
    if transmit.hop_limit is not None:
        options.enter_context(_OptionFor(sock, _HOP_LIMIT[is_ipv6], transmit.hop_limit))
    return options


def _force_buffers(sock: socket.socket) -> bool:
    try:
        for forced in (33, 32):
            sock.setsockopt(socket.SOL_SOCKET, forced, _KERNEL_BUFFER)
    except OSError:
        return False
    return True


def _set_buffer(sock: socket.socket, option: int) -> None:
    """As much as the system gives: Linux takes any number for its limit, others refuse one beyond it."""
    size = _KERNEL_BUFFER
    while size >= _LEAST_BUFFER:
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, size)
        except OSError:
            size //= 2
        else:
            return
