"""One TCP connection of ICE: framed packets (RFC 4571), until TLS takes it over (`link/stream_switch.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.ice.framing import FIRST_LIMIT, Deframer, MalformedFraming, frame
from crowline.link.stream_switch import StreamSwitch
from crowline.net.tcp_stream import TcpStream

# Seconds in which the other side answers last words by ending the connection.
FINISH_LIMIT = 5.0

StreamKey = tuple[Address, Address]  # the local and the remote end


class CheckedStream:
    """Takes a connection over and reads it from now on.

    `on_packet` gets each packet and, once `nominate` was called, its `on_bytes` what follows them.
    `on_drained` comes after all that one read brought, and when all that waited has left. `on_ended` is
    called once, with the reason, when the other side ends the connection or breaks its form.
    """

    def __init__(
        self,
        stream: TcpStream,
        *,
        on_packet: Callable[[CheckedStream, bytes], None],
        on_drained: Callable[[], None],
        on_ended: Callable[[CheckedStream, str], None],
    ) -> None:
        self.key: StreamKey = (stream.local, stream.remote)
        self._stream = stream
        self._on_packet = on_packet
        self._on_drained = on_drained
        self._on_bytes: Callable[[memoryview], None] | None = None
        self._switch = StreamSwitch()
        self._deframer = Deframer(FIRST_LIMIT)
        self._held = bytearray()
        self._limit: asyncio.TimerHandle | None = None
        stream.start(self._receive, lambda reason: on_ended(self, reason), on_drained)

    @property
    def is_open(self) -> bool:
        return self._stream.is_open

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._held) + self._stream.waiting

    def trust(self) -> None:
        """A check has proven who is there."""
        self._stream.trust()

    def send(self, packet: Buffer) -> None:
        """Frame a packet. It is lost when too much waits already, and after the last frame."""
        if not self._switch.has_sent:
            self._stream.offer(frame(packet))

    def nominate(self, *, is_controlling: bool, on_bytes: Callable[[memoryview], None]) -> None:
        """The pair is nominated: go over from frames to plain bytes, in each direction when it is due."""
        self._on_bytes = on_bytes
        self._switch.nominate(is_controlling=is_controlling)
        self._go_over()

    def write(self, data: Buffer) -> None:
        """Send plain bytes, after the last frame."""
        if self._switch.has_sent:
            self._stream.send(data)
        else:
            self._held += data

    def close(self) -> None:
        """End the connection after what was written."""
        if self._limit is not None:
            self._limit.cancel()
        self._stream.close()

    def finish(self, on_over: Callable[[CheckedStream], None]) -> None:
        """Let the other side end the connection, which last words have asked it to do; what it sends until
        then means nothing any more.

        With an end of our own, what it still sends would have the kernel reset the connection, and last words
        on their way would be lost.
        """

        def end(*_: object) -> None:
            self.close()
            on_over(self)

        self._limit = asyncio.get_running_loop().call_later(FINISH_LIMIT, end)
        self._stream.start(lambda data: None, end)

    def _receive(self, data: bytes) -> None:
        framed, plain = self._switch.split(data)
        if len(framed):
            self._take_packets(framed)
        if self._switch.is_premature:
            self._stream.drop("the other side left ICE without a nomination")
        self._go_over()
        if len(plain) and self._on_bytes is not None and self.is_open:
            self._on_bytes(plain)
        self._on_drained()

    def _take_packets(self, framed: memoryview) -> None:
        """Hand on what is whole; whoever takes a packet may close this."""
        self._deframer.feed(framed)
        try:
            while self.is_open and (packet := self._deframer.next_packet()) is not None:
                self._on_packet(self, packet)
        except MalformedFraming as error:
            self._stream.drop(str(error))

    def _go_over(self) -> None:
        if last := self._switch.take_frame():
            self._stream.send(last + self._held)
            self._held.clear()
