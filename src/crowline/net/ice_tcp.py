"""TCP for an ICE connection: ports of its own, whose connections stay framed (RFC 6544, RFC 4571)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.endpoint import IceEndpoint
from crowline.ice.events import IceEvent, PairNominated
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.net.pump import Pump
from crowline.net.tcp_events import obey
from crowline.net.tcp_mapping import MappingEvent
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.punch.syn_budget import SynBudget
from crowline.stun.client import Mapped


class IceTcp:
    """Tells the agent of connections, and does what its events ask for.

    `take(data, source, local, transport)` gets each packet, STUN or not, of whoever is connected.
    """

    def __init__(
        self,
        agent: IceEndpoint,
        pump: Pump[Transmit, IceEvent],
        take: Callable[[bytes, Address, Address, Transport], None],
    ) -> None:
        self._agent = agent
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        handlers = TcpHandlers(
            on_packet=lambda data, source, local: take(data, source, local, Transport.TCP),
            on_opened=self._opened,
            on_lost=self._lost,
            on_mapping=self._on_mapping,
            on_drained=lambda: None,
        )
        self._budget = SynBudget(MAX_REMOTE_CANDIDATES)
        self._pairs = TcpPairs(handlers, self._budget, entropy=os.urandom, stays_framed=True)
        # By the port and the server.
        self._mapped: dict[tuple[Address, Address], Address] = {}
        self._questions: dict[tuple[Address, Address], asyncio.Future[None]] = {}

    @property
    def bases(self) -> list[Address]:
        """The addresses of the ports."""
        return self._pairs.bases

    def bind(self, address: Address) -> Address:
        """Listen there, port 0 for any; gives the port's address. Raises `LocalProblem`."""
        return self._pairs.bind(address)

    def unbind(self, base: Address) -> None:
        """End what is connected there, and listen no more."""
        self._pairs.unbind(base)
        for way in [way for way in {*self._mapped, *self._questions} if way[0] == base]:
            self._mapped.pop(way, None)
            self._answered(way)

    async def ask(self, server: Address, base: Address) -> Address | None:
        """How a STUN server sees the port `base`, or None if it does not say.

        It is asked by a connection from that very port, which stays open until a pair is agreed on: a NAT
        forgets a port that is not used.
        """
        way = (base, server)
        if way not in self._mapped and base in self.bases:
            question = self._questions.setdefault(way, self._loop.create_future())
            self._pairs.ask(server)
            await asyncio.wait({question})
        return self._mapped.get(way)

    def on_event(self, event: IceEvent) -> None:
        """What the agent says; most of it is not about TCP."""
        obey(event, self._pairs, self._budget)
        if isinstance(event, PairNominated):
            self._leave_servers()

    def send(self, transmit: Transmit) -> None:
        """One packet on the connection between these addresses; without one, or behind too much, it is lost.

        Raises `UsageError` for one that is too long for a frame.
        """
        self._pairs.send(transmit)

    def close(self) -> None:
        """End all connections; whoever still waits for a server is told nothing."""
        for base in self.bases:
            self.unbind(base)
        self._pairs.close()

    def _leave_servers(self) -> None:
        """Nobody has to find a port any more; after a restart they are asked anew."""
        self._pairs.stop_asking()
        self._mapped.clear()
        for way in list(self._questions):
            self._answered(way)

    def _opened(self, local: Address, remote: Address) -> None:
        self._agent.connected(local, remote, self._pump.now)
        self._pump.flush()

    def _lost(self, local: Address, remote: Address, reason: str) -> None:
        self._agent.disconnected(local, remote, self._pump.now)
        self._pump.flush()

    def _on_mapping(self, event: MappingEvent) -> None:
        if event.local is None:
            return
        way = (event.local, event.server)
        if isinstance(event, Mapped):
            self._mapped[way] = event.address
        else:
            self._mapped.pop(way, None)
        self._answered(way)

    def _answered(self, way: tuple[Address, Address]) -> None:
        question = self._questions.pop(way, None)
        if question is not None:
            question.set_result(None)
