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
from itertools import pairwise
from typing import Protocol, TypeAlias

from crowline.base.addresses import Address
from crowline.base.heap import keep_freed
from crowline.base.machine import Buffer
from crowline.net import mmsg
from crowline.net.arrival import leave_by, pack_control
from crowline.net.mmsg import HEADER, MOST, NAME_SIZE, PART, RECEIVED, Memory, Pointer
from crowline.net.segmentation import CANNOT_SEGMENT, MAX_PAYLOAD, REFUSED_RUN, UDP_SEGMENT

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
# Socket addresses and control data are written once each; forgotten all at once when there are too many.
_PLACES = 8192
# A plain number: the flags of the socket module are objects, slow to calculate with.
_DONT_WAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
# How long the sockets are served before the loop gets its turn again, in seconds, and how many at a time.
_LONGEST_WAKE = 0.001
_EVENTS_PER_ROUND = 64

_META = struct.Struct(f"{_META_SIZE}s")
_FRESH_META = bytes(_META_SIZE)

Head: TypeAlias = tuple[int, int, int, int]
"""Where datagrams go: place and length of a socket address and of control data."""
Staged: TypeAlias = tuple[Head, int, int]
"""A datagram that waits to leave: its head, and place and length of its bytes."""

_Table: TypeAlias = "dict[Address | tuple[int, int], tuple[int, int]]"


class Member(Protocol):
    """A socket of an exchange."""

    fd: int
    pending: list[Staged]
    can_segment: bool

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

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: mmsg.Calls) -> None:
        self._loop = weakref.proxy(loop)
        keep_freed()
        self._recvmmsg, self._sendmmsg, self._sendto = calls
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
        self._slots = self._headers.pointers(HEADER.size)
        self._out_headers = Memory(MOST * HEADER.size)
        self._out_slots = self._out_headers.pointers(HEADER.size)
        self._out_parts = Memory(MOST * PART.size)
        self._copies = Memory(_COPY_SIZE)
        self._copied = 0
        self._places = Memory(_PLACES * CONTROL_SIZE)
        self._written = 0
        self._pointers: dict[int, Pointer] = {}
        self._names: _Table = {}
        self._controls: _Table = {}
        self._run_controls: _Table = {}
        self.epoch = 0
        """Changes when what `head_of` gave is good no longer."""

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
        # What arrives meanwhile is cheaper to ask for here than by way of the loop.
        until = time.monotonic() + _LONGEST_WAKE
        while self._epoll is not None and (events := self._epoll.poll(0, _EVENTS_PER_ROUND)):
            self._serve(events)
            if self.now >= until:
                return

    def _serve(self, events: list[tuple[int, int]]) -> None:
        """Let the sockets receive, and send what that leads to."""
        self.is_collecting = True
        try:
            for fd, _ in events:
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
        count = self._recvmmsg(fd, self._slots[first], most, _DONT_WAIT, None)
        if count <= 0:
            return None
        self._cursor = after = first + count
        self.now = time.monotonic()
        if count == 1:
            # Most reads of a relayed address bring one; this is half as much work.
            meta = first * _META_SIZE
            flags_and_length = RECEIVED.unpack_from(self._headers.view, headers)
            bytes_of_meta = _META.unpack_from(self._metas.view, meta)
            return iter(((first * _STRIDE + HEADROOM, flags_and_length, bytes_of_meta),))
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
        self._fresh_header = self._fresh_headers[: HEADER.size]
        self._fresh_metas = bytes(_SLOTS * _META_SIZE)

    def _rewind(self) -> None:
        """Send what is staged, and use the slots again: the kernel wrote into their headers."""
        if self._staged:
            self.flush()
        used, self._cursor = self._cursor, 0
        if used == 1:
            self._headers.view[: HEADER.size] = self._fresh_header
            self._metas.view[:_META_SIZE] = _FRESH_META
        elif used:
            end = used * HEADER.size
            self._headers.view[:end] = self._fresh_headers[:end]
            end = used * _META_SIZE
            self._metas.view[:end] = self._fresh_metas[:end]

    # --- sending ----------------------------------------------------------------------------------------

    def stage(self, member: Member, head: Head, data: int, length: int) -> None:
        """`length` bytes that lie at `data`, to where `head` leads. They must stay until the flush."""
        pending = member.pending
        if not pending:
            self._staged.append(member)
        pending.append((head, data, length))

    def stage_copy(self, member: Member, head: Head, data: Buffer) -> None:
        """The same with bytes of at most `COPY_LIMIT` that may go away."""
        length = len(data)
        start = self._copied
        if start + length > _COPY_SIZE:
            self.flush()
            start = 0
        self._copied = start + length
        self._copies.view[start : start + length] = data
        self.stage(member, head, self._copies.start + start, length)

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
        if len(pending) == 1:
            self._send_one(member, pending)
            return
        for start in range(0, len(pending), MOST):
            self._send(member, pending[start : start + MOST])

    def head_of(self, destination: Address, local: Address | None) -> Head:
        """What leads to `destination`, from `local` if that is given; good while `epoch` stays the same."""
        name = self._names.get(destination)
        if name is None:
            name = self._write(self._names, destination, mmsg.socket_name(destination.host, destination.port))
        if local is None:
            return (*name, 0, 0)
        control = self._controls.get(local)
        if control is None:
            control = self._write(self._controls, local, pack_control(leave_by(local)))
            # What had been written may have been forgotten to make room.
            return self.head_of(destination, local)
        return (*name, *control)

    def _write(self, table: _Table, key: Address | tuple[int, int], value: bytes) -> tuple[int, int]:
        if self._written >= _PLACES:
            self.flush()
            for each in (self._names, self._controls, self._run_controls):
                each.clear()
            self._pointers.clear()
            self._written = 0
            self.epoch += 1
        at = self._written * CONTROL_SIZE
        self._written += 1
        self._places.view[at : at + len(value)] = value
        place = table[key] = (self._places.start + at, len(value))
        return place

    def read(self, staged: Staged) -> tuple[bytes, bytes, bytes]:
        """Socket address, control data and bytes of a staged datagram, copied."""
        (name, name_length, control, control_length), data, length = staged
        return (
            ctypes.string_at(name, name_length),
            ctypes.string_at(control, control_length) if control_length else b"",
            ctypes.string_at(data, length),
        )

    def _run_head(self, head: Head, size: int) -> Head:
        """`head` for datagrams of `size` that leave together."""
        name, name_length, control, control_length = head
        known = self._run_controls.get((control, size))
        if known is None:
            before = ctypes.string_at(control, control_length) if control_length else b""
            value = before + pack_control((socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)))
            known = self._write(self._run_controls, (control, size), value)
        return name, name_length, *known

    def _send(self, member: Member, batch: list[Staged], *, merges: bool = True) -> None:
        """Datagrams of one size that follow each other to one peer leave as a run."""
        part, parts, headers = self._out_parts.start, list[int](), list[int]()
        runs, last, last_size, room = list[int](), None, 0, 0
        room_for_runs = merges and member.can_segment and self._written < _PLACES - MOST
        for number, (head, data, size) in enumerate(batch):
            parts += (data, size)
            if room and size == last_size and head == last:
                room -= 1
                continue
            runs.append(number)
            last, last_size = head, size
            room = MAX_PAYLOAD // size - 1 if room_for_runs and size else 0
        runs.append(len(batch))
        for first, after in pairwise(runs):
            head, _, size = batch[first]
            name, name_length, control, control_length = (
                head if after - first == 1 else self._run_head(head, size)
            )
            place = part + first * PART.size
            headers += (name, name_length, place, after - first, control, control_length, 0, 0)
        mmsg.pack_parts(self._out_parts.view, parts)
        mmsg.pack_headers(self._out_headers.view, headers)
        self._hand_over(member, batch, runs)

    def _send_one(self, member: Member, pending: list[Staged]) -> None:
        """`_send` for what is alone, as most of what a relayed address sends."""
        (name, name_length, _, control_length), data, size = pending[0]
        if control_length or member.fd < 0:
            self._send(member, pending)
            return
        where = self._pointers.get(name)
        if where is None:
            where = self._pointers[name] = Pointer(name)
        if self._sendto(member.fd, Pointer(data), size, _DONT_WAIT, where, name_length) < 0:
            # The long way knows what to do about it.
            self._send(member, pending)

    def _hand_over(self, member: Member, batch: list[Staged], runs: list[int]) -> None:
        """Give the kernel the headers of all runs; `runs` says where in `batch` each begins."""
        done, total, tried_again = 0, len(runs) - 1, -1
        while done < total and member.fd >= 0:
            sent = self._sendmmsg(member.fd, self._out_slots[done], total - done, _DONT_WAIT)
            if sent > 0:
                done += sent
                continue
            error = mmsg.last_error()
            first, after = runs[done], runs[done + 1]
            if after - first > 1 and tried_again != done and error in REFUSED_RUN:
                member.can_segment = member.can_segment and error not in CANNOT_SEGMENT
                self._send(member, batch[first:after], merges=False)
                self._send(member, batch[after:])
                return
            refused = [member.on_refused(error, staged) for staged in batch[first:after]]
            if any(refused) and tried_again != done:
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
