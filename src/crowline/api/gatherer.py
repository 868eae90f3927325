"""Sockets and candidates of one meeting: who gets which datagram, and by which way each one leaves.

A base (RFC 8445 §5.1.1) is a socket's address or a relayed address; every packet in and out belongs to one.
Datagrams are told apart by where they come from first (RFC 9443): a TURN or STUN server sends STUN and
ChannelData, everyone else STUN and QUIC.
"""

from __future__ import annotations

import os
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.net.interfaces import source_towards
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.message import is_stun
from crowline.stun.shapes import FAMILY_IPV6
from crowline.turn.client import TurnClient
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    DataReceived,
    PermissionCreated,
    PermissionRefused,
    TurnEvent,
)
from crowline.turn.held import HeldDatagrams

# Hosts that may reach our relayed addresses: as many as the other side may have candidates.
MAX_PEERS = 64


class Datagrams(Protocol):
    """What a gatherer tells its owner."""

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_gathered(self) -> None:
        """Said once: every question has been asked and answered."""

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None: ...

    def on_drained(self) -> None:
        """A burst of the calls above is over."""


class Relay:
    """One allocation: the machine, its pump, and the socket it uses."""

    def __init__(self, gatherer: Gatherer, client: TurnClient, socket: UdpSocket, server: Address) -> None:
        self.client = client
        self.server = server
        self.socket = socket
        self.relayed: Address | None = None
        self._held = HeldDatagrams()
        self.pump = Pump[Transmit, TurnEvent](
            client, self._to_server, lambda event: gatherer.on_turn_event(self, event)
        )

    def send(self, transmit: Transmit) -> None:
        """Send to a peer; what comes before its permission waits for it."""
        if self._held.admit(transmit):
            peer = transmit.destination
            for wrapped in self.client.wrap_run(transmit.data, transmit.segment_size, peer):
                self._to_server(wrapped)

    def granted(self, host: str, yes: bool) -> None:
        """The server's answer about the peers at `host`."""
        for transmit in self._held.answered(host, yes):
            self.send(transmit)

    def _to_server(self, transmit: Transmit) -> None:
        self.socket.send(transmit)


class Gatherer:
    """Opens one UDP socket for each local address and finds out what else leads to it."""

    def __init__(self, owner: Datagrams, addresses: list[str], *, offer_host: bool = True) -> None:
        self._owner = owner
        self._factory = CandidateFactory()
        self._sockets: dict[Address, UdpSocket] = {}
        self._relays: dict[Address, list[Relay]] = {}
        self._relayed: dict[Address, Relay] = {}
        self._servers: set[Address] = set()
        self._peers: list[Address] = []
        self._offer_host = offer_host
        self._pending = 0
        self._asked_all = False
        self._binding = BindingClient(entropy=os.urandom)
        self._binding_pump = Pump[Transmit, BindingEvent](
            self._binding, self._send_from_socket, self._on_binding_event
        )
        for host in addresses:
            self._open(host)
        if not self._sockets:
            raise LocalProblem("This machine has no network address to send from.", hint="Is it offline?")

    def offer_hosts(self) -> None:
        """Offer the sockets themselves."""
        if self._offer_host:
            for local in self._sockets:
                self._owner.on_candidate(self._factory.host(local))

    def query_stun(self, servers: list[Address]) -> None:
        """Ask every server from every socket of its family."""
        self._servers.update(servers)
        if not self._offer_host:
            return
        for server in servers:
            for local in self._sockets:
                if local.is_ipv6 == server.is_ipv6 and _can_reach(local, server):
                    self._pending += 1
                    self._binding.query(server, self._binding_pump.now, local)
        self._binding_pump.flush()

    def allocate(self, servers: list[Address], username: str, password: str) -> None:
        """Ask for a relayed address at each server, from the socket whose packets go there by themselves."""
        for server in servers:
            host = source_towards(server)
            socket = next((s for a, s in self._sockets.items() if a.host == host), None)
            if socket is None:
                continue
            # A server that is reached over IPv6 may have nothing else to relay by (RFC 8656 §7.1).
            families = (FAMILY_IPV6,) if server.is_ipv6 else ()
            secret = Secret(password.encode())
            client = TurnClient(server, username, secret, entropy=os.urandom, families=families)
            relay = Relay(self, client, socket, server)
            self._servers.add(server)
            self._relays.setdefault(server, []).append(relay)
            self._pending += 1
            client.allocate(relay.pump.now)
            relay.pump.flush()

    def asked_all(self) -> None:
        """Nothing more will be asked; `on_gathered` follows the last answer."""
        self._asked_all = True
        self._check_gathered()

    def permit(self, remote: Address) -> None:
        """Let `remote` reach our relayed addresses, these and those still to come."""
        if len(self._peers) < MAX_PEERS and all(known.host != remote.host for known in self._peers):
            self._peers.append(remote)
            for relay in list(self._relayed.values()):
                self._grant(relay, remote)

    def bind(self, local: Address, remote: Address) -> None:
        """Make packets between a relayed base and `remote` cheap: a channel."""
        if relay := self._relayed.get(local):
            relay.client.bind_channel(remote, relay.pump.now)
            relay.pump.flush()

    def send(self, transmit: Transmit) -> None:
        """Send by the base that `transmit.local` names."""
        if relay := self._relayed.get(transmit.local) if transmit.local else None:
            relay.send(transmit)
            return
        self._send_from_socket(transmit)

    def close(self) -> None:
        """Give allocations back and close every socket."""
        self._binding_pump.close()
        for relays in self._relays.values():
            for relay in relays:
                relay.client.close(relay.pump.now)
                relay.pump.flush()
                relay.pump.close()
        for socket in self._sockets.values():
            socket.close()

    def on_turn_event(self, relay: Relay, event: TurnEvent) -> None:
        if isinstance(event, DataReceived):
            self._from_peer([memoryview(event.data)], event.peer, relay)
        elif isinstance(event, Allocated):
            relay.relayed = event.relayed
            self._relayed[event.relayed] = relay
            for remote in list(self._peers):
                self._grant(relay, remote)
            self._owner.on_candidate(self._factory.relayed(event.relayed, event.mapped, relay.server))
            self._done()
        elif isinstance(event, AllocationFailed):
            self._done()
        elif isinstance(event, PermissionCreated | PermissionRefused):
            relay.granted(event.peer.host, isinstance(event, PermissionCreated))
        elif isinstance(event, AllocationLost) and relay.relayed is not None:
            self._relayed.pop(relay.relayed, None)

    def _open(self, host: str) -> None:
        receivers: list[Address] = []

        def received(data: memoryview, source: Address, segment_size: int) -> None:
            self._received(data, segment_size, source, receivers[0])

        try:
            socket = UdpSocket.bind(Address(host, 0), received, self._owner.on_drained)
        except LocalProblem:
            return
        receivers.append(socket.local)
        self._sockets[socket.local] = socket

    def _grant(self, relay: Relay, remote: Address) -> None:
        if relay.relayed is not None and relay.relayed.is_ipv6 == remote.is_ipv6:
            relay.client.create_permission([remote], relay.pump.now)
            relay.pump.flush()

    def _send_from_socket(self, transmit: Transmit) -> None:
        if socket := self._sockets.get(transmit.local) if transmit.local else None:
            socket.send(transmit)

    def _received(self, data: memoryview, size: int, source: Address, local: Address) -> None:
        if source in self._servers:
            self._from_server(data, size, source, local)
        else:
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
        """Answers to our questions, and what came for a relayed address: runs for one peer stay runs."""
        relay = next((r for r in self._relays.get(server, ()) if r.socket.local == local), None)
        run: list[memoryview] = []
        run_peer: Address | None = None
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            unwrapped = relay.client.unwrap(piece) if relay is not None else None
            if unwrapped is None:
                self._answer(piece, server, local, relay)
                continue
            peer, payload = unwrapped
            if run and (peer != run_peer or len(payload) > len(run[0]) or len(run[-1]) < len(run[0])):
                self._from_peer(run, run_peer, relay)
                run = []
            run.append(payload)
            run_peer = peer
        if run:
            self._from_peer(run, run_peer, relay)

    def _answer(self, data: memoryview, server: Address, local: Address, relay: Relay | None) -> None:
        now = self._binding_pump.now
        if is_stun(data) and self._binding.owns(data):
            self._binding.receive(data, server, now, local)
            self._binding_pump.flush()
        elif relay is not None:
            relay.client.receive(data, server, now, local)
            relay.pump.flush()

    def _from_peer(self, run: list[memoryview], peer: Address | None, relay: Relay | None) -> None:
        if peer is not None and relay is not None and relay.relayed is not None and len(run[0]):
            data = run[0] if len(run) == 1 else memoryview(b"".join(run))
            self._dispatch(data, len(run[0]), peer, relay.relayed)

    def _on_binding_event(self, event: BindingEvent) -> None:
        if isinstance(event, Mapped) and event.local is not None and event.address != event.local:
            candidate = self._factory.server_reflexive(event.address, event.local, event.server)
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
