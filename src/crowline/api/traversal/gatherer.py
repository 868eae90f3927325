"""Sockets and candidates of one meeting: who gets which datagram, and by which way each one leaves.

A base (RFC 8445 §5.1.1) is a socket's address or a relayed address; every packet in and out belongs to one.
Datagrams are told apart by where they come from first (RFC 9443): a TURN or STUN server sends STUN and
ChannelData, everyone else STUN and QUIC.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from crowline.api.traversal.relay import Login, Relay
from crowline.api.traversal.relay_server import RelayServer
from crowline.api.traversal.relays import Relays
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.message import is_stun
from crowline.turn.channel_data import is_channel_run
from crowline.turn.events import Allocated

# Hosts that may reach our relayed addresses: as many as the other side may have candidates.
MAX_PEERS = 64
# Sockets at a time that were taken over from plans for hard NATs; whoever has more retires some first.
MAX_ADOPTED = 8


class Datagrams(Protocol):
    """What a gatherer tells its owner."""

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_base_lost(self, base: Address) -> None:
        """Nothing leaves by `base` any more, and nothing comes."""

    def on_gathered(self) -> None:
        """Said once after each `asked_all`: every question has been asked and answered."""

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None: ...

    def on_drained(self) -> None:
        """A burst of the calls above is over."""

    def on_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        """This machine did not let out what was sent from the socket at `base`."""


class Gatherer:
    """Opens one UDP socket for each local address and finds out what else leads to it."""

    def __init__(
        self, owner: Datagrams, addresses: list[str], *, offer_host: bool = True, hides_host: bool = False
    ) -> None:
        """`offer_host`: the sockets themselves and what they are mapped to. `hides_host`: the other side will
        not be told the sockets' addresses, so it is told what servers see even where that is the same.
        """
        self.factory = CandidateFactory()
        self._owner = owner
        self._sockets: dict[Address, UdpSocket] = {}
        self._relays = Relays(self)
        self._relayed: dict[Address, Relay] = {}
        self._servers: set[Address] = set()
        # Told which socket a STUN server sees under which address.
        self.on_seen: Callable[[Address, Address], None] = lambda base, address: None
        self._stun_servers: dict[Address, None] = {}
        self._answering: set[Address] = set()
        self._peers: list[Address] = []
        self._adopted: set[Address] = set()
        self._offer_host = offer_host
        self._hides_host = hides_host
        self._pending = 0
        self._asked_all = False
        self._is_leaving = False
        self._binding = BindingClient(entropy=os.urandom)
        self._binding_pump = Pump[Transmit, BindingEvent](
            self._binding, self._send_from_socket, self._on_binding_event
        )
        self.factory.prefer(addresses)
        for host in addresses:
            self._open(host)
        if not self._sockets:
            raise LocalProblem("This machine has no network address to send from.", hint="Is it offline?")

    def offer_hosts(self) -> None:
        """Offer the sockets themselves."""
        if self._offer_host:
            for local in self._sockets:
                self._owner.on_candidate(self.factory.host(local))

    def follow(self, addresses: Sequence[str], gone: Collection[str]) -> None:
        """This machine's network changed: it can be reached at `addresses` now, the preferred first, and at
        `gone` no more.

        Allocations are taken along by their tickets. Ask the STUN servers again.
        """
        for local in [local for local in self._sockets if local.host in gone]:
            self._sockets.pop(local).close()
            self._owner.on_base_lost(local)
        self.factory.prefer(addresses)
        known = self.hosts()
        for host in addresses:
            socket = self._open(host) if host not in known else None
            if socket is not None and self._offer_host:
                self._owner.on_candidate(self.factory.host(socket.local))
        # Another network may let less through.
        self._answering.clear()
        self._relays.follow(gone)

    def hosts(self) -> set[str]:
        """The addresses that have a socket."""
        return {local.host for local in self._sockets}

    def bases(self) -> list[Address]:
        """The sockets, the oldest first."""
        return list(self._sockets)

    def adopted(self) -> set[Address]:
        """Those of them that were adopted."""
        return self._adopted & self._sockets.keys()

    def query_stun(self, servers: list[Address]) -> None:
        """Ask every server from every socket of its family."""
        self._servers.update(servers)
        self._stun_servers.update(dict.fromkeys(servers))
        self._query(servers, self._sockets)

    def ask(self, bases: Collection[Address]) -> None:
        """Ask every server that was asked before from those sockets again."""
        self._query(self._stun_servers, bases)

    def renew(self, base: Address) -> Address | None:
        """A socket beside the one at `base`, to which an allocation moves that has a ticket for that."""
        if (socket := self._open(base.host)) is None:
            return None
        if self._offer_host:
            self._owner.on_candidate(self.factory.host(socket.local))
        self.ask([socket.local])
        self._relays.renew(base, socket)
        return socket.local

    def adopt(self, socket: UdpSocket, takes: Callable[[memoryview, Address], bool] | None = None) -> bool:
        """A socket at which the other side was met is one of ours now; False when there are enough.

        `takes`: asked of each datagram first, whether it is for somebody else who uses the socket too.
        """
        local, adopted = socket.local, self.adopted()
        if len(adopted) >= MAX_ADOPTED or self._is_leaving:
            return False
        self._adopted = {*adopted, local}

        def received(data: memoryview, source: Address, segment_size: int) -> None:
            if takes is not None and takes(data[:segment_size], source):
                for start in range(segment_size, len(data), segment_size):
                    received(data[start : start + segment_size], source, segment_size)
                return
            self._received(data, segment_size, source, local)

        def unsent(destination: Address, problem: SendProblem) -> None:
            self._owner.on_unsent(local, destination, problem)

        socket.hand_over(received, self.on_drained, unsent)
        self._sockets[local] = socket
        if self._offer_host:
            self._owner.on_candidate(self.factory.host(local))
        return True

    def retire(self, base: Address) -> None:
        """Nothing of ours leaves by that socket any more but what an allocation without a ticket needs."""
        if base in self._sockets and not self._relays.uses(base):
            self._sockets.pop(base).close()
        self._owner.on_base_lost(base)

    def allocate(self, server: RelayServer, login: Login) -> None:
        """Ask for relayed addresses at one server, by the first way that leads to it."""
        if not self._relays.renew_login(server, login):
            self._pending += 1
            self._relays.allocate(server, login)

    def expect_more(self) -> None:
        """Somebody else asks too; `expected_came` is called at the end of that."""
        self._pending += 1

    def expected_came(self) -> None:
        """What was expected has come, or will not."""
        self._done()

    def asked_all(self) -> None:
        """Nothing more will be asked; `on_gathered` follows the last answer."""
        self._asked_all = True
        self._check_gathered()

    def permit(self, remote: Address) -> None:
        """Let `remote` reach our relayed addresses, these and those still to come."""
        if len(self._peers) < MAX_PEERS and all(known.host != remote.host for known in self._peers):
            self._peers.append(remote)
            for relay in self._relays.winners():
                relay.permit(remote)

    def restart(self, in_use: Collection[str]) -> None:
        """Either side looks for pairs anew, and the other tells all its candidates again: of the hosts that
        may reach our relayed addresses, those `in_use` stay.
        """
        gone = [known.host for known in self._peers if known.host not in in_use]
        self._peers = [known for known in self._peers if known.host in in_use]
        for relay in self._relays.winners():
            relay.forget(gone)

    def bind(self, local: Address, remote: Address) -> None:
        """Make packets between a relayed base and `remote` cheap: a channel."""
        if relay := self._relayed.get(local):
            relay.bind(remote)

    def verify(self, local: Address) -> None:
        """A pair with that base failed: where it is a relayed one, ask whether it is still there."""
        if relay := self._relayed.get(local):
            relay.verify()

    def transport_of(self, local: Address) -> Transport:
        """How packets of that base leave this machine."""
        return self._relays.transport_of(local)

    def send(self, transmit: Transmit) -> None:
        """Send by the base that `transmit.local` names."""
        if relay := self._relayed.get(transmit.local) if transmit.local else None:
            relay.send(transmit)
            return
        self._send_from_socket(transmit)

    async def give_back(self) -> None:
        """Before `close`: give allocations back, and wait a moment for the servers' word. Nothing is told any
        more from here on.
        """
        self._is_leaving = True
        self._binding_pump.close()
        await self._relays.give_back()

    def close(self) -> None:
        """Close every socket."""
        self._binding_pump.close()
        self._relays.close()
        for socket in self._sockets.values():
            socket.close()

    # What the relays need and say -------------------------------------------------------------------

    def on_relayed_address(self, relay: Relay, event: Allocated) -> None:
        self._relayed[event.relayed] = relay
        for remote in list(self._peers):
            if remote.is_ipv6 == event.relayed.is_ipv6:
                relay.permit(remote)
        self._owner.on_candidate(self.factory.relayed(event.relayed, event.mapped, relay.server))

    def on_relay_lost(self, relay: Relay) -> None:
        for relayed in relay.relayed:
            if self._relayed.pop(relayed, None) is not None:
                self._owner.on_base_lost(relayed)

    def on_race_over(self) -> None:
        self._done()

    def on_relayed(self, run: memoryview, segment_size: int, peer: Address, relayed: Address) -> None:
        if not self._is_leaving:
            self._dispatch(run, segment_size, peer, relayed)

    def on_drained(self) -> None:
        if not self._is_leaving:
            self._owner.on_drained()

    def socket_at(self, host: str) -> UdpSocket | None:
        known = next((socket for local, socket in self._sockets.items() if local.host == host), None)
        return known or self._open(host)

    def is_server(self, host: str) -> bool:
        """Whether a server that is asked is at that host."""
        return any(server.host == host for server in self._servers)

    def expect(self, server: Address) -> None:
        self._servers.add(server)

    def has_heard(self, server: Address) -> bool:
        return server in self._answering

    # Datagrams --------------------------------------------------------------------------------------

    def _open(self, host: str) -> UdpSocket | None:
        receivers: list[Address] = []

        def received(data: memoryview, source: Address, segment_size: int) -> None:
            self._received(data, segment_size, source, receivers[0])

        def unsent(destination: Address, problem: SendProblem) -> None:
            self._owner.on_unsent(receivers[0], destination, problem)

        try:
            socket = UdpSocket.bind(Address(host, 0), received, self.on_drained, on_unsent=unsent)
        except LocalProblem:
            return None
        receivers.append(socket.local)
        self._sockets[socket.local] = socket
        return socket

    def _send_from_socket(self, transmit: Transmit) -> None:
        if socket := self._sockets.get(transmit.local) if transmit.local else None:
            socket.send(transmit)

    def _received(self, data: memoryview, size: int, source: Address, local: Address) -> None:
        if source in self._servers:
            self._from_server(data, size, source, local)
        elif not self._is_leaving:
            self._dispatch(data, size, source, local)

    def _dispatch(self, data: memoryview, size: int, source: Address, local: Address) -> None:
        """STUN or the packets of a link. In a run only the last may differ in size, so it may be STUN."""
        if data[0] < 4:
            for start in range(0, len(data), size):
                self._stun_or_packet(data[start : start + size], source, local)
            return
        last = (len(data) - 1) // size * size
        if last and data[last] < 4:
            self._owner.on_packets(data[:last], size, source, local)
            self._stun_or_packet(data[last:], source, local)
            return
        self._owner.on_packets(data, size, source, local)

    def _stun_or_packet(self, data: memoryview, source: Address, local: Address) -> None:
        if is_stun(data):
            self._owner.on_stun(data, source, local)
        else:
            self._owner.on_packets(data, len(data), source, local)

    def _from_server(self, data: memoryview, size: int, server: Address, local: Address) -> None:
        """Answers to our questions, and what came for a relayed address."""
        self._answering.add(server)
        self._relays.heard(server)
        if is_channel_run(data, size):
            if (relay := self._relays.at(server, local)) is not None:
                relay.receive_run(data, size)
            return
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        rest = [piece for piece in pieces if not self._is_answer(piece, server, local)]
        relay = self._relays.at(server, local) if rest else None
        if relay is not None:
            relay.receive(rest)

    def _is_answer(self, data: memoryview, server: Address, local: Address) -> bool:
        """Whether it answers a Binding request, and has been taken as such."""
        if not is_stun(data) or not self._binding.owns(data):
            return False
        self._binding.receive(data, server, self._binding_pump.now, local)
        self._binding_pump.flush()
        return True

    def _query(self, servers: Iterable[Address], bases: Iterable[Address]) -> None:
        for server in servers if self._offer_host else ():
            for local in bases:
                if local.is_ipv6 == server.is_ipv6 and _can_reach(local, server):
                    self._pending += 1
                    self._binding.query(server, self._binding_pump.now, local)
        self._binding_pump.flush()

    def _on_binding_event(self, event: BindingEvent) -> None:
        if isinstance(event, Mapped) and event.local is not None:
            self.on_seen(event.local, event.address)
            candidate = self.factory.server_reflexive(event.address, event.local, event.server)
            if self._hides_host or event.address != event.local:
                self._owner.on_candidate(candidate)
        self._done()

    def _done(self) -> None:
        self._pending -= 1
        self._check_gathered()

    def _check_gathered(self) -> None:
        if self._pending == 0 and self._asked_all:
            self._asked_all = False
            self._owner.on_gathered()


def _can_reach(local: Address, server: Address) -> bool:
    """A loopback address talks to loopback addresses only, and no other does."""
    return local.host.startswith(("127.", "::1")) == server.host.startswith(("127.", "::1"))
