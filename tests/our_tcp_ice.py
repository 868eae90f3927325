"""Our agent on one TCP port of loopback, used like `our_ice.OurIce`: RFC 6544 with peers of any kind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import CandidateFactory, TcpType
from crowline.ice.events import (
    ConnectionUnwanted,
    ConnectionWanted,
    IceEvent,
    IceFailed,
    PairNominated,
    PairValid,
)
from crowline.ice.line_signals import LineSignals
from crowline.ice.pair import ValidPair
from crowline.net.pump import Pump
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.punch.syn_budget import SynBudget
from crowline.stun.message import is_stun


class OurTcpIce:
    """Framed connections stay ICE's: data goes as packets, as a foreign peer expects."""

    def __init__(self, controlling: bool) -> None:
        self.lines: list[str] = []
        self.events: list[IceEvent] = []
        self.data: asyncio.Queue[bytes] = asyncio.Queue()
        self._tell: Callable[[str], object] = lambda line: None
        self._agent = IceAgent(controlling, entropy=os.urandom)
        self._signals = LineSignals(self._agent, self._on_line)
        self._pump = Pump[Transmit, IceEvent](
            self._agent, lambda each: self._pairs.send(each), self._on_event
        )
        handlers = TcpHandlers(
            on_packet=self._on_packet,
            on_opened=lambda local, remote: self._told(self._agent.connected, local, remote),
            on_lost=lambda local, remote, _: self._told(self._agent.disconnected, local, remote),
            on_mapping=lambda event: None,
            on_drained=lambda: None,
        )
        self._pairs = TcpPairs(handlers, SynBudget(10), entropy=os.urandom)
        self._outcome: asyncio.Future[ValidPair] = asyncio.get_running_loop().create_future()
        self._signals.begin()

    def offer(self, types: Sequence[TcpType]) -> None:
        """Listen, and name the port in these ways."""
        base = self._pairs.bind(Address("127.0.0.1", 0))
        factory = CandidateFactory()
        for each in types:
            self._signals.offer(factory.host(base, each), self._pump.now)
        self._signals.end(self._pump.now)
        self._pump.flush()

    def speak_to(self, tell: Callable[[str], object]) -> None:
        """Tell the other side everything that was said so far, and what comes."""
        self._tell = tell
        for line in self.lines:
            tell(line)

    def hear(self, line: str) -> None:
        self._signals.hear(line, self._pump.now)
        self._pump.flush()

    async def connected(self) -> ValidPair:
        return await asyncio.shield(self._outcome)

    def send(self, data: bytes) -> None:
        pair = self._agent.selected
        assert pair is not None
        self._pairs.send(pair.way.transmit(data))

    def close(self) -> None:
        self._agent.close()
        self._pump.close()
        self._pairs.close()
        self._outcome.cancel()

    def _on_line(self, line: str) -> None:
        self.lines.append(line)
        self._tell(line)

    def _told(self, act: Callable[[Address, Address, float], None], local: Address, remote: Address) -> None:
        act(local, remote, self._pump.now)
        self._pump.flush()

    def _on_packet(self, data: Any, source: Address, local: Address) -> None:
        if is_stun(data):
            self._agent.receive(data, source, self._pump.now, local, transport=Transport.TCP)
            self._pump.flush()
        elif self._agent.is_valid(local, source, Transport.TCP):
            self.data.put_nowait(bytes(data))

    def _on_event(self, event: IceEvent) -> None:
        self.events.append(event)
        if isinstance(event, ConnectionWanted):
            self._pairs.want(event.local, event.remote, simultaneous=event.simultaneous)
        elif isinstance(event, ConnectionUnwanted):
            self._pairs.unwant(event.local, event.remote)
        elif isinstance(event, PairValid):
            self._pairs.authenticated(event.pair.base, event.pair.remote.address)
            self._agent.use(event.pair, self._pump.now)
        elif isinstance(event, PairNominated) and not self._outcome.done():
            self._outcome.set_result(event.pair)
        elif isinstance(event, IceFailed) and not self._outcome.done():
            self._outcome.set_exception(AssertionError(event.reason.value))
            self._outcome.exception()


@asynccontextmanager
async def our_tcp_ice(*, controlling: bool) -> AsyncIterator[OurTcpIce]:
    ours = OurTcpIce(controlling)
    try:
        yield ours
    finally:
        ours.close()
