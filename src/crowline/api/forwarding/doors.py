"""Where programs of this machine come in: a TCP port, a UDP port, a SOCKS5 server.

A door is bound at once, so that a port that is taken is known before anybody is met; it opens later, when the
other side has agreed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from crowline.api.forwarding.connections import Connections
from crowline.api.forwarding.flows import MAX_FLOWS, Flow, Flows
from crowline.api.forwarding.talk import NotReached
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.forward.messages import Connect, Head, Transport
from crowline.forward.rules import Target
from crowline.forward.socks import (
    Command,
    MalformedSocks,
    SocksConversation,
    SocksRequest,
    format_datagram,
    parse_datagram,
    reply,
)
from crowline.net.chores import Chores
from crowline.net.local_tcp import TcpConduit, TcpListener
from crowline.net.local_udp import LocalUdp
from crowline.net.patience import within

# Seconds in which a program has to say what it wants of SOCKS.
_SOCKS_LIMIT = 30.0
# Seconds of rest where the system has no descriptor for one more connection.
_EXHAUSTED_PAUSE = 0.2

# `head(flow)`: what a stream for this door begins with.
HeadOf: TypeAlias = Callable[[int | None], Head]


class Door(Protocol):
    """`address`: where programs connect to."""

    @property
    def address(self) -> Address:
        """Where it is bound."""

    async def serve(self, connections: Connections, flows: Flows, head: HeadOf) -> None:
        """Let programs in until cancelled."""

    def close(self) -> None:
        """Nobody comes in any more."""


def door(transport: Transport, bind: Target) -> Door:
    """Raises `LocalProblem` where that cannot be listened at."""
    return UdpDoor(bind) if transport == "udp" else TcpDoor(bind)


class TcpDoor:
    """Each connection goes to the other side as it is."""

    def __init__(self, bind: Target) -> None:
        self._listener = TcpListener(bind.host, bind.port)
        self.address = self._listener.address

    async def serve(self, connections: Connections, flows: Flows, head: HeadOf) -> None:
        async def carry(conduit: TcpConduit, source: Address) -> None:
            await connections.carry(conduit, head(None), f"{source} → {self.address}")

        await _let_in(self._listener, connections, carry)

    def close(self) -> None:
        self._listener.close()


class SocksDoor:
    """Each connection says in SOCKS5 where it wants to go."""

    def __init__(self, bind: Target) -> None:
        self._listener = TcpListener(bind.host, bind.port)
        self.address = self._listener.address

    async def serve(self, connections: Connections, flows: Flows, rule: int) -> None:
        """`rule`: the number of the rule by which the other side is asked."""

        async def talk(conduit: TcpConduit, source: Address) -> None:
            try:
                await _Socks(conduit, source, connections, flows, rule).run()
            finally:
                conduit.close()

        await _let_in(self._listener, connections, talk)

    def close(self) -> None:
        self._listener.close()


class UdpDoor:
    """Each program that sends, by its address, is a flow of its own."""

    def __init__(self, bind: Target) -> None:
        self._socket = LocalUdp.listening(bind.host, bind.port, self._on_datagram)
        self.address = self._socket.address
        self._flows: dict[Address, tuple[Flow, asyncio.Task[None]]] = {}
        self._begin: Callable[[Address], tuple[Flow, Coroutine[Any, Any, None]]] | None = None

    async def serve(self, connections: Connections, flows: Flows, head: HeadOf) -> None:
        def begin(source: Address) -> tuple[Flow, Coroutine[Any, Any, None]]:
            flow = flows.begin(lambda data: self._socket.send(data, source))
            return flow, flows.carry(flow, head(flow.number), f"{source} → {self.address}, udp")

        self._begin = begin
        try:
            await asyncio.Event().wait()
        finally:
            self._begin = None
            tasks = [task for _, task in self._flows.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        self._socket.close()

    def _on_datagram(self, data: bytes, source: Address) -> None:
        known = self._flows.get(source)
        if known is None:
            if self._begin is None:
                return
            if len(self._flows) >= MAX_FLOWS:
                self._end_oldest()
            flow, work = self._begin(source)
            known = self._flows[source] = flow, asyncio.ensure_future(work)
            known[1].add_done_callback(lambda task: self._forget(source, task))
        known[0].send(data)

    def _end_oldest(self) -> None:
        oldest = min(self._flows, key=lambda source: self._flows[source][0].used_at)
        self._flows.pop(oldest)[1].cancel()

    def _forget(self, source: Address, task: asyncio.Task[None]) -> None:
        if source in self._flows and self._flows[source][1] is task:
            del self._flows[source]


class _Socks:
    """One program, from its greeting to its end."""

    def __init__(
        self, conduit: TcpConduit, source: Address, connections: Connections, flows: Flows, rule: int
    ) -> None:
        self._conduit = conduit
        self._source = source
        self._connections = connections
        self._flows = flows
        self._rule = rule
        self._flow: Flow | None = None
        # Where the program's datagrams come from, and the answers go.
        self._client: Address | None = None

    async def run(self) -> None:
        conversation = SocksConversation()
        requests: list[SocksRequest] = []
        try:
            if not await within(_SOCKS_LIMIT, self._ask(conversation, requests)) or not requests:
                return
        except MalformedSocks:
            await self._conduit.write(conversation.outgoing)
            return
        if requests[0].command is Command.CONNECT:
            await self._connect(requests[0], conversation.rest)
        else:
            await self._associate()

    async def _ask(self, conversation: SocksConversation, requests: list[SocksRequest]) -> None:
        while data := await self._conduit.read():
            request = conversation.feed(data)
            await self._conduit.write(conversation.outgoing)
            if request is not None:
                requests.append(request)
                return

    async def _connect(self, request: SocksRequest, rest: bytes) -> None:
        head = Connect(self._rule, "tcp", request.host, request.port)
        try:
            stream = await self._connections.reach(head)
        except NotReached as error:
            await self._conduit.write(reply(error.reason))
            return
        try:
            await self._conduit.write(reply(None))
            await stream.write(rest)
        except BaseException:
            stream.abort()
            raise
        target = Target(request.host, request.port)
        await self._connections.join(self._conduit, stream, f"{self._source} → {target}")

    async def _associate(self) -> None:
        """RFC 1928 §7: datagrams to a port of their own, for as long as the connection stays."""
        port = LocalUdp.listening(self._conduit.local.host, 0, self._on_datagram)
        flow = self._flow = self._flows.begin(lambda data: self._answer(port, data))
        head = Connect(self._rule, "udp", flow=flow.number)
        carrying = asyncio.ensure_future(self._flows.carry(flow, head, f"{self._source} → by SOCKS5, udp"))
        staying = asyncio.ensure_future(self._stay())
        try:
            await self._conduit.write(reply(None, port.address))
            await asyncio.wait({carrying, staying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            port.close()
            for task in (carrying, staying):
                task.cancel()
            await asyncio.gather(carrying, staying, return_exceptions=True)

    async def _stay(self) -> None:
        while await self._conduit.read():
            pass

    def _on_datagram(self, data: bytes, source: Address) -> None:
        inner = parse_datagram(data)
        if source.host == self._source.host and inner is not None and self._flow is not None:
            self._client = source
            self._flow.send(inner)

    def _answer(self, port: LocalUdp, data: memoryview) -> None:
        if self._client is not None:
            port.send(format_datagram(data), self._client)


async def _let_in(
    listener: TcpListener,
    connections: Connections,
    take: Callable[[TcpConduit, Address], Awaitable[None]],
) -> None:
    """Take each connection, as many at once as there may be; the others wait in the system's queue."""

    async def one(conduit: TcpConduit, source: Address) -> None:
        try:
            await take(conduit, source)
        except (OSError, CrowlineError):
            return  # told where it happened; the others go on
        finally:
            inside.discard(conduit)
            connections.slots.release()

    inside: set[TcpConduit] = set()
    chores = Chores()
    try:
        while True:
            await connections.slots.acquire()
            try:
                conduit, source = await listener.accept()
            except OSError:
                connections.slots.release()
                await asyncio.sleep(_EXHAUSTED_PAUSE)
            except BaseException:
                connections.slots.release()
                raise
            else:
                inside.add(conduit)
                chores.beside(one(conduit, source))
    finally:
        try:
            await chores.close()
        finally:
            # What was cancelled before it began has closed nothing.
            for conduit in inside:
                conduit.close()
