"""One TCP connection of ICE: framed packets (RFC 4571), until a link takes it over (`link/stream_switch.py`).

Rules of this file
1. A stream has one owner, who made it, and from its nomination on a tenant as well, the link on it.
2. The owner gets every packet, and hears once that the connection is over for ICE, whoever ended it.
3. The tenant gets every byte after the last frame, and hears once that the other side ended the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer
from crowline.ice.framing import FIRST_LIMIT, Deframer, MalformedFraming, frame
from crowline.link.stream_switch import StreamSwitch
from crowline.net.tcp_stream import TcpStream

# Bytes that a connection may bring before it has proven whose it is: some dozens of checks.
MAX_UNTRUSTED = 16 * 1024
# Bytes that the deframer is given at once; behind what it holds already, it takes as much.
_FEED = 256 * 1024
# Seconds in which the other side answers last words by ending the connection.
FINISH_LIMIT = 5.0

StreamKey = tuple[Address, Address]  # the local and the remote end


class Tenant(Protocol):
    """The link on a connection."""

    def receive(self, data: memoryview) -> None:
        """The next bytes after the last frame; they change when this has returned."""

    def drained(self) -> None:
        """All that one read brought has been received, or all that waited has left."""

    def disconnected(self) -> None:
        """The other side ended the connection, or it broke."""


class FramedStream:
    """Takes a connection over and reads it from now on.

    `on_packet` gets each packet, `on_drained` comes after all that one read brought, and `on_ended` once with
    the reason, but not after `close`. `stream` is for whoever dialled it. One that `stays_framed`, since the
    other side is of another make, gets no tenant, and an empty frame on it means nothing (RFC 4571 §2).
    """

    def __init__(
        self,
        stream: TcpStream,
        *,
        on_packet: Callable[[FramedStream, bytes], None],
        on_ended: Callable[[FramedStream, str], None],
        on_drained: Callable[[], None],
        stays_framed: bool = False,
    ) -> None:
        self.stream = stream
        self.local, self.remote = stream.local, stream.remote
        self._on_packet = on_packet
        self._on_ended: Callable[[FramedStream, str], None] | None = on_ended
        self._on_drained = on_drained
        self._stays_framed = stays_framed
        self._tenant: Tenant | None = None
        self._switch = StreamSwitch()
        self._deframer = Deframer(FIRST_LIMIT)
        self._untrusted = 0
        self._held = bytearray()
        self._limit: asyncio.TimerHandle | None = None
        stream.start(self._receive, self._closed, self._drained)

    @property
    def key(self) -> StreamKey:
        return (self.local, self.remote)

    @property
    def is_open(self) -> bool:
        return self.stream.is_open

    @property
    def is_nominated(self) -> bool:
        """Whether there is a link on it, or will be: ICE leaves it alone."""
        return self._tenant is not None

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._held) + self.stream.waiting

    # For its owner ----------------------------------------------------------------------------------

    def trust(self) -> None:
        """A check has proven who is there."""
        self.stream.trust()

    def send(self, packet: Buffer) -> None:
        """Frame a packet. It is lost when too much waits already, and after the last frame."""
        if not self._switch.has_sent:
            self.stream.offer(frame(packet))

    def close(self) -> None:
        """End the connection after what was written; nobody is told."""
        if self._limit is not None:
            self._limit.cancel()
        self.stream.close()

    def drop(self, reason: str) -> None:
        """End the connection at once, as if the other side had: its owner and its tenant are told."""
        self.stream.drop(reason)

    # For its tenant ---------------------------------------------------------------------------------

    def nominate(self, tenant: Tenant, *, is_controlling: bool) -> None:
        """Go over from frames to the tenant's bytes, in each direction when it is due."""
        if self._stays_framed:
            raise UsageError("this connection stays framed")
        self._tenant = tenant
        self.trust()
        self._switch.nominate(is_controlling=is_controlling)
        self._go_over()

    def write(self, data: Buffer) -> None:
        """Send the tenant's bytes, after the last frame."""
        if self._switch.has_sent:
            self.stream.send(data)
        else:
            self._held += data

    def end(self, reason: str) -> None:
        """End the connection at once; its owner is told.

        The other side has said its last words, or none can be heard. By FIN, the pair of addresses would stay
        taken: for TIME_WAIT, or for as long as the kernel goes on sending to a side that is silent.
        """
        self.stream.abort()
        self._tell_owner(reason)

    def finish(self, reason: str, on_over: Callable[[FramedStream], None]) -> None:
        """Have the other side end the connection, as last words have asked it to; the owner is told now.

        What it sends until then means nothing any more. After an end of our own it would have the kernel
        reset the connection, and last words on their way would be lost. `on_over` says that it has ended.
        """

        def over(*_: object) -> None:
            limit.cancel()
            self.stream.abort()
            on_over(self)

        limit = self._limit = asyncio.get_running_loop().call_later(FINISH_LIMIT, over)
        self.stream.start(lambda data: None, over)
        self._tell_owner(reason)

    # ------------------------------------------------------------------------------------------------

    def _receive(self, data: memoryview) -> None:
        if not self.stream.is_trusted:
            self._untrusted += len(data)
            if self._untrusted > MAX_UNTRUSTED:
                self.drop("it said too much before it proved itself")
                return
        if self._stays_framed:
            self._take_packets(data)
        else:
            self._take_stream(data)
        self._drained()

    def _take_stream(self, data: memoryview) -> None:
        """Frames and what follows them."""
        framed, plain = self._switch.split(data)
        if len(framed):
            self._take_packets(framed)
        if self._switch.is_premature:
            self.drop("the other side left ICE without a nomination")
        self._go_over()
        if len(plain) and self._tenant is not None and self.is_open:
            self._tenant.receive(plain)

    def _take_packets(self, framed: memoryview) -> None:
        """Hand on what is whole; whoever takes a packet may close this."""
        try:
            for start in range(0, len(framed), _FEED):
                self._deframer.feed(framed[start : start + _FEED])
                while (packet := self._deframer.next_packet()) is not None:
                    self._on_packet(self, packet)
                    if not self.is_open:
                        return
        except MalformedFraming as error:
            self.drop(f"what it sends is not framed ({error})")

    def _go_over(self) -> None:
        if last := self._switch.take_frame():
            self.stream.send(last + self._held)
            self._held.clear()

    def _drained(self) -> None:
        if self._tenant is None:
            self._on_drained()
        else:
            self._tenant.drained()

    def _closed(self, reason: str) -> None:
        if self._tenant is not None:
            self._tenant.disconnected()
        self._tell_owner(reason)

    def _tell_owner(self, reason: str) -> None:
        on_ended, self._on_ended = self._on_ended, None
        if on_ended is not None:
            on_ended(self, reason)
