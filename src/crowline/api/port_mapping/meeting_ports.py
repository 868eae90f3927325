"""What the routers open for the sockets of one meeting, and the candidates that come of it.

A side that waits for the other has its router open ports meanwhile. The side that joins leaves its router
alone for a moment: mostly there is a direct path by then, and nothing needs to be opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from crowline.api.traversal.gatherer import Gatherer
from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.errors import CrowlineError
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate, CandidateType, TcpType
from crowline.link.choice import category_of
from crowline.net.patience import within
from crowline.rendezvous.rate import Bucket

if TYPE_CHECKING:
    from crowline.api.port_mapping.mapper import PortMap, PortMapper

# Seconds after its beginning at which a side that waits asks its router: the code is on the screen by then.
HOST_DELAY = 0.2
# Seconds after both sides are there at which a side that joins does, and at which it looks again later.
JOIN_DELAY, LOOK_AGAIN = 0.5, 5.0
# Seconds that nobody waits longer for what a router says; what comes later counts all the same.
ANSWER_LIMIT = 10.0
# Seconds for closing the ports at the end. What a slow router leaves open ends with its lifetime, if there is
# one.
FAREWELL_LIMIT, PERMANENT_FAREWELL_LIMIT = 1.5, 4.0
# Times that a router's word is told to the other side at once, and each second from then on: one that made up
# addresses would otherwise have this side flood the server and the other side.
MOST_TOLD, TOLD_EACH_SECOND = 32, 0.1


class MappedPorts:
    """`is_wanted`: False leaves every router alone. Without `waits`, this is the side that joins."""

    def __init__(
        self,
        agent: IceAgent,
        gatherer: Gatherer,
        *,
        on_candidate: Callable[[Candidate], None],
        is_wanted: bool,
        waits: bool,
    ) -> None:
        self._agent = agent
        self._gatherer = gatherer
        self._on_candidate = on_candidate
        self._is_wanted = is_wanted
        self._waits = waits
        self._loop = asyncio.get_running_loop()
        self._mapper: PortMapper | None = None
        self._bases: dict[tuple[Address, Transport], None] = {}
        self._ports: dict[tuple[Address, Transport], PortMap] = {}
        # The hosts under which servers see the addresses of this machine, and what we have offered ourselves.
        self._seen: dict[str, str] = {}
        self._offered: set[Address] = set()
        self._budget = Bucket(MOST_TOLD, TOLD_EACH_SECOND, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._loading: asyncio.Task[None] | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._is_over = False

    def begin(self) -> None:
        """The sockets are open; the other side may not be there for long."""
        if self._is_wanted and self._waits:
            self._later(HOST_DELAY, self._open_all)

    def hurry(self) -> None:
        """The other side will be told once, and early: the router is asked now whichever side this is."""
        if not self._waits:
            self._waits = True
            self.begin()

    def meet(self) -> None:
        """The other side is there: until the routers have answered, there is more to come."""
        if not self._is_wanted:
            return
        self._gatherer.expect_more()
        self._limit = self._loop.call_later(ANSWER_LIMIT, self._answered)
        if self._waits:
            self._check_answered()
        else:
            self._later(JOIN_DELAY, self._open_if_needed)

    def heard_of(self, candidate: Candidate) -> None:
        """That candidate leads to a socket of this side: here, or at somebody who saw it."""
        key = _key_of(candidate)
        if key is not None and key not in self._bases:
            self._bases[key] = None
            if self._mapper is not None:
                self._open(key)
        elif candidate.type is CandidateType.SERVER_REFLEXIVE and candidate.address not in self._offered:
            self._saw(candidate.sending_base.host, candidate.address.host)

    def closed(self, base: Address, transport: Transport) -> None:
        """That socket is gone."""
        self._bases.pop((base, transport), None)
        port = self._ports.pop((base, transport), None)
        if port is not None and self._mapper is not None:
            self._mapper.close(port)

    def follow(self) -> None:
        """This machine's network changed."""
        self._seen.clear()
        if self._mapper is not None:
            self._mapper.follow()

    async def give_back(self) -> None:
        """Close the ports, and wait a moment for the routers' word."""
        self._end()
        mapper, self._mapper = self._mapper, None
        if mapper is None:
            return
        is_permanent = any(port.is_permanent for port in self._ports.values())
        is_done = False
        try:
            is_done = await within(
                PERMANENT_FAREWELL_LIMIT if is_permanent else FAREWELL_LIMIT, mapper.aclose()
            )
        finally:
            if not is_done:
                mapper.abandon()

    def close(self) -> None:
        """End at once."""
        self._end()
        if self._mapper is not None:
            self._mapper.abandon()

    # ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._is_over = True
        for waiting in (self._timer, self._limit, self._loading):
            if waiting is not None:
                waiting.cancel()

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        self._timer = self._loop.call_later(delay, call)

    def _saw(self, own: str, host: str) -> None:
        if self._seen.get(own) == host:
            return
        self._seen[own] = host
        for port in self._ports.values():
            if port.is_open and port.local.host == own:
                self._offer(port)

    def _open_if_needed(self) -> None:
        """Now and then, since a direct path may come and go."""
        if not any(category_of(pair) == "direct" for pair in self._agent.valid_pairs()):
            self._open_all()
            return
        self._answered()
        self._later(LOOK_AGAIN, self._open_if_needed)

    def _open_all(self) -> None:
        self._loading = self._loop.create_task(self._load_and_open())

    async def _load_and_open(self) -> None:
        """It takes some ten milliseconds to load what asks routers, for which no packet is to wait."""
        await asyncio.to_thread(import_module, "crowline.api.port_mapping.mapper")
        from crowline.api.port_mapping.mapper import PortMapper

        self._mapper = PortMapper(follows=False)
        for key in self._bases:
            self._open(key)
        self._check_answered()

    def _open(self, key: tuple[Address, Transport]) -> None:
        base, transport = key
        # A public IPv4 address has no translator in front of it, and only a public IPv6 one can be reached.
        is_public = classify(base.host) is AddressClass.OPEN
        if self._mapper is None or is_public is not base.is_ipv6:
            return
        try:
            self._ports[key] = self._mapper.open(
                base.port, transport, host=base.host, on_change=self._on_change
            )
        except CrowlineError:
            # More than a router's client takes.
            return

    def _on_change(self, port: PortMap) -> None:
        if self._is_over:
            return
        if port.is_open:
            self._offer(port)
        self._check_answered()

    def _offer(self, port: PortMap) -> None:
        """Where the router says that it is, and where servers see this machine, if that is elsewhere.

        The latter holds where the router does not know its public address, because a box in front of it
        hands everything on; where it is a whole other translator, it costs some checks in vain.
        """
        seen = self._seen.get(port.local.host, "")
        gateway = Address(port.gateway, 0)
        if port.outside is not None and port.is_public and port.outside != port.local:
            self._tell(port, port.outside, gateway)
        host = port.outside.host if port.outside is not None else ""
        if seen and seen not in (host, port.local.host) and ":" not in seen:
            self._tell(port, Address(seen, port.port), Address(seen, 0))

    def _tell(self, port: PortMap, outside: Address, server: Address) -> None:
        if not self._budget.take(1, self._loop.time()):
            return
        tcp_type = TcpType.PASSIVE if port.transport.is_stream else None
        self._offered.add(outside)
        factory = self._gatherer.factory
        self._on_candidate(factory.server_reflexive(outside, port.local, server, tcp_type))

    def _check_answered(self) -> None:
        if self._mapper is not None and all(port.is_settled for port in self._ports.values()):
            self._answered()

    def _answered(self) -> None:
        if self._limit is not None and not self._is_over:
            self._limit.cancel()
            self._limit = None
            self._gatherer.expected_came()


def _key_of(candidate: Candidate) -> tuple[Address, Transport] | None:
    """The socket that is to be reached from outside; ``None`` for what is none, or is not listened on."""
    base = candidate.sending_base
    is_listening = candidate.tcp_type in (None, TcpType.PASSIVE)
    if candidate.type is not CandidateType.HOST or not is_listening:
        return None
    return base, Transport.TCP if candidate.protocol.is_stream else Transport.UDP
