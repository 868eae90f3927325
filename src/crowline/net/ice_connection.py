"""One ICE agent over the caller's sockets and the caller's signalling, in an asyncio loop."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, NoPath, UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.agent import DEFAULT_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory, TcpType
from crowline.ice.candidate_line import CandidateLine
from crowline.ice.consent import KEEPALIVE_INTERVAL
from crowline.ice.events import IceEvent, IceFailed, PairLost, PairNominated, Restarted
from crowline.ice.line_signals import LineSignals
from crowline.ice.lite import LiteAgent
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES, permits_unicast
from crowline.net.binding import Binding
from crowline.net.ice_relays import IceRelays
from crowline.net.ice_tcp import IceTcp
from crowline.net.lossy import lossy
from crowline.net.pump import Pump
from crowline.net.relayed_address import TurnAccount
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method, is_stun
from crowline.stun.transaction import UDP


class IceConnection:
    """Finds a pair of addresses that works, and carries datagrams on it, with consent (RFC 8445, 6544, 7675).

    - The sockets are the caller's: `send` sends a `Transmit` by the one whose address is its `local`, and
      what arrives is handed to `receive`. They stay open at the end. Where `send` raises `OSError`, that
      counts as loss, and is told by an event. Only `open_tcp`, and TURN over a stream, open sockets of their
      own, and close them.
    - The signalling is the caller's: `tell(line)` takes each line that the other side has to `hear`.
    - `on_data(data)` gets each datagram of the other side. The bytes are good only during the call.

    Of the two sides one is `controlling`: it decides between pairs that work. `ta` are the seconds between
    checks; 50 ms unless both sides are known to take more. `permits` judges every address that the other
    side names before anything is sent there. `find` gives the IP address of an mDNS name, or None; without it
    such candidates wait until they are heard from. `name_of` gives the mDNS name that is told in place of an
    IP address of this machine. `MdnsNames` has both. `relay_only`: the sockets reach TURN servers and nothing
    else, and the other side learns nothing of them (RFC 8445 §19.1). `lite`: this machine has a public
    address, and answers checks without making any (§2.5). Make it in a running event loop.
    """

    def __init__(
        self,
        controlling: bool,
        *,
        send: Callable[[Transmit], object],
        tell: Callable[[str], object],
        on_data: Callable[[memoryview], object],
        on_event: Callable[[IceEvent], object] | None = None,
        ta: float = DEFAULT_TA,
        permits: Callable[[Address], bool] = permits_unicast,
        find: Callable[[str], Awaitable[str | None]] | None = None,
        name_of: Callable[[str], str] | None = None,
        relay_only: bool = False,
        lite: bool = False,
    ) -> None:
        if lite and relay_only:
            raise UsageError("A lite agent is reached at its own addresses.")
        self._agent: IceAgent | LiteAgent = (
            LiteAgent(controlling, entropy=os.urandom, permits=permits)
            if lite
            else IceAgent(controlling, entropy=os.urandom, ta=ta, permits=permits)
        )
        self._signals = LineSignals(self._agent, tell, on_name=self._look_up if find else None)
        self._pump = Pump[Transmit, IceEvent](self._agent, self._transmit, self._on_event)
        self._tcp = IceTcp(self._agent, self._pump, self._take)
        self._loop = asyncio.get_running_loop()
        self._send = lossy(send, self._on_unsent)
        self._relays = IceRelays(send=self._send, on_data=self._take, on_lost=self._relay_lost)
        self._binding = Binding(self._send)
        self._factory = CandidateFactory()
        self._on_data = on_data
        self._tell_event = on_event
        self._permits = permits
        self._find = find
        self._name_of = name_of
        self._lookups: set[asyncio.Task[None]] = set()
        self._relay_only = relay_only
        self._is_lite = lite
        self._unproven = 0  # datagrams from where no check has succeeded
        self._has_gathered = self._closed = False
        self._sockets: list[Address] = []
        self._mapped_by: set[tuple[Address, Address]] = set()  # servers that saw sockets behind a NAT
        self._keeper: asyncio.TimerHandle | None = None
        self._used: ValidPair | None = None
        self._outcome: asyncio.Future[ValidPair] = self._loop.create_future()
        self._signals.begin()

    @property
    def selected(self) -> ValidPair | None:
        """The pair that data goes by."""
        return self._agent.selected

    @property
    def counters(self) -> Counter[str]:
        """What was dropped, by reason."""
        own = Counter({"unproven": self._unproven})
        return own + Counter(self._agent.counters) + self._signals.counters

    def add_socket(self, local: Address) -> None:
        """Use the socket with that address. Raises `UsageError` for one where nobody can be reached, a
        wildcard for example.
        """
        if not permits_unicast(local):
            raise UsageError(f"Nobody can send to {local}; name the address of the interface.")
        if local in self._sockets:
            return
        self._sockets.append(local)
        if not self._relay_only:
            self._offer_host(local)

    async def remove_socket(self, local: Address) -> None:
        """Use that socket no more, nor what was found by it; at most a second for its relayed addresses.

        Call `restart` after it, or the other side goes on trying to reach it.
        """
        if local not in self._sockets:
            raise UsageError(f"{local} is no socket of this connection.")
        self._sockets.remove(local)
        self._mapped_by = {each for each in self._mapped_by if each[1] != local}
        self._agent.remove_local_candidate(local, self._pump.now)
        self._pump.flush()
        await self._relays.leave(local)

    def open_tcp(self, address: Address) -> Address:
        """Use TCP as well (RFC 6544): listen at an address of this machine, port 0 for any, and dial from it.

        The port, whose address is given, and its connections are this object's own. Add the sockets before,
        and `gather` after it, which asks STUN servers over TCP too. What UDP reaches stays better. Raises
        `LocalProblem` where the port cannot be had.
        """
        if self._relay_only:
            raise UsageError("TCP would show the other side where this one is.")
        if not permits_unicast(Address(address.host, address.port or 1)):
            raise UsageError(f"Nobody can connect to {address.host}; name the address of the interface.")
        base = self._tcp.bind(address)
        for tcp_type in (TcpType.PASSIVE,) if self._is_lite else TcpType:
            self._offer_host(base, tcp_type)
        return base

    def close_tcp(self, base: Address) -> None:
        """Use that port no more, nor its connections. Call `restart` after it, as after `remove_socket`."""
        self._tcp.unbind(base)
        self._agent.remove_local_candidate(base, self._pump.now, transport=Transport.TCP)
        self._pump.flush()

    async def gather(
        self,
        stun: Iterable[Address] = (),
        turn: Iterable[TurnAccount] = (),
        *,
        timeout: float = UDP.patience,
    ) -> None:
        """Ask servers, by every socket of their family, what else leads here; each answer is told at once.

        Call it after the sockets are added, and again after `restart`: it tells the end of candidates when
        the last server has answered, or has not in `timeout` seconds, 39.5 as RFC 8489 §6.2.1 has it. Checks
        do not wait for that. TURN over TCP or TLS goes by a connection of its own for each server, through
        the proxy that the environment names.
        """
        self._has_gathered = False
        stun, turn = list(stun), list(turn)
        if self._is_lite and (stun or turn):
            raise UsageError("A lite agent is reached at its own addresses.")
        servers = [each for each in turn if each.transport.is_stream or self._of_family(each.address)]
        asked = [] if self._relay_only else stun
        questions = [self._ask(server, base) for server in asked for base in self._of_family(server)]
        questions += [self._ask_by_tcp(server, base) for server in asked for base in self._tcp_of(server)]
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*questions, *(self._allocate(server) for server in servers))
        if not self._closed:
            self._end()

    def restart(self) -> bool:
        """Look for a pair anew, after a change of the network for example; data goes on meanwhile.

        Add and remove sockets before it, and `gather` after it (RFC 8445 §9). False when there is nothing to
        begin anew: the other side is not known, or has not answered the last restart yet.
        """
        began = self._agent.restart(self._pump.now)
        self._pump.flush()
        return began

    def hear(self, line: str) -> None:
        """Take a line of the other side; one that cannot be read is counted. New credentials are its restart,
        which this side follows by itself.
        """
        candidate = self._signals.hear(line, self._pump.now)
        if candidate is not None and candidate.protocol is Transport.UDP:
            self._permit(candidate.address)
        self._pump.flush()

    async def connected(self) -> ValidPair:
        """The pair that both sides agreed on. Raises `NoPath` when none works, with the reason."""
        return await asyncio.shield(self._outcome)

    def send(self, data: Buffer) -> None:
        """One datagram to the other side; it may get lost like any other, over TCP too where much waits.

        Raises `NoPath` without a pair.
        """
        pair = self._agent.selected
        if pair is None:
            raise NoPath
        self._transmit(pair.way.transmit(data))

    def receive(self, data: Buffer, source: Address, local: Address) -> None:
        """Take a datagram that arrived from `source` at the socket `local`."""
        # A STUN server may be a TURN server too: what answers a question is told by its transaction.
        if self._binding.receive(data, source, local):
            return
        if not self._relays.receive(data, source, local):
            self._take(data, source, local)

    async def close(self) -> None:
        """End the checks and the TCP connections, and give relayed addresses back; the sockets stay open.

        They are read as before while this waits, for at most a second.
        """
        self._closed = True
        self._agent.close()
        self._pump.close()
        self._binding.close()
        if self._keeper is not None:
            self._keeper.cancel()
        self._outcome.cancel()
        for lookup in self._lookups:
            lookup.cancel()
        self._tcp.close()
        await self._relays.close()

    def _of_family(self, server: Address) -> list[Address]:
        """The sockets that may reach `server`."""
        return [base for base in self._sockets if _may_reach(base, server)]

    def _tcp_of(self, server: Address) -> list[Address]:
        """The TCP ports that may reach it."""
        return [base for base in self._tcp.bases if _may_reach(base, server)]

    async def _ask(self, server: Address, base: Address) -> None:
        try:
            mapped = await self._binding.ask(server, base)
        except CrowlineError:
            return
        if mapped.address != base and base in self._sockets:
            self._mapped_by.add((server, base))
            reflexive = self._factory.server_reflexive(mapped.address, base, server)
            self._offer(reflexive, private=self._name_of is not None)
            if self._keeper is None:
                self._keep_mappings()

    async def _ask_by_tcp(self, server: Address, base: Address) -> None:
        mapped = await self._tcp.ask(server, base)
        if mapped is not None and mapped != base:
            # Whoever is behind a NAT is met half-way there.
            meeting = self._factory.server_reflexive(mapped, base, server, TcpType.SIMULTANEOUS_OPEN)
            self._offer(meeting, private=self._name_of is not None)

    def _keep_mappings(self) -> None:
        """Until a pair is agreed on, what the servers saw must not lapse (RFC 8445 §5.1.1.4)."""
        self._keeper = self._loop.call_later(KEEPALIVE_INTERVAL, self._keep_mappings)
        if self._agent.selected is not None:
            return
        for server, base in self._mapped_by:
            keepalive = Message(Method.BINDING, MessageClass.INDICATION, os.urandom(TRANSACTION_ID_SIZE))
            self._send(Transmit(keepalive.encode(), server, base))

    async def _allocate(self, server: TurnAccount) -> None:
        base = None if server.transport.is_stream else self._of_family(server.address)[0]
        allocated = await self._relays.allocate(server, base)
        if allocated is not None:
            relayed = self._factory.relayed(allocated.relayed, allocated.mapped, server.address)
            self._offer(relayed, private=self._relay_only or self._name_of is not None)

    def _relay_lost(self, relayed: Address) -> None:
        """What works by others goes on."""
        self._agent.remove_local_candidate(relayed, self._pump.now)
        self._loop.call_soon(self._pump.flush)

    def _offer_host(self, base: Address, tcp_type: TcpType | None = None) -> None:
        name = self._name_of(base.host) if self._name_of is not None else ""
        self._offer(self._factory.host(base, tcp_type), name=name)

    def _offer(self, candidate: Candidate, *, private: bool = False, name: str = "") -> None:
        self._signals.offer(candidate, self._pump.now, private=private, name=name)
        self._pump.flush()

    def _end(self) -> None:
        self._has_gathered = True
        self._signals.end(self._pump.now)
        self._pump.flush()

    def _look_up(self, line: CandidateLine) -> None:
        if len(self._lookups) < MAX_REMOTE_CANDIDATES and not self._closed:
            lookup = self._loop.create_task(self._hear_name(line))
            self._lookups.add(lookup)
            lookup.add_done_callback(self._lookups.discard)

    async def _hear_name(self, line: CandidateLine) -> None:
        assert self._find is not None
        try:
            host = await self._find(line.host)
        except OSError:
            return
        if host is not None:
            # No relay is told of it: what has a name instead of an address is on this network.
            self._signals.found(line, host, self._pump.now)
            self._pump.flush()

    def _permit(self, peer: Address) -> None:
        """Let a host that the other side named reach our relayed addresses."""
        if self._permits(peer):
            self._relays.permit(peer)

    def _transmit(self, transmit: Transmit) -> None:
        if transmit.transport.is_stream:
            self._tcp.send(transmit)
        elif not self._relays.send(transmit) and transmit.local in self._sockets:
            self._send(transmit)

    def _on_unsent(self, transmit: Transmit, problem: SendProblem) -> None:
        if transmit.local is not None:
            # Not now: it may be the agent itself that is sending.
            self._loop.call_soon(self._tell_unsent, transmit.local, transmit.destination, problem)

    def _tell_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        self._agent.send_failed(base, destination, problem)
        self._pump.flush()

    def _take(
        self, data: Buffer, source: Address, local: Address, transport: Transport = Transport.UDP
    ) -> None:
        if is_stun(data):
            self._agent.receive(data, source, self._pump.now, local, transport)
            self._pump.flush()
        elif self._agent.is_valid(local, source, transport):
            self._on_data(memoryview(data))
        else:
            self._unproven += 1

    def _on_event(self, event: IceEvent) -> None:
        self._tcp.on_event(event)
        if isinstance(event, PairNominated):
            self._use(event.pair)
        elif isinstance(event, PairLost) and event.pair is self._used:
            self._used = None
        elif isinstance(event, Restarted):
            self._begin_anew(event)
        elif isinstance(event, IceFailed) and not self._outcome.done():
            self._outcome.set_exception(NoPath(f"There is no path to the other side: {event.reason.value}."))
            self._outcome.exception()  # nobody has to wait for it
        if self._tell_event is not None:
            self._tell_event(event)

    def _begin_anew(self, event: Restarted) -> None:
        self._relays.begin_anew()
        self._used = None  # the agent keeps the old pair until some time after the new one is agreed on
        if self._outcome.done() and self._agent.selected is None:
            self._outcome = self._loop.create_future()
        self._signals.begin_anew()
        if event.by_peer and self._has_gathered:
            self._end()

    def _use(self, pair: ValidPair) -> None:
        if self._used is not None:
            self._agent.release(self._used)
        self._used = pair
        self._agent.use(pair, self._pump.now)
        self._relays.bind(pair.base, pair.remote.address)
        if not self._outcome.done():
            self._outcome.set_result(pair)


def _may_reach(base: Address, server: Address) -> bool:
    """In one family; from loopback nothing but loopback is reached."""
    if base.is_ipv6 != server.is_ipv6:
        return False
    return _is_loopback(server) or not _is_loopback(base)


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address.host).is_loopback
