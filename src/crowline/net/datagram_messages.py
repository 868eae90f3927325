"""Drives a `DatagramStream` with one UDP socket of each family, which others use too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.patience import within
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.rendezvous.datagram_stream import (
    MAGIC,
    DatagramStream,
    MessageArrived,
    StreamEvent,
    StreamOpened,
    Way,
)

# Seconds for the last messages to be acknowledged.
CLOSE_LIMIT = 1.0


class DatagramMessages:
    """A way to the other side's hub, or from it. `opened` is done when the other side is there.

    The sockets belong to whoever takes them (`hand_over`); without that, `close` closes them.
    """

    server_host = ""
    local_host = ""

    def __init__(self, ways: Sequence[Way], *, knocks: bool, loopback: bool, url: str) -> None:
        """Raises `LocalProblem` where a port is taken."""
        self.url = url
        self.is_loopback = loopback
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[StreamOpened] = self._loop.create_future()
        self._messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._stream = DatagramStream(ways, knocks=knocks, entropy=os.urandom, now=self._loop.time())
        self._pump = Pump[Transmit, StreamEvent](self._stream, self._send, self._on_event)
        self._sockets: dict[Address, UdpSocket] = {}
        self._has_handed_over = False
        # Set while nothing waits for the other side's acknowledgement.
        self._all_heard = asyncio.Event()
        self._all_heard.set()
        try:
            for local in dict.fromkeys(way.local for way in ways):
                self._bind(local)
        except LocalProblem:
            self._close_sockets()
            raise

    @property
    def queued(self) -> int:
        return self._stream.unacknowledged

    def start(self) -> None:
        """Look for the other side."""
        self._pump.flush()

    def hand_over(self) -> list[UdpSocket]:
        """The sockets; from now on their new owner gives `take` what comes in, and closes them."""
        self._has_handed_over = True
        return list(self._sockets.values())

    def take(self, data: memoryview, source: Address, local: Address) -> bool:
        """Whether a datagram was one of this stream's."""
        if data[: len(MAGIC)] != MAGIC:
            return False
        taken = self._stream.receive(data, source, self._pump.now, local)
        self._pump.flush()
        if not self._stream.unacknowledged:
            self._all_heard.set()
        return taken

    def send(self, message: str | bytes) -> None:
        self._all_heard.clear()
        self._stream.send(message, self._pump.now)
        self._pump.flush()

    async def messages(self) -> AsyncIterator[str | bytes]:
        while (message := await self._messages.get()) is not None:
            yield message

    def abort(self) -> None:
        self._messages.put_nowait(None)

    async def close(self) -> None:
        """Send what is queued, as far as a second allows; a second call does nothing."""
        if self._stream.is_open:
            await within(CLOSE_LIMIT, self._all_heard.wait())
        self._stream.close(self._pump.now)
        self._pump.flush()
        self._pump.close()
        if not self._has_handed_over:
            self._close_sockets()

    def _bind(self, local: Address) -> None:
        def received(data: memoryview, source: Address, segment_size: int) -> None:
            for start in range(0, len(data), segment_size):
                self.take(data[start : start + segment_size], source, local)

        self._sockets[local] = UdpSocket.bind(local, received)

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close()

    def _send(self, transmit: Transmit) -> None:
        assert transmit.local is not None
        self._sockets[transmit.local].send(transmit)

    def _on_event(self, event: StreamEvent) -> None:
        if isinstance(event, StreamOpened):
            if not self.opened.done():
                self.opened.set_result(event)
        elif isinstance(event, MessageArrived):
            self._messages.put_nowait(event.message)
        else:
            self._messages.put_nowait(None)
