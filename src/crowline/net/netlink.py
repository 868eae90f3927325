"""Questions to the kernel of Linux, and its notices of changes: sockets of rtnetlink(7), without root."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

from crowline.net import rtnetlink as rt

T = TypeVar("T")

# Bytes of one read: the kernel fills at most 32 KiB with a dump.
_READ_SIZE = 65536
# Seconds for one answer. The kernel answers while it is asked; the limit is for one that does not.
_PATIENCE = 1.0
# Messages of one dump: a host with some thousand containers. Few of what comes after them are read.
_MAX_MESSAGES = 16384
# A table that changed while it was read is read again, so often.
_DUMP_ATTEMPTS = 3
# Reads at one time, so that a flood of notices keeps nothing else waiting.
_READS_PER_WAKE_UP = 16
# Room for notices while the loop is busy; the kernel says when some were lost.
_NOTICE_BUFFER = 1 << 20

_ROUTES = rt.LINKS | rt.IPV4_ADDRESSES | rt.IPV6_ADDRESSES | rt.IPV4_ROUTES | rt.IPV6_ROUTES


class Tables(NamedTuple):
    """All devices by their index, and all addresses."""

    links: dict[int, rt.Link]
    addresses: list[rt.LinkAddress]


class Netlink:
    """A socket for questions, which are answered at once. Use it as a context manager."""

    def __init__(self) -> None:
        """Raises `OSError` where there is no netlink: another system, or a sandbox that forbids it."""
        self._socket = _open(groups=0)
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def tables(self) -> Tables:
        """Every device and every address. Raises `OSError`."""
        links = self._dump(rt.GET_LINK, rt.NEW_LINK, rt.read_link)
        addresses = self._dump(rt.GET_ADDRESS, rt.NEW_ADDRESS, rt.read_address)
        return Tables({link.device: link for link in links}, addresses)

    def default_routes(self) -> list[rt.RouteStep]:
        """Every router by which packets leave for the internet, of both families. Raises `OSError`."""
        routes = self._dump(rt.GET_ROUTE, rt.NEW_ROUTE, rt.read_default_routes)
        return [step for steps in routes for step in steps]

    def neighbours(self) -> list[rt.Neighbour]:
        """The hosts that this machine's networks were seen to have. Raises `OSError`."""
        return self._dump(rt.GET_NEIGHBOUR, rt.NEW_NEIGHBOUR, rt.read_neighbour)

    def route_towards(self, host: str) -> rt.RouteStep | None:
        """Where packets to that host would go; ``None`` without a route. Raises `OSError`."""
        self._sequence += 1
        self._socket.send(rt.route_request(host, self._sequence))
        for message in self._answers():
            return rt.read_route(message.payload) if message.type == rt.NEW_ROUTE else None
        return None

    def _dump(self, kind: int, wanted: int, read: Callable[[memoryview], T | None]) -> list[T]:
        found: list[T] = []
        for _ in range(_DUMP_ATTEMPTS):
            self._sequence += 1
            self._socket.send(rt.dump_request(kind, self._sequence))
            found, is_whole = [], True
            for message in self._answers():
                is_whole = is_whole and not message.flags & rt.NLM_F_DUMP_INTERRUPTED
                if message.type == rt.NLMSG_ERROR:
                    number = rt.read_error(message.payload)
                    raise OSError(number, os.strerror(number))
                if message.type == wanted and (value := read(message.payload)) is not None:
                    found.append(value)
            if is_whole:
                break
        return found

    def _answers(self) -> Iterator[rt.Message]:
        """What is said to the last question, up to its end; what belongs to an earlier one is skipped."""
        left = _MAX_MESSAGES
        while left > 0:
            left -= 1  # a read may have no message
            for message in _read(self._socket):
                left -= 1
                if message.sequence != self._sequence:
                    continue
                if message.type == rt.NLMSG_DONE:
                    return
                yield message
                if message.type == rt.NLMSG_ERROR:
                    return


class NoticeSocket:
    """Hears of every change to devices, addresses and routes, and what routers say of their network.

    `on_notice` gets each message, or ``None`` when some were lost. Made in a running loop.
    """

    def __init__(self, on_notice: Callable[[rt.Message | None], None]) -> None:
        """Raises `OSError` where there is no netlink."""
        self._on_notice = on_notice
        self._loop = asyncio.get_running_loop()
        try:
            self._socket = _open(groups=_ROUTES | rt.ROUTER_OPTIONS)
        except PermissionError:
            # A sandbox may allow the ordinary groups alone.
            self._socket = _open(groups=_ROUTES)
        self._socket.setblocking(False)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NOTICE_BUFFER)
        try:
            self._loop.add_reader(self._socket, self._on_readable)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Hear no more. May be called again, and from `on_notice`."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _on_readable(self) -> None:
        for _ in range(_READS_PER_WAKE_UP):
            try:
                read = _read(self._socket)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                read = None
            for message in read if read is not None else (None,):
                self._on_notice(message)
                if self._socket.fileno() < 0:
                    return


def _open(groups: int) -> socket.socket:
    """Raises `OSError`."""
    if sys.platform == "linux":
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            opened.bind((0, groups))
        except BaseException:
            opened.close()
            raise
        return opened
    raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))


def _read(sock: socket.socket) -> Iterator[rt.Message]:
    """The messages of one read; none of what another process has sent. Raises `OSError`."""
    if sys.platform != "win32":
        data, _, flags, sender = sock.recvmsg(_READ_SIZE)
        # Port 0 is the kernel. A message that did not fit would end in the middle.
        if sender[0] == 0 and not flags & socket.MSG_TRUNC:
            return rt.messages(memoryview(data))
    return iter(())
