"""A UDP socket that moves many datagrams in one system call where the kernel can.

A run is a buffer of datagrams of one size for one peer, the last of which may be shorter: UDP_SEGMENT and
UDP_GRO take and give one in a call. Single datagrams are received and sent in batches (`net/exchange.py`).
Other platforms, and kernels that refuse, take and give one datagram a call behind the same interface.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeAlias

from msgspec.structs import replace

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net import mmsg, udp_options
from crowline.net.arrival import Arrival, Control, Quick, address_of, learn, leave_by, parse_control
from crowline.net.exchange import COPY_LIMIT, Exchange, Head, Staged, exchange_of
from crowline.net.mmsg import MOST, NAME_SIZE
from crowline.net.segmentation import (
    CANNOT_SEGMENT,
    MAX_PAYLOAD,
    MAX_SEGMENTS,
    REFUSED_RUN,
    UDP_SEGMENT,
)
from crowline.net.udp_options import CAN_SET_DONT_FRAGMENT as CAN_SET_DONT_FRAGMENT
from crowline.net.udp_options import IcmpReceiver
from crowline.net.unsent import Unsent, UnsentReceiver

# Reads for one wake-up where each brings one datagram or run, so that a flood on one socket cannot keep the
# loop from everything else; and the bytes that a batch should bring, which fit into a cache.
_READS_PER_WAKE = 16
_BATCH_BYTES = 1 << 18
_LEAST_BATCH = 4
# Runs that wait for a full socket buffer; beyond it datagrams are lost, as in any full queue.
_QUEUE_LIMIT = 64
# Arrivals seen are remembered to make one object each; forgotten all at once when there are too many.
_ARRIVALS = 4096
_ANCILLARY_BUFFER = 128
# A plain number: the flags of the socket module are objects, slow to calculate with.
_TRUNCATED = int(getattr(socket, "MSG_TRUNC", 0))

Receiver: TypeAlias = Callable[[memoryview, Address, int], None]
"""Gets the bytes of a run, good only during the call, its source, and the size of its datagrams."""

# Sockets that are bound to one address see arrivals alike.
_shared: dict[Any, Arrival] = {}


class BatchSocket:
    """What the kinds of UDP sockets have in common; how they are prepared and deliver is theirs."""

    __slots__ = (
        "__weakref__", "_known", "_loop", "_most", "_most_known", "_on_drained", "_on_icmp", "_on_receive",
        "_quick", "_socket", "_unsent", "can_segment", "exchange", "fd", "local", "lost", "on_readable",
        "pending", "queue",
    )  # fmt: skip

    says_local = False
    """Whether the kernel tells which address was asked, and is told which one to answer from."""

    def __init__(
        self,
        sock: socket.socket,
        on_receive: Callable[..., None],
        on_drained: Callable[[], None] | None = None,
        *,
        on_icmp: IcmpReceiver | None = None,
        on_unsent: UnsentReceiver | None = None,
    ) -> None:
        self._socket = sock
        self._on_receive = on_receive
        self._on_drained = on_drained
        self._on_icmp = on_icmp if on_icmp is not None and udp_options.report_errors(sock) else None
        self._quick: Quick | None = None
        self._known: dict[Any, Arrival] = {} if self.says_local else _shared
        self._most_known = _ARRIVALS
        self.queue: deque[Transmit] | None = None
        self.can_segment = sys.platform.startswith("linux")
        self._most = MOST
        self.pending: list[Staged] = []
        self.lost = 0
        host, port = sock.getsockname()[:2]
        self.local = address_of(host, port)
        self.fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._unsent = Unsent(self._loop, on_unsent) if on_unsent is not None else None
        self.exchange = exchange_of(self._loop)
        batches = isinstance(self.exchange, Exchange)
        self.on_readable = self._read_batch if batches else self._read_each
        self.exchange.add(self)

    @classmethod
    def bind(
        cls,
        address: Address,
        on_receive: Callable[..., None],
        on_drained: Callable[[], None] | None = None,
        *,
        on_icmp: IcmpReceiver | None = None,
        on_unsent: UnsentReceiver | None = None,
    ) -> Self:
        """Bind `address` (port 0: any). Raises `LocalProblem` when it is taken or not ours.

        `on_drained()` is called once after each burst of datagrams, `on_icmp` for each ICMP error that
        answers to what was sent, where the system says so. `on_unsent` hears of what this machine itself did
        not let out, after the call that sent it.
        """
        return cls(cls.bound(address), on_receive, on_drained, on_icmp=on_icmp, on_unsent=on_unsent)

    @classmethod
    def bound(cls, address: Address, *, joins: bool = False) -> socket.socket:
        """A socket as `bind` makes it, which nobody reads yet. Raises `LocalProblem`.

        With `joins` it shares an address with sockets that have SO_REUSEPORT set.
        """
        sock = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            cls._prepare(sock)
            if joins:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address.host, address.port))
        except OSError as error:
            sock.close()
            raise LocalProblem(
                f"UDP {address} cannot be used: {error.strerror}.",
                hint="Another program may have the port; choose another one.",
            ) from error
        return sock

    @property
    def congested(self) -> bool:
        """Whether datagrams wait for the kernel; a bulk sender should pause."""
        return bool(self.queue)

    def send(self, transmit: Transmit) -> None:
        """Send at once if the kernel has room, else queue; while datagrams are received, when they all are.

        A full queue loses, as networks do; so does whatever the kernel refuses: `on_unsent` hears of it.
        """
        if self.fd < 0:
            return
        data, size, exchange = transmit.data, transmit.segment_size, self.exchange
        if isinstance(exchange, Exchange):
            is_single = len(data) <= COPY_LIMIT and (size is None or size >= len(data))
            is_plain = not transmit.dont_fragment and transmit.hop_limit is None
            if exchange.is_collecting and is_single and not self.queue and is_plain:
                exchange.stage_copy(self, self.head_of(transmit.destination, transmit.local), data)
                return
            if self.pending:
                exchange.flush_one(self)
        data = memoryview(data)
        if size is None or size >= len(data):
            self._send_or_wait(transmit)
            return
        run = size * max(1, min(MAX_SEGMENTS, MAX_PAYLOAD // size))
        for start in range(0, len(data), run):
            piece = data[start : start + run]
            self._send_or_wait(_with_data(transmit, piece, size if len(piece) > size else None))

    def head_of(self, destination: Address, local: Address | None) -> Head:
        """What a staged datagram to `destination` needs, to leave from `local` where that can be said."""
        assert isinstance(self.exchange, Exchange)
        return self.exchange.head_of(destination, local if self.says_local else None)

    def ask_first(self, quick: Quick, arrivals: int = _ARRIVALS) -> None:
        """Let `quick` see each datagram or run of a batch before it is delivered; so many arrivals, each with
        its note, are remembered."""
        self._quick, self._known, self._most_known = quick, {}, arrivals

    def hand_over(
        self, on_receive: Callable[..., None], on_drained: Callable[[], None], on_unsent: UnsentReceiver
    ) -> None:
        """From now on these are told, for whatever `bind` was given."""
        self._on_receive, self._on_drained = on_receive, on_drained
        if self._unsent is not None:
            self._unsent.close()
        self._unsent = Unsent(self._loop, on_unsent)

    def close(self) -> None:
        if self.fd < 0:
            return
        if self._unsent is not None:
            self._unsent.close()
        if isinstance(self.exchange, Exchange) and self.pending:
            self.exchange.flush_one(self)
        self.exchange.remove(self)
        self._loop.remove_writer(self.fd)
        self.fd = -1
        self.queue = None
        self._socket.close()

    def on_refused(self, error: int, staged: Staged) -> bool:
        """A staged datagram that did not leave (`exchange.Member`)."""
        if self._on_icmp is not None and udp_options.is_earlier(error):
            udp_options.read_errors(self._socket, self._on_icmp)
            return True
        if error in (errno.EAGAIN, errno.EINTR):
            self._wait_with(self._transmit_of(staged))
        else:
            self.lost += 1
            if self._unsent is not None:
                self._unsent.note(self._transmit_of(staged).destination, error)
        return False

    @classmethod
    def _prepare(cls, sock: socket.socket) -> None:
        udp_options.prepare(sock)

    def _deliver(self, data: memoryview, arrival: Arrival) -> None:
        raise NotImplementedError

    # --- sending ----------------------------------------------------------------------------------------

    def _send_or_wait(self, transmit: Transmit) -> None:
        rest = transmit if self.queue else self._try_send(transmit)
        if rest is not None:
            self._wait_with(_with_data(rest, bytes(rest.data), rest.segment_size))

    def _wait_with(self, transmit: Transmit) -> None:
        if self.queue is None:
            self.queue = deque()
            self._loop.add_writer(self.fd, self._writable)
        if len(self.queue) < _QUEUE_LIMIT:
            self.queue.append(transmit)
        else:
            self.lost += 1

    def _writable(self) -> None:
        while self.queue:
            rest = self._try_send(self.queue[0])
            if rest is not None:
                self.queue[0] = rest
                return
            self.queue.popleft()
        self.queue = None
        self._loop.remove_writer(self.fd)

    def _try_send(self, transmit: Transmit) -> Transmit | None:
        """What the kernel has no room for now; None when it took or refused everything."""
        if not transmit.dont_fragment and transmit.hop_limit is None:
            return self._try_run(transmit)
        with udp_options.asked_by(transmit, self._socket):
            return self._try_run(transmit)

    def _try_run(self, transmit: Transmit) -> Transmit | None:
        data, size = memoryview(transmit.data), transmit.segment_size
        target = (transmit.destination.host, transmit.destination.port)
        leave = [leave_by(transmit.local)] if self.says_local and transmit.local is not None else []
        if size is not None and size < len(data) and self.can_segment:
            try:
                self._call(data, [*leave, (socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))], target)
            except (BlockingIOError, InterruptedError):
                return transmit
            except OSError as error:
                if error.errno not in REFUSED_RUN:
                    self._lose(transmit, error)
                    return None
                self.can_segment = error.errno not in CANNOT_SEGMENT
            else:
                return None
        step = size or max(1, len(data))
        for start in range(0, max(1, len(data)), step):
            try:
                self._call(data[start : start + step], leave, target)
            except (BlockingIOError, InterruptedError):
                return _with_data(transmit, data[start:], size)
            except OSError as error:
                self._lose(transmit, error)
        return None

    def _lose(self, transmit: Transmit, error: OSError) -> None:
        self.lost += 1
        if self._unsent is not None:
            self._unsent.note(transmit.destination, error.errno or 0)

    def _call(self, data: memoryview, control: list[Control], target: tuple[str, int]) -> None:
        try:
            self._call_once(data, control, target)
        except OSError as error:
            if self._on_icmp is None or not udp_options.is_earlier(error.errno or 0):
                raise
            udp_options.read_errors(self._socket, self._on_icmp)
            self._call_once(data, control, target)

    def _call_once(self, data: memoryview, control: list[Control], target: tuple[str, int]) -> None:
        if control:
            self._socket.sendmsg([data], control, 0, target)
        else:
            self._socket.sendto(data, target)

    def _transmit_of(self, staged: Staged) -> Transmit:
        """What was staged, as it was given to `send`."""
        assert isinstance(self.exchange, Exchange)
        name, control, data = self.exchange.read(staged)
        host, port = mmsg.parse_name(name)
        local = learn(host, port, list(parse_control(control)), self.local.port).local
        return Transmit(data, address_of(host, port), local)

    # --- receiving --------------------------------------------------------------------------------------

    def _read_batch(self) -> None:
        exchange = self.exchange
        assert isinstance(exchange, Exchange)
        datagrams = exchange.receive(self.fd, self._most)
        if datagrams is None:
            self._read_errors()
            return
        known, view, quick, total = self._known, exchange.view, self._quick, 0
        for offset, (flags, length), (meta,) in datagrams:
            total += length
            arrival = known.get(meta) or self._remember(meta)
            if not length or flags & _TRUNCATED:
                continue
            try:
                if quick is None or not quick(offset, length, arrival):
                    self._deliver(view[offset : offset + length], arrival)
            except Exception as error:
                self._report(error)
            if self.fd < 0:
                return
        if total > _BATCH_BYTES:
            self._most = max(_LEAST_BATCH, self._most // 2)
        elif self._most < MOST:
            self._most *= 2
        if self._on_drained is not None:
            self._on_drained()

    def _read_each(self) -> None:
        read = self._read_run if hasattr(self._socket, "recvmsg_into") else self._read_plain
        for _ in range(_READS_PER_WAKE):
            try:
                length, arrival = read()
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # An ICMP error of an earlier datagram: no statement about this socket.
                self._read_errors()
                continue
            if length:
                self._deliver(self.exchange.view[:length], arrival)
            if self.fd < 0:
                return
        self._read_errors()
        if self._on_drained is not None:
            self._on_drained()

    def _read_run(self) -> tuple[int, Arrival]:
        """Bytes read (0: nothing that is whole), and what the kernel said of them."""
        length, control, flags, source = self._socket.recvmsg_into([self.exchange.view], _ANCILLARY_BUFFER)
        key = (source, *control)
        arrival = self._known.get(key) or self._keep(key, source, control)
        return (0 if flags & _TRUNCATED else length), arrival

    def _read_plain(self) -> tuple[int, Arrival]:
        """The same where there is no ancillary data."""
        length, source = self._socket.recvfrom_into(self.exchange.view)
        return length, self._known.get(source) or self._keep(source, source, [])

    def _remember(self, meta: bytes) -> Arrival:
        control = list(parse_control(meta[NAME_SIZE:]))
        return self._keep(meta, mmsg.parse_name(meta[:NAME_SIZE]), control)

    def _keep(self, key: Any, source: tuple[Any, ...], control: list[Control]) -> Arrival:
        if len(self._known) >= self._most_known:
            self._known.clear()
        arrival = self._known[key] = learn(source[0], source[1], control, self.local.port)
        return arrival

    def _read_errors(self) -> None:
        if self._on_icmp is not None:
            udp_options.read_errors(self._socket, self._on_icmp)

    def _report(self, error: Exception) -> None:
        """A fault of the receiver costs one datagram, not those that came with it."""
        self._loop.call_exception_handler({"message": "A datagram was not handled.", "exception": error})


class UdpSocket(BatchSocket):
    """One bound UDP socket in the running event loop: `bind(address, on_receive)` with a `Receiver`."""

    __slots__ = ()

    def _deliver(self, data: memoryview, arrival: Arrival) -> None:
        self._on_receive(data, arrival.source, arrival.segment_size or len(data))


def _with_data(transmit: Transmit, data: bytes | memoryview, size: int | None) -> Transmit:
    return replace(transmit, data=data, segment_size=size)
