"""How a translator treats TCP, asked from STUN servers by connections from fresh ports."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from crowline.base.addresses import Address
from crowline.base.nat64 import Nat64Prefix
from crowline.net.fresh_sockets import fresh_ports
from crowline.net.tcp_hairpin import tcp_hairpin
from crowline.net.tcp_mapping import MappingEvent, TcpMapping
from crowline.net.tcp_sockets import open_shared
from crowline.stun.client import Mapped
from crowline.stun.nat_evidence import second_address
from crowline.stun.nat_findings import TcpFindings
from crowline.stun.tcp_evidence import TcpEvidence

SAMPLES = 6  # ports that connect: of six random ones all keep the parity once in 64 times
SPACING = 0.012  # seconds between them, as for UDP: their order is that of their SYNs
# Seconds for the samples, and for the other addresses: a SYN that was lost is not waited for.
PATIENCE = 0.8
# Times of an answer, and at least seconds, after which nothing comes back from a translator: it is nearer.
PATIENCE_RATIO, LEAST_PATIENCE = 2.0, 0.3
_TRIES = 4
_LAST_PORT = 65535


async def discover_tcp(
    server: Address, further: Sequence[Address] = (), *, own: str, prefix: Nat64Prefix | None = None
) -> TcpFindings:
    """Ask `server` from fresh ports of the host `own`, and all its addresses and `further` servers from the
    first of them, in two seconds at most. Nothing is raised: silence is a result.
    """
    with ExitStack() as stack:
        ports = _reserve(own, stack)
        talk = _Talk(TcpEvidence(server, prefix), stack)
        for number, local in enumerate(ports):
            talk.ask(local, server, number * SPACING)
        await talk.end()
        if ports and talk.is_answered:
            other = second_address(server, talk.named, prefix)
            for each in dict.fromkeys([*_addresses(server, other), *further]):
                talk.ask(ports[0], each)
            await asyncio.gather(talk.end(), talk.try_hairpin())
        return talk.evidence.findings()


def _addresses(server: Address, other: Address | None) -> list[Address]:
    """Where else that server may take connections. Ours do so at the next port, whatever else they have."""
    found = [Address(server.host, server.port + 1)] if server.port < _LAST_PORT else []
    return found if other is None else [*found, Address(other.host, server.port), other]


def _reserve(own: str, stack: ExitStack) -> list[Address]:
    """Ports that stay ours, and are shared with the connections that leave from them."""
    reserved: list[Address] = []
    for port in fresh_ports(SAMPLES * _TRIES):
        try:
            sock: socket.socket = open_shared(Address(own, port))
        except OSError:
            continue
        stack.callback(sock.close)
        reserved.append(Address(own, port))
        if len(reserved) == SAMPLES:
            break
    return reserved


class _Talk:
    """Questions that are open, and what was said."""

    def __init__(self, evidence: TcpEvidence, stack: ExitStack) -> None:
        self.evidence = evidence
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        self._open: set[asyncio.Future[None]] = set()
        # Second addresses that the server named.
        self.named: set[Address] = set()
        self.is_answered = False
        # The longest time from a SYN to an answer: two round trips to the server.
        self._slowest = 0.0

    def ask(self, local: Address, server: Address, delay: float = 0.0) -> None:
        """Connect, after so many seconds, and ask. The connection stays: its end may close the mapping."""
        answered: asyncio.Future[None] = self._loop.create_future()
        self._open.add(answered)

        def begin() -> None:
            started = self._loop.time()

            def heard(event: MappingEvent) -> None:
                if isinstance(event, Mapped):
                    self._heard(local, event, started)
                if not answered.done():
                    answered.set_result(None)

            self._stack.callback(TcpMapping(local, server, heard, entropy=os.urandom).close)

        timer = self._loop.call_later(delay, begin)
        self._stack.callback(timer.cancel)

    async def try_hairpin(self) -> None:
        """Beside the other questions, by ports of its own."""
        ends = self.evidence.hairpin_ends()
        if ends is not None:
            patience = min(PATIENCE, max(LEAST_PATIENCE, PATIENCE_RATIO * self._slowest))
            self.evidence.hairpin = await tcp_hairpin(*ends, patience)
            self.evidence.has_tried_hairpin = True

    def _heard(self, local: Address, event: Mapped, started: float) -> None:
        self.is_answered |= self.evidence.seen(local, event.server, event.address, started)
        self._slowest = max(self._slowest, self._loop.time() - started)
        if event.other is not None and event.server == self.evidence.server:
            self.named.add(event.other)

    async def end(self) -> None:
        """Wait until all have answered or failed, or for as long as is worth it."""
        if self._open:
            await asyncio.wait(self._open, timeout=PATIENCE)
        self._open.clear()
