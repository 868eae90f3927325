"""TCP simultaneous opens through nftables: two hosts behind NATs, with nothing but each other's addresses."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from queue import Queue

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.lab.namespaces import Internet
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.net.tcp_sockets import name_of
from crowline.punch.syn_budget import SynBudget
from crowline.stun.client import Mapped
from crowline.stun.responder import bare_answer

Factory = Callable[..., Internet]

PATIENCE = 30.0  # seconds for something that must happen
STUN_PORT = 3478
SKEW = 0.1  # seconds: five times the way from one host to the other


@dataclass
class Signals:
    """What one side tells the other: its address, and then that it has all it wants."""

    there: Queue[Address] = field(default_factory=Queue)
    done: Queue[bool] = field(default_factory=Queue)


class Puncher:
    """One side, on its host."""

    def __init__(self, host: Address, own: Signals, other: Signals, skew: float) -> None:
        self._host, self._own, self._other, self._skew = host, own, other, skew
        self._budget = SynBudget(10)
        self._mapped: asyncio.Queue[Address] = asyncio.Queue()
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def run(self, server: Address) -> tuple[Address, Address, bytes]:
        """The base, the address that a NAT gives it, and what the other side said."""
        handlers = TcpHandlers(
            on_packet=self._packet,
            on_opened=self._opened,
            on_lost=self._lost,
            on_mapping=lambda event: (
                self._mapped.put_nowait(event.address) if isinstance(event, Mapped) else 0
            ),
            on_drained=lambda: None,
        )
        self._pairs = TcpPairs(handlers, self._budget, entropy=os.urandom)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._meet(server)
        finally:
            self._pairs.close()

    async def _meet(self, server: Address) -> tuple[Address, Address, bytes]:
        base = self._pairs.bind(self._host)
        self._pairs.ask(server)
        mapped = await self._mapped.get()
        self._own.there.put(mapped)
        remote = await asyncio.to_thread(self._other.there.get, timeout=PATIENCE)
        self._budget.prove_host(remote.host)
        await asyncio.sleep(self._skew)
        self._pairs.want(base, remote, simultaneous=True)
        heard = await self._heard.get()
        self._own.done.put(True)
        await asyncio.to_thread(self._other.done.get, timeout=PATIENCE)
        return base, mapped, heard

    def _opened(self, local: Address, remote: Address) -> None:
        greeting = f"hello from {local.host}".encode()
        self._pairs.send(Transmit(greeting, remote, local, transport=Transport.TCP))

    def _packet(self, data: bytes, source: Address, local: Address) -> None:
        self._pairs.authenticated(local, source)
        self._heard.put_nowait(data)

    def _lost(self, local: Address, remote: Address, reason: str) -> None:
        """One in a hundred may need a second plan."""
        self._pairs.want(local, remote, simultaneous=True)


def tell_addresses(listener: socket.socket, stack: ExitStack) -> None:
    """Be a STUN server for two; the connections stay."""
    for _ in range(2):
        sock, name = listener.accept()
        stack.enter_context(closing(sock))
        sock.settimeout(PATIENCE)
        sock.sendall(bare_answer(sock.recv(100)[8:20], name_of(name)))


@pytest.mark.parametrize("skew", [0.0, SKEW])
@pytest.mark.parametrize("sites", [("home", "home"), ("home", "rst-sender"), ("rst-sender", "rst-sender")])
def test_two_hosts_behind_nats_punch_tcp(internet: Factory, sites: tuple[str, str], skew: float) -> None:
    """Each learns its address from the port that it then punches from, and a packet goes each way."""
    net = internet("kernel")
    server = net.server()
    hosts = [net.site(site).hosts[0] for site in sites]
    signals = Signals(), Signals()
    punchers = [
        Puncher(Address(host.addresses[0], 0), signals[index], signals[1 - index], skew * index)
        for index, host in enumerate(hosts)
    ]
    with ExitStack() as stack:
        listener = stack.enter_context(closing(net.socket(server, socket.SOCK_STREAM, port=STUN_PORT)))
        listener.listen()
        listener.settimeout(PATIENCE)
        asked = name_of(listener.getsockname())
        threads = stack.enter_context(ThreadPoolExecutor(3))
        stun = threads.submit(tell_addresses, listener, stack)
        runs = [
            threads.submit(net.inside, host, lambda puncher=puncher: asyncio.run(puncher.run(asked)))
            for host, puncher in zip(hosts, punchers, strict=True)
        ]
        stun.result(timeout=3 * PATIENCE)
        results = [run.result(timeout=3 * PATIENCE) for run in runs]
    for host, (base, mapped, heard), (other, _, _) in zip(hosts, results, results[::-1], strict=True):
        assert mapped.host != base.host == host.addresses[0]
        assert heard == f"hello from {other.host}".encode()
