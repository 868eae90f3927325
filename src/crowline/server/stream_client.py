"""One client on a TCP or TLS stream: whole messages in, answers and data out, later perhaps raw bytes.

What a client may hold: one unfinished message, 64 KiB that the kernel did not take yet, and 256 KiB of
relayed data behind that. Of the data the oldest is dropped first, and a reader that takes nothing for five
seconds is cut off; while it takes nothing its requests are not read either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.stun.attributes import MalformedStun
from crowline.turn.framing import StreamFramer

FIRST_MESSAGE_TIME = 5.0  # seconds from connecting to the first complete message
IDLE_TIME = 30.0  # seconds between messages of a client that holds nothing
WRITE_TIME = 5.0  # seconds in which a reader must take something
HIGH_WATER = 64 * 1024  # bytes waiting for the kernel at which data goes into the queue
MAX_QUEUE = 256 * 1024  # bytes of relayed data waiting behind that
MAX_STUN = 65_536  # bytes: a Send indication may carry a whole UDP datagram
# Before anything is known about a client its message is small: real ones have about a hundred bytes.
MAX_FIRST = 4096  # bytes
# RFC 7983: a first byte below this is STUN.
FIRST_NO_STUN = 4

RAW_TRANSPORT = "raw_transport"
"""Extra info of a secured transport: the transport below it."""

_DATA_INDICATION = b"\x00\x17"


class StreamKey(NamedTuple):
    """The 5-tuple of a client."""

    client: Address
    local: Address
    transport: Transport


class RawEnd(Protocol):
    """Who gets the bytes of a stream that carries no messages any more."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class StreamOwner(Protocol):
    """What a stream tells, and asks."""

    def opened(self, stream: StreamClient) -> None: ...

    def closed(self, stream: StreamClient) -> None: ...

    def received(self, message: bytes, stream: StreamClient) -> None: ...

    def is_busy(self, stream: StreamClient) -> bool:
        """Whether a silent client is kept."""

    def count(self, name: str) -> None: ...


class StreamClient(asyncio.Protocol):
    """`leave()` is called once, when the stream is over: its place is free again."""

    def __init__(self, owner: StreamOwner, key: StreamKey, leave: Callable[[], None]) -> None:
        self.key = key
        self.raw: RawEnd | None = None
        self._owner = owner
        self._leave = leave
        self._framer = StreamFramer(MAX_FIRST)
        self._is_first = True
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._is_full = False
        self._is_over = False

    # --- from the transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER)
        self._owner.opened(self)
        self._set_timer(FIRST_MESSAGE_TIME)

    def data_received(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw.data_received(data)
            return
        try:
            self._feed(data)
            self._take_messages()
        except MalformedStun:
            self._owner.count("tcp_malformed")
            self.abort()

    def eof_received(self) -> bool:
        if self.raw is None:
            # The last answers are still written, but not for a reader that takes none.
            self._loop.call_later(WRITE_TIME, self.abort)
            return False
        # TLS has no half of a connection.
        return self.raw.eof_received() and self.key.transport is Transport.TCP

    def pause_writing(self) -> None:
        """The client does not read: neither do we."""
        self._is_full = True
        if self.raw is not None:
            # Raw bytes wait for their reader as long as it takes: nobody else pays for it.
            self.raw.pause_writing()
            return
        self._transport.pause_reading()
        self._unsent = self._count_unsent()
        self._write_timer = self._loop.call_later(WRITE_TIME, self._check_progress)

    def resume_writing(self) -> None:
        self._is_full = False
        self._stop_write_timer()
        while self._queue and not self._is_full:
            message = self._queue.popleft()
            self._queued -= len(message)
            self._transport.write(message)
        if self._is_full or self._is_over:
            return
        if self.raw is not None:
            self.raw.resume_writing()
        else:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._stop_timer()
        self._stop_write_timer()
        self._queue.clear()
        self._leave()
        self._owner.closed(self)
        if self.raw is not None:
            self.raw.connection_lost()

    # --- from the owner ---------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Answers are written at once, since requests are not read while they wait; data may be dropped."""
        if self._is_over or self._transport.is_closing():
            return
        if not self._is_full or not _is_data(data):
            self._transport.write(data)
            return
        self._queue.append(data)
        self._queued += len(data)
        while self._queued > MAX_QUEUE:
            self._queued -= len(self._queue.popleft())
            self._owner.count("stream_dropped")

    def become_raw(self, raw: RawEnd) -> bytes:
        """From here on the stream is `raw`'s; what was read of it already."""
        self.raw = raw
        self._stop_timer()
        self._stop_write_timer()
        return self._framer.rest()

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport

    @property
    def is_full(self) -> bool:
        """Whether the client does not take what is written."""
        return self._is_full

    @property
    def is_over(self) -> bool:
        return self._is_over

    def abort(self) -> None:
        if not self._is_over:
            self._transport.abort()

    # --- inside -----------------------------------------------------------------------------------------

    def _take_messages(self) -> None:
        while self.raw is None and not self._is_over and not self._transport.is_closing():
            message = self._framer.next_message()
            if message is None:
                return
            if self._is_first:
                self._begin()
            self._set_timer(IDLE_TIME)
            self._owner.received(message, self)

    def _feed(self, data: bytes) -> None:
        """The first message must be STUN: the first letters of "GET " are those of a channel number."""
        if self._is_first and not len(self._framer) and data[0] >= FIRST_NO_STUN:
            raise MalformedStun("a stream that does not begin with STUN")
        self._framer.feed(data)

    def _begin(self) -> None:
        """After one small message there may be large ones."""
        self._is_first = False
        begun, self._framer = self._framer.rest(), StreamFramer(MAX_STUN)
        self._framer.feed(begun)

    def _set_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._check_idle)

    def _check_idle(self) -> None:
        if not self._is_first and self._owner.is_busy(self):
            self._set_timer(IDLE_TIME)
            return
        self.abort()

    def _check_progress(self) -> None:
        unsent = self._count_unsent()
        if unsent >= self._unsent:
            self._owner.count("stream_stuck")
            self.abort()
            return
        self._unsent = unsent
        self._write_timer = self._loop.call_later(WRITE_TIME, self._check_progress)

    def _count_unsent(self) -> int:
        """Bytes that the kernel did not take; TLS gives what it wrote to the transport below it."""
        below = self._transport.get_extra_info(RAW_TRANSPORT)
        return self._transport.get_write_buffer_size() + (below.get_write_buffer_size() if below else 0)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _is_data(message: bytes) -> bool:
    """ChannelData or a Data indication, which are datagrams: they may be lost."""
    return message[0] >= FIRST_NO_STUN or message[:2] == _DATA_INDICATION
