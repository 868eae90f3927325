"""One ICE agent over the caller's sockets and the caller's signalling, in an asyncio loop."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from msgspec.structs import replace

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, NoPath, UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.send_problem import SendProblem
from crowline.ice.agent import DEFAULT_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.ice.candidate_line import CandidateLine
from crowline.ice.consent import KEEPALIVE_INTERVAL
from crowline.ice.events import IceEvent, IceFailed, PairLost, PairNominated, Restarted
from crowline.ice.line_signals import LineSignals
from crowline.ice.lite import LiteAgent
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES, permits_unicast
from crowline.net.binding import Binding
from crowline.net.lossy import lossy
from crowline.net.pump import Pump
from crowline.net.relayed_address import RelayedAddress, TurnAccount
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method, is_stun
from crowline.stun.transaction import UDP


class IceConnection:
    """Finds a pair of addresses that works, and carries datagrams on it, with consent (RFC 8445, RFC 7675).

    - The sockets are the caller's: `send` sends a `Transmit` by the one whose address is its `local`, and
      what arrives is handed to `receive`. They stay open at the end. Where `send` raises `OSError`, that
      counts as loss, and is told by an event.
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
        self._loop = asyncio.get_running_loop()
        self._send = lossy(send, self._on_unsent)
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
        self._has_gathered = False
        self._sockets: list[Address] = []
        self._mapped_by: set[tuple[Address, Address]] = set()  # servers that saw sockets behind a NAT
        self._keeper: asyncio.TimerHandle | None = None
        self._relays: dict[tuple[Address, Address], RelayedAddress] = {}  # by server and socket
        self._by_relayed: dict[Address, RelayedAddress] = {}
        self._used: ValidPair | None = None
        self._peers: dict[str, Address] = {}
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
        self._sockets.append(local)
        if not self._relay_only:
            name = self._name_of(local.host) if self._name_of is not None else ""
            self._offer(self._factory.host(local), name=name)

    async def remove_socket(self, local: Address) -> None:
        """Use that socket no more, nor what was found by it; at most a second for its relayed addresses.

        Call `restart` after it, or the other side goes on trying to reach it.
        """
        self._sockets.remove(local)
        self._mapped_by = {each for each in self._mapped_by if each[1] != local}
        self._agent.remove_local_candidate(local, self._pump.now)
        relays = [relay for way, relay in self._relays.items() if way[1] == local]
        for relay in relays:
            self._withdraw(relay)
        self._pump.flush()
        await asyncio.gather(*(relay.close() for relay in relays))

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
        do not wait for that. TURN is spoken over UDP here.
        """
        self._has_gathered = False
        stun, turn = list(stun), list(turn)
        if self._is_lite and (stun or turn):
            raise UsageError("A lite agent is reached at its own addresses.")
        servers = [server for server in turn if self._of_family(server.address)]
        if any(server.transport.is_stream for server in servers):
            raise UsageError("A connection over datagram sockets speaks to TURN servers by UDP.")
        asked = [] if self._relay_only else stun
        questions = [self._ask(server, base) for server in asked for base in self._of_family(server)]
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*questions, *(self._allocate(server) for server in servers))
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
        if candidate is not None:
            self._permit(candidate.address)
        self._pump.flush()

    async def connected(self) -> ValidPair:
        """The pair that both sides agreed on. Raises `NoPath` when none works, with the reason."""
        return await asyncio.shield(self._outcome)

    def send(self, data: Buffer) -> None:
        """One datagram to the other side; it may get lost like any other. Raises `NoPath` without a pair."""
        pair = self._agent.selected
        if pair is None:
            raise NoPath
        self._transmit(Transmit(data, pair.remote.address, pair.base))

    def receive(self, data: Buffer, source: Address, local: Address) -> None:
        """Take a datagram that arrived from `source` at the socket `local`."""
        # A STUN server may be a TURN server too: what answers a question is told by its transaction.
        if self._binding.receive(data, source, local):
            return
        relay = self._relays.get((source, local))
        if relay is None or not relay.receive(data, source):
            self._take(data, source, local)

    async def close(self) -> None:
        """End the checks and give relayed addresses back; the sockets stay open.

        They are read as before while this waits, for at most a second.
        """
        self._agent.close()
        self._pump.close()
        self._binding.close()
        if self._keeper is not None:
            self._keeper.cancel()
        self._outcome.cancel()
        for lookup in self._lookups:
            lookup.cancel()
        await asyncio.gather(*(relay.close() for relay in self._relays.values()))

    def _of_family(self, server: Address) -> list[Address]:
        """The sockets that may reach `server`: loopback ones reach loopback only."""
        family = [base for base in self._sockets if base.is_ipv6 == server.is_ipv6]
        if _is_loopback(server):
            return family
        return [base for base in family if not _is_loopback(base)]

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

    def _keep_mappings(self) -> None:
        """Until a pair is agreed on, what the servers saw must not lapse (RFC 8445 §5.1.1.4)."""
        self._keeper = self._loop.call_later(KEEPALIVE_INTERVAL, self._keep_mappings)
        if self._agent.selected is not None:
            return
        for server, base in self._mapped_by:
            keepalive = Message(Method.BINDING, MessageClass.INDICATION, os.urandom(TRANSACTION_ID_SIZE))
            self._send(Transmit(keepalive.encode(), server, base))

    async def _allocate(self, server: TurnAccount) -> None:
        base = self._of_family(server.address)[0]
        if (server.address, base) in self._relays:
            return
        relay = self._relays[server.address, base] = RelayedAddress(
            server,
            send=lambda transmit: self._send(replace(transmit, local=base)),
            on_data=lambda data, peer: self._take_relayed(relay, data, peer),
            on_lost=lambda reason: self._withdraw(relay),
        )
        for peer in self._peers.values():
            relay.permit_soon(peer)
        try:
            allocated = await relay.allocate()
        except CrowlineError:
            self._withdraw(relay)
            return
        if relay not in self._relays.values():
            return
        self._by_relayed[allocated.relayed] = relay
        relayed = self._factory.relayed(allocated.relayed, allocated.mapped, server.address)
        self._offer(relayed, private=self._relay_only)

    def _withdraw(self, relay: RelayedAddress) -> None:
        """There is no such relayed address (any more); what works by others goes on."""
        self._relays = {way: each for way, each in self._relays.items() if each is not relay}
        if relay.address is not None and self._by_relayed.pop(relay.address, None) is not None:
            self._agent.remove_local_candidate(relay.address, self._pump.now)
            self._loop.call_soon(self._pump.flush)

    def _offer(self, candidate: Candidate, *, private: bool = False, name: str = "") -> None:
        self._signals.offer(candidate, self._pump.now, private=private, name=name)
        self._pump.flush()

    def _end(self) -> None:
        self._has_gathered = True
        self._signals.end(self._pump.now)
        self._pump.flush()

    def _look_up(self, line: CandidateLine) -> None:
        if len(self._lookups) < MAX_REMOTE_CANDIDATES:
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
        """Let a host that the other side named reach our relayed addresses, these and those still to come."""
        if peer.host in self._peers or len(self._peers) >= MAX_REMOTE_CANDIDATES or not self._permits(peer):
            return
        self._peers[peer.host] = peer
        for relay in self._relays.values():
            relay.permit_soon(peer)

    def _transmit(self, transmit: Transmit) -> None:
        relay = self._by_relayed.get(transmit.local) if transmit.local is not None else None
        if relay is None:
            self._send(transmit)
        else:
            relay.send(transmit.data, transmit.destination)

    def _on_unsent(self, transmit: Transmit, problem: SendProblem) -> None:
        if transmit.local is not None:
            # Not now: it may be the agent itself that is sending.
            self._loop.call_soon(self._tell_unsent, transmit.local, transmit.destination, problem)

    def _tell_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        self._agent.send_failed(base, destination, problem)
        self._pump.flush()

    def _take_relayed(self, relay: RelayedAddress, data: memoryview, peer: Address) -> None:
        if relay.address is not None:
            self._take(data, peer, relay.address)

    def _take(self, data: Buffer, source: Address, local: Address) -> None:
        if is_stun(data):
            self._agent.receive(data, source, self._pump.now, local)
            self._pump.flush()
        elif self._agent.is_valid(local, source):
            self._on_data(memoryview(data))
        else:
            self._unproven += 1

    def _on_event(self, event: IceEvent) -> None:
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
        relay = self._by_relayed.get(pair.base)
        if relay is not None:
            relay.bind(pair.remote.address)
        if not self._outcome.done():
            self._outcome.set_result(pair)


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address.host).is_loopback
