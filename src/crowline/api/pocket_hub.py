"""The hub of one meeting in the hosting side's own process, where there is no server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from crowline.api.hub_channel import MessageSocket
from crowline.base.addresses import Address
from crowline.net.pump import Pump
from crowline.rendezvous.hub import Delivery, Hub
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.numbers import Numbers

# Whom the hub sees where the hosting side connects from: it is this process.
_HERE = Address("127.0.0.1", 0)
# Connections at a time, the hosting side's own included, and from one address: one other side, which may have
# to come back, and some that are mistaken.
MAX_CONNECTIONS, MAX_OF_ONE_HOST = 16, 4


@dataclass(frozen=True, slots=True)
class _Sink:
    send: Callable[[str | bytes], None]
    close: Callable[[], None]
    host: str


class PocketHub:
    """`numbers` draws the meeting's number. `attach` is the hosting side's way in, `serve` that of others,
    who come to that one meeting and have none of their own.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._number = _OneNumber(numbers)
        self._hub = Hub(entropy=os.urandom, limits=HubLimits(), numbers=self._number)
        self._pump = Pump[Delivery, None](_Quiet(self._hub), self._deliver, lambda _: None)
        self._sinks: dict[int, _Sink] = {}
        self._count = 0

    def attach(self, url: str, *, loopback: bool) -> AttachedSocket:
        """The hosting side's way to its own hub; it is connected when it says its first word, for a hub does
        not wait for one for long.
        """
        messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        sink = _Sink(messages.put_nowait, lambda: messages.put_nowait(None), _HERE.host)
        number: int | None = None

        def send(message: str | bytes) -> None:
            nonlocal number
            if number is None:
                number = self._connect(sink, _HERE)
            self._receive(number, message)

        def leave() -> None:
            if number is not None:
                self._disconnect(number)

        return AttachedSocket(url, messages, loopback=loopback, send=send, leave=leave)

    async def serve(self, socket: MessageSocket, source: Address) -> None:
        """Take part with that socket until it ends; the socket is closed then."""
        hosts = [sink.host for sink in self._sinks.values()]
        is_full = len(hosts) >= MAX_CONNECTIONS or hosts.count(source.host) >= MAX_OF_ONE_HOST
        if is_full or not self._number.is_drawn:
            socket.abort()
            await socket.close()
            return
        number = self._connect(_Sink(socket.send, socket.abort, source.host), source)
        try:
            async for message in socket.messages():
                self._receive(number, message)
        finally:
            self._disconnect(number)
            await socket.close()

    def close(self) -> None:
        self._pump.close()

    def _connect(self, sink: _Sink, source: Address) -> int:
        self._count += 1
        self._sinks[self._count] = sink
        self._hub.connect(self._count, source, self._pump.now)
        self._pump.flush()
        return self._count

    def _receive(self, number: int, message: str | bytes) -> None:
        if isinstance(message, str):
            self._hub.receive(number, message.encode(), self._pump.now)
        else:
            self._hub.receive_binary(number, message, self._pump.now)
        self._pump.flush()

    def _disconnect(self, number: int) -> None:
        if self._sinks.pop(number, None) is not None:
            # It may come back: what ended is its way here.
            self._hub.disconnect(number, self._pump.now)
            self._pump.flush()

    def _deliver(self, delivery: Delivery) -> None:
        sink = self._sinks.get(delivery.connection)
        if sink is None:
            return
        if delivery.close is not None:
            sink.close()
        elif delivery.is_binary:
            sink.send(bytes(delivery.data))
        else:
            sink.send(bytes(delivery.data).decode())


class AttachedSocket:
    """The hosting side's end; everything else is in the same process."""

    server_host = ""
    local_host = ""
    queued = 0

    def __init__(
        self,
        url: str,
        messages: asyncio.Queue[str | bytes | None],
        *,
        loopback: bool,
        send: Callable[[str | bytes], None],
        leave: Callable[[], None],
    ) -> None:
        self.url = url
        self.is_loopback = loopback
        self._messages = messages
        self._send = send
        self._leave = leave
        self._loop = asyncio.get_running_loop()

    def send(self, message: str | bytes) -> None:
        # The answer may come before this returns, and callers are not prepared for that.
        self._loop.call_soon(self._send, message)

    async def messages(self) -> AsyncIterator[str | bytes]:
        while (message := await self._messages.get()) is not None:
            yield message

    def abort(self) -> None:
        self._messages.put_nowait(None)

    async def close(self) -> None:
        """What was said is heard first."""
        await asyncio.sleep(0)
        self._leave()


class _OneNumber(Numbers):
    """Draws once, for this process's own meeting, also when that is over."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(os.urandom, 0.0)
        self._numbers = numbers
        self.is_drawn = False

    def draw(self, is_taken: Callable[[int], bool], now: float) -> int | None:
        if self.is_drawn:
            return None
        self.is_drawn = True
        return self._numbers.draw(is_taken, now)


class _Quiet:
    """A hub as pumps want machines: it says nothing but what it sends."""

    def __init__(self, hub: Hub) -> None:
        self.handle_timeout = hub.handle_timeout
        self.next_timeout = hub.next_timeout
        self.next_transmit = hub.next_transmit

    def next_event(self) -> None:
        return None
