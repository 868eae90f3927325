"""What the UDP sockets of one event loop share: the memory they receive into, and what waits to leave.

A wake-up of the loop serves every socket that has something. What is sent meanwhile is *staged* and leaves by
one system call a socket when the wake-up ends; nothing waits longer than that. `Exchange` does so with
`recvmmsg` and `sendmmsg`; `PlainExchange` is the same without them, where nothing is staged.

Datagrams are received with room before them, so that a header can be put there and sent with them.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import socket
import struct
import time
import weakref
from collections.abc import Iterator
from typing import Protocol, TypeAlias

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.net import mmsg
from crowline.net.arrival import leave_by, pack_control
from crowline.net.mmsg import HEADER, NAME_SIZE, PART, RECEIVED, Memory

# Datagrams of one read. More make no difference to the cost of one.
MOST = 64
_SLOTS = 2 * MOST
# One datagram or one run of the kernel's; the odd lines keep the slots from sharing places in a cache.
SLOT_DATA = 65536
HEADROOM = 64
_STRIDE = SLOT_DATA + HEADROOM + 3 * 64
# Two control messages: the address that was asked (IPv6: 40 bytes) and the size of segments (24).
CONTROL_SIZE = 96
_META_SIZE = NAME_SIZE + CONTROL_SIZE
# What is copied to be sent; larger datagrams leave at once from where they lie.
COPY_LIMIT = 2048
_COPY_SIZE = 1 << 18
# Addresses sent to are written once each; forgotten all at once when there are too many.
_NAMES = 8192
_CONTROLS = 1024
# Bytes of struct sockaddr_in and sockaddr_in6.
_IPV4_NAME, _IPV6_NAME = 16, 28
# Sockets served before the loop gets its turn again.
_EVENTS_PER_WAKE = 256

_META = struct.Struct(f"{_META_SIZE}s")

Staged: TypeAlias = tuple[int, int, int, int, int, int]
"""A datagram that waits to leave: the places and lengths of its socket address, control data and bytes."""


class Member(Protocol):
    """A socket of an exchange."""

    fd: int
    pending: list[Staged]

    def on_readable(self) -> None: ...

    def on_refused(self, error: int, staged: Staged) -> bool:
        """The kernel did not take this; whether to try it again at once."""


class PlainExchange:
    """One datagram a call, on any system; the loop watches each socket."""

    is_collecting = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.proxy(loop)
        self.view = memoryview(bytearray(SLOT_DATA))

    def add(self, member: Member) -> None:
        self._loop.add_reader(member.fd, member.on_readable)

    def remove(self, member: Member) -> None:
        self._loop.remove_reader(member.fd)


class Exchange:
    """Batches of datagrams. One epoll holds all sockets, so that one wake-up of the loop serves them all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: tuple[mmsg.Receive, mmsg.Send]) -> None:
        self._loop = weakref.proxy(loop)
        self._recvmmsg, self._sendmmsg = calls
        self._members: dict[int, Member] = {}
        self._epoll: select.epoll | None = None
        self.is_collecting = False
        self.now = 0.0
        """When the last datagrams were received, in seconds of the monotonic clock."""
        self._staged: list[Member] = []
        self._arena = Memory(_SLOTS * _STRIDE)
        self.view = self._arena.view
        self.start = self._arena.start
        """Where `view` begins, as the kernel is told."""
        self._metas = Memory(_SLOTS * _META_SIZE)
        self._headers = Memory(_SLOTS * HEADER.size)
        self._parts = Memory(_SLOTS * PART.size)
        self._cursor = 0
        self._prepare_slots()
        self._out_headers = Memory(MOST * HEADER.size)
        self._out_parts = Memory(MOST * PART.size)
        self._copies = Memory(_COPY_SIZE)
        self._copied = 0
        self._names = Memory(_NAMES * NAME_SIZE)
        self._known_names: dict[Address, tuple[int, int]] = {}
        self._controls = Memory(_CONTROLS * CONTROL_SIZE)
        self._known_controls: dict[Address, tuple[int, int]] = {}

    # --- sockets ----------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._wake)
        self._epoll.register(member.fd, select.EPOLLIN)
        self._members[member.fd] = member

    def remove(self, member: Member) -> None:
        """To be called while the socket is still open."""
        assert self._epoll is not None
        self._epoll.unregister(member.fd)
        del self._members[member.fd]
        if not self._members:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _wake(self) -> None:
        if self._epoll is None:
            return
        self.is_collecting = True
        try:
            for fd, _ in self._epoll.poll(0, _EVENTS_PER_WAKE):
                # A socket may be closed by what another one received.
                member = self._members.get(fd)
                if member is not None:
                    member.on_readable()
        finally:
            self.is_collecting = False
            self._rewind()

    # --- receiving --------------------------------------------------------------------------------------

    def receive(self, fd: int, most: int) -> Iterator[tuple[int, tuple[int, int], tuple[bytes]]] | None:
        """Up to `most` datagrams: where each lies in `view`, its flags and length, and its meta data.

        ``None``: there was none, `mmsg.last_error` says why.
        """
        if self._cursor + most > _SLOTS:
            self._rewind()
        first = self._cursor
        headers = first * HEADER.size
        count = self._recvmmsg(fd, self._headers.start + headers, most, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return None
        self._cursor = after = first + count
        self.now = time.monotonic()
        return zip(
            range(first * _STRIDE + HEADROOM, after * _STRIDE, _STRIDE),
            RECEIVED.iter_unpack(self._headers.view[headers : after * HEADER.size]),
            _META.iter_unpack(self._metas.view[first * _META_SIZE : after * _META_SIZE]),
            strict=True,
        )

    def _prepare_slots(self) -> None:
        for slot in range(_SLOTS):
            part = slot * PART.size
            PART.pack_into(self._parts.view, part, self._arena.start + slot * _STRIDE + HEADROOM, SLOT_DATA)
            meta = self._metas.start + slot * _META_SIZE
            HEADER.pack_into(
                self._headers.view, slot * HEADER.size,
                meta, NAME_SIZE, self._parts.start + part, 1, meta + NAME_SIZE, CONTROL_SIZE, 0, 0,
            )  # fmt: skip
        self._fresh_headers = bytes(self._headers.view)
        self._fresh_metas = bytes(_SLOTS * _META_SIZE)

    def _rewind(self) -> None:
        """Send what is staged, and use the slots again: the kernel wrote into their headers."""
        self.flush()
        if self._cursor:
            end = self._cursor * HEADER.size
            self._headers.view[:end] = self._fresh_headers[:end]
            end = self._cursor * _META_SIZE
            self._metas.view[:end] = self._fresh_metas[:end]
            self._cursor = 0

    # --- sending ----------------------------------------------------------------------------------------

    def stage(
        self, member: Member, name: tuple[int, int], control: tuple[int, int], data: int, length: int
    ) -> None:
        """`length` bytes that lie at `data`, to the socket address `name`. They must stay until the flush."""
        if not member.pending:
            self._staged.append(member)
        member.pending.append((*name, *control, data, length))

    def stage_copy(
        self, member: Member, name: tuple[int, int], control: tuple[int, int], data: Buffer
    ) -> None:
        """The same with bytes of at most `COPY_LIMIT` that may go away."""
        length = len(data)
        start = self._copied
        if start + length > _COPY_SIZE:
            self.flush()
            start = 0
        self._copied = start + length
        self._copies.view[start : start + length] = data
        self.stage(member, name, control, self._copies.start + start, length)

    def flush(self) -> None:
        """Send everything that is staged."""
        while self._staged:
            staged, self._staged = self._staged, []
            for member in staged:
                self.flush_one(member)
        self._copied = 0

    def flush_one(self, member: Member) -> None:
        """Send what one socket has staged, before something that must not overtake it."""
        pending, member.pending = member.pending, []
        for start in range(0, len(pending), MOST):
            self._send(member, pending[start : start + MOST])

    def name_of(self, address: Address) -> tuple[int, int]:
        """Where the socket address of `address` lies, and its length; good until the next flush."""
        known = self._known_names.get(address)
        if known is None:
            if len(self._known_names) >= _NAMES:
                self.flush()
                self._known_names.clear()
            at = len(self._known_names) * NAME_SIZE
            name = mmsg.socket_name(address.host, address.port)
            self._names.view[at : at + len(name)] = name
            known = self._known_names[address] = (self._names.start + at, len(name))
        return known

    def control_of(self, local: Address) -> tuple[int, int]:
        """The same for the control data that makes a datagram leave from `local`."""
        known = self._known_controls.get(local)
        if known is None:
            if len(self._known_controls) >= _CONTROLS:
                self.flush()
                self._known_controls.clear()
            at = len(self._known_controls) * CONTROL_SIZE
            control = pack_control(leave_by(local))
            self._controls.view[at : at + len(control)] = control
            known = self._known_controls[local] = (self._controls.start + at, len(control))
        return known

    def source_of(self, offset: int) -> tuple[int, int]:
        """The same for the source of the datagram that lies at `offset` of `view`."""
        meta = (offset // _STRIDE) * _META_SIZE
        is_ipv4 = self._metas.view[meta] == socket.AF_INET or self._metas.view[meta + 1] == socket.AF_INET
        return self._metas.start + meta, _IPV4_NAME if is_ipv4 else _IPV6_NAME

    def read(self, staged: Staged) -> tuple[bytes, bytes, bytes]:
        """Socket address, control data and bytes of a staged datagram, copied."""
        name, name_length, control, control_length, data, length = staged
        return (
            ctypes.string_at(name, name_length),
            ctypes.string_at(control, control_length) if control_length else b"",
            ctypes.string_at(data, length),
        )

    def _send(self, member: Member, batch: list[Staged]) -> None:
        headers, parts, at = self._out_headers, self._out_parts, 0
        for number, (name, name_length, control, control_length, data, length) in enumerate(batch):
            part = number * PART.size
            PART.pack_into(parts.view, part, data, length)
            HEADER.pack_into(
                headers.view, at,
                name, name_length, parts.start + part, 1, control, control_length, 0, 0,
            )  # fmt: skip
            at += HEADER.size
        done, tried_again = 0, -1
        while done < len(batch) and member.fd >= 0:
            start = headers.start + done * HEADER.size
            sent = self._sendmmsg(member.fd, start, len(batch) - done, socket.MSG_DONTWAIT)
            if sent > 0:
                done += sent
            elif member.on_refused(mmsg.last_error(), batch[done]) and tried_again != done:
                tried_again = done
            else:
                done += 1


_exchanges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Exchange | PlainExchange] = (
    weakref.WeakKeyDictionary()
)


def exchange_of(loop: asyncio.AbstractEventLoop) -> Exchange | PlainExchange:
    """The one of `loop`: with batches where the system has them."""
    found = _exchanges.get(loop)
    if found is None:
        calls = mmsg.find()
        found = _exchanges[loop] = PlainExchange(loop) if calls is None else Exchange(loop, calls)
    return found
