"""Our agent on one socket of loopback, as any program has it, with its lines and what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.events import IceEvent
from crowline.net.ice_connection import IceConnection
from datagram_endpoint import Endpoint, endpoint

PATIENCE = 45.0  # seconds until something must have happened: a check's 39.5 and some


class OurIce:
    """`reach` says which hosts and ports this side can exchange packets with; by default with all."""

    def __init__(self, own: Endpoint, controlling: bool, options: dict[str, Any]) -> None:
        self.own = own
        self.lines: list[str] = []
        self.tell: Callable[[str], object] = lambda line: None
        self.events: list[IceEvent] = []
        self.data: asyncio.Queue[bytes] = asyncio.Queue()
        self.reach: Callable[[Address], bool] = lambda address: True
        self.connection = IceConnection(
            controlling,
            send=self._send,
            tell=self._tell,
            on_data=lambda data: self.data.put_nowait(bytes(data)),
            on_event=self.events.append,
            **options,
        )
        own.take = self._take

    def speak_to(self, tell: Callable[[str], object]) -> None:
        """Tell the other side everything that was said so far, and what comes."""
        self.tell = tell
        for line in self.lines:
            tell(line)

    def of(self, kind: type) -> list[Any]:
        """The events of that kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self.tell(line)

    def _send(self, transmit: Transmit) -> None:
        if self.reach(transmit.destination):
            self.own.send(transmit)

    def _take(self, data: bytes, source: Address) -> None:
        if self.reach(source):
            self.connection.receive(data, source, self.own.local)


@asynccontextmanager
async def our_ice(*, controlling: bool, address: str = "127.0.0.1", **options: Any) -> AsyncIterator[OurIce]:
    """The socket is open and no candidate has been named yet."""
    async with endpoint(address) as own:
        ours = OurIce(own, controlling, options)
        try:
            yield ours
        finally:
            await ours.connection.close()
