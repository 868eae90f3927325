"""How two sides find pairs that work: candidates of both, and the checks between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Protocol

from crowline.api.gatherer import Gatherer
from crowline.api.options import Options
from crowline.api.race import RelayServer
from crowline.api.relay import Login
from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.events import IceEvent, PairLost, PairValid, SendRefused
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.net.interfaces import local_addresses
from crowline.net.pump import Pump
from crowline.net.resolver import resolve
from crowline.net.stream import StreamTarget
from crowline.rendezvous.candidates import (
    REFRESH_INTERVAL,
    OwnCandidates,
    from_signal,
    may_be_checked,
    to_signal,
)
from crowline.rendezvous.signals import CandidateSignal, Description, EndOfCandidates, Signal
from crowline.rendezvous.wire import ServerAddress, TurnGrant
from crowline.stun.shapes import FAMILY_IPV4, FAMILY_IPV6


class Owner(Protocol):
    """What a traversal tells whoever began it."""

    def on_pair_valid(self, pair: ValidPair) -> None: ...

    def on_pair_lost(self, pair: ValidPair, reason: str) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        """A run of datagrams that are not STUN."""

    def on_drained(self) -> None:
        """A burst of datagrams is over."""

    def on_warning(self, sentence: str) -> None:
        """Something that a person should know."""


class Traversal:
    """The ICE agent with its sockets. `signal` takes what the other side's traversal must hear.

    `hub_host` is the hub's address as this side reached it, `loopback` whether that is this machine.
    """

    def __init__(
        self,
        owner: Owner,
        options: Options,
        *,
        controlling: bool,
        hub_host: str,
        loopback: bool,
        signal: Callable[[Signal], None],
    ) -> None:
        self._owner = owner
        self._options = options
        self._hub_host = hub_host
        self._loopback = loopback
        self._signal = signal
        self._addresses = local_addresses(loopback=loopback)
        # Relayed addresses of the other side where nothing may go through a server, not even a check.
        self._avoided: set[Address] = set()
        self._agent = IceAgent(
            controlling, entropy=os.urandom, ta=MIN_TA, renominate=True, permits=self._may_check
        )
        self._pump = Pump[Transmit, IceEvent](self._agent, self.send, self._on_event)
        self._own = OwnCandidates()
        self._has_warned = False
        self._gatherer = Gatherer(self, self._addresses, offer_host=not options.relay_only)

    # This side's candidates -------------------------------------------------------------------------

    def begin(self, fingerprint: bytes) -> None:
        """Describe this side and offer its sockets; what else leads to them follows as it is found."""
        self._signal(
            Description(
                ufrag=self._agent.ufrag,
                pwd=self._agent.pwd,
                fingerprint=fingerprint.hex(),
                ta_ms=round(MIN_TA * 1000),
                renominate=True,
            )
        )
        self._gatherer.offer_hosts()

    async def query_stun(self, servers: Iterable[ServerAddress]) -> None:
        """Have the servers say under which addresses they see the sockets, again and again until `meet`."""
        addresses = await self._resolve(servers)
        while True:
            self._gatherer.query_stun(addresses)
            await asyncio.sleep(REFRESH_INTERVAL)
            if self._own.met:
                return

    def meet(self) -> None:
        """The other side is there: offer what has been found, and what will be."""
        for candidate in self._own.meet():
            self._offer(candidate)

    async def allocate(self, grant: TurnGrant | None) -> None:
        """The last questions: relayed addresses, where there is a grant for them."""
        if grant is not None:
            login = Login(grant.username, Secret(grant.password.encode()))
            hosts = dict.fromkeys(each.host for each in grant.servers)
            await asyncio.gather(
                *(self._allocate_at([s for s in grant.servers if s.host == host], login) for host in hosts)
            )
        self._gatherer.asked_all()

    # The other side's -------------------------------------------------------------------------------

    def set_remote(self, description: Description) -> bool:
        """Begin to check; False when the other side's credentials are none (RFC 8445 §5.3)."""
        try:
            self._agent.set_remote(description.ufrag, description.pwd, self._pump.now)
        except UsageError:
            return False
        self._pump.flush()
        return True

    def add_remote(self, signal: CandidateSignal) -> None:
        candidate = from_signal(signal)
        if candidate is None or not self._is_wanted(candidate):
            return
        if self._options.direct_only and candidate.type is CandidateType.RELAYED:
            if len(self._avoided) < MAX_REMOTE_CANDIDATES:
                self._avoided.add(candidate.address)
            return
        if self._may_check(candidate.address):
            self._gatherer.permit(candidate.address)
        self._agent.add_remote_candidate(candidate, self._pump.now)
        self._pump.flush()

    def end_remote(self) -> None:
        self._agent.end_of_remote_candidates(self._pump.now)
        self._pump.flush()

    # Pairs ------------------------------------------------------------------------------------------

    def valid_pairs(self) -> list[ValidPair]:
        """The pairs that work and are allowed, best first."""
        return [pair for pair in self._agent.valid_pairs() if self._allows(pair)]

    def use(self, pair: ValidPair) -> None:
        """Keep consent for a pair that carries data, and make its packets cheap."""
        self._agent.use(pair, self._pump.now)
        self._gatherer.bind(pair.base, pair.remote.address)
        self._pump.flush()

    def release(self, pair: ValidPair) -> None:
        self._agent.release(pair)

    def send(self, transmit: Transmit) -> None:
        """Send by the base that `transmit.local` names."""
        self._gatherer.send(transmit)

    def transport_of(self, base: Address) -> Transport:
        """How packets of that base leave this machine."""
        return self._gatherer.transport_of(base)

    async def give_back(self) -> None:
        """Stop checking, and give back what servers hold for us; `close` follows."""
        self._pump.close()
        self._agent.close()
        await self._gatherer.give_back()

    def close(self) -> None:
        """Close every socket."""
        self._pump.close()
        self._agent.close()
        self._gatherer.close()

    # What the gatherer says -------------------------------------------------------------------------

    def on_candidate(self, candidate: Candidate) -> None:
        if not self._is_wanted(candidate):
            return
        for each in self._own.add(candidate):
            self._offer(each)

    def on_gathered(self) -> None:
        self._signal(EndOfCandidates())
        self._agent.end_of_local_candidates(self._pump.now)
        self._pump.flush()

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None:
        self._agent.receive(data, source, self._pump.now, local)
        self._pump.flush()

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        self._owner.on_packets(data, segment_size, source, local)

    def on_drained(self) -> None:
        self._owner.on_drained()

    def on_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        self._agent.send_failed(base, destination, problem)
        self._pump.flush()

    # ------------------------------------------------------------------------------------------------

    def _on_event(self, event: IceEvent) -> None:
        if isinstance(event, PairValid) and self._allows(event.pair):
            self._owner.on_pair_valid(event.pair)
        elif isinstance(event, PairLost):
            self._gatherer.verify(event.pair.base)
            self._owner.on_pair_lost(event.pair, event.reason.value)
        elif isinstance(event, SendRefused):
            self._on_send_refused(event)

    def _on_send_refused(self, event: SendRefused) -> None:
        """A candidate that no way leads to is nothing unusual; a firewall on this very machine is."""
        if event.problem is SendProblem.FORBIDDEN and not self._has_warned:
            self._has_warned = True
            words = event.problem.value
            self._owner.on_warning(f"Some UDP packets from {event.base.host} are not let out: {words}.")

    def _offer(self, candidate: Candidate) -> None:
        self._agent.add_local_candidate(candidate, self._pump.now)
        self._signal(to_signal(candidate, private=self._options.relay_only))
        self._pump.flush()

    async def _allocate_at(self, services: list[ServerAddress], login: Login) -> None:
        """At one server, whose UDP addresses and streams lead to the same relays.

        With addresses of both families each may be asked for its own; otherwise one is asked for both.
        """
        streams = tuple(
            StreamTarget(each.host or self._hub_host, each.port, Transport(each.transport), each.fingerprint)
            for each in services
            if each.transport != "udp"
        )
        found = await self._resolve(services)
        by_family = [tuple(each for each in found if each.is_ipv6 is wanted) for wanted in (False, True)]
        if all(by_family):
            self._gatherer.allocate(RelayServer(by_family[0], streams, (FAMILY_IPV4,)), login)
            self._gatherer.allocate(RelayServer(by_family[1], (), (FAMILY_IPV6,)), login)
        else:
            self._gatherer.allocate(RelayServer(tuple(found), streams), login)

    async def _resolve(self, servers: Iterable[ServerAddress]) -> list[Address]:
        names = [(each.host, each.port) for each in servers if each.transport == "udp"]
        return await resolve(names, self._hub_host)

    def _is_wanted(self, candidate: Candidate) -> bool:
        return not self._options.relay_only or candidate.type is CandidateType.RELAYED

    def _allows(self, pair: ValidPair) -> bool:
        if self._options.direct_only:
            return pair.kind != "relay" and pair.remote.address not in self._avoided
        return not self._options.relay_only or pair.kind == "relay"

    def _may_check(self, address: Address) -> bool:
        return address not in self._avoided and may_be_checked(
            address, own=self._addresses, loopback=self._loopback
        )
