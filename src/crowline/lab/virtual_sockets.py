"""The UDP sockets of a virtual peer and what leads to them: `api/gatherer.py` without an event loop."""

from __future__ import annotations

from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.lab.network import Packet
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_tcp import EPHEMERAL
from crowline.stun.attributes import FAMILY_IPV6
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.message import is_stun
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


class Datagrams(Protocol):
    """What the sockets tell their owner."""

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_gathered(self) -> None:
        """Said once: every question has been asked and answered."""

    def on_stun(self, data: Buffer, source: Address, local: Address) -> None: ...

    def on_packet(self, data: Buffer, source: Address, local: Address) -> None:
        """A datagram that is not STUN."""


class VirtualSockets:
    """One socket for each address of the site's host, and at most one relayed address."""

    def __init__(self, internet: Internet, site: VirtualSite, owner: Datagrams) -> None:
        self.was_answered = False  # by the server, over UDP
        self._internet = internet
        self._host = site.host
        self._owner = owner
        self._factory = CandidateFactory()
        low, high = EPHEMERAL
        self._locals = [Address(each, internet.random.randint(low, high)) for each in site.addresses]
        self._server: Address | None = None
        self._relay: _Relay | None = None
        self._peers: list[Address] = []
        self._pending = 0
        self._asked_all = False
        self._binding = BindingClient(entropy=internet.random.randbytes)
        self._binding_pump: VirtualPump[Transmit, BindingEvent] = VirtualPump(
            internet, self._binding, self._send_from_socket, self._on_binding_event
        )
        for local in self._locals:
            internet.listen(self._host, local, self._received)

    def offer_hosts(self) -> None:
        """Offer the sockets themselves."""
        for local in self._locals:
            self._owner.on_candidate(self._factory.host(local))

    def query_stun(self, server: Address) -> None:
        """Ask the server from every socket of its family."""
        self._server = server
        for local in self._locals:
            if local.is_ipv6 == server.is_ipv6:
                self._pending += 1
                self._binding.query(server, self._internet.now, local)
        self._binding_pump.flush()

    def allocate(self, server: Address, username: str, password: str) -> None:
        """Ask for a relayed address; `on_gathered` follows the last answer."""
        self._asked_all = True
        local = next((each for each in self._locals if each.is_ipv6 == server.is_ipv6), None)
        if local is not None:
            self._server = server
            self._pending += 1
            self._relay = _Relay(self, self._internet, server, local, username, password)
        self._check_gathered()

    def permit(self, remote: Address) -> None:
        """Let `remote` reach our relayed address, also one still to come."""
        if all(known.host != remote.host for known in self._peers):
            self._peers.append(remote)
            if self._relay is not None and self._relay.relayed is not None:
                self._relay.grant(remote)

    def bind(self, local: Address, remote: Address) -> None:
        """Make packets between a relayed base and `remote` cheap: a channel."""
        if self._relay is not None and self._relay.relayed == local:
            self._relay.bind(remote)

    def send(self, transmit: Transmit) -> None:
        """Send by the base that `transmit.local` names."""
        if self._relay is not None and transmit.local == self._relay.relayed:
            self._relay.send(transmit)
        else:
            self._send_from_socket(transmit)

    # --- what the relay says ----------------------------------------------------------------------------

    def on_turn_event(self, relay: _Relay, event: TurnEvent) -> None:
        if isinstance(event, DataReceived) and relay.relayed is not None:
            self._dispatch(event.data, event.peer, relay.relayed)
        elif isinstance(event, Allocated):
            relay.relayed = event.relayed
            for remote in self._peers:
                relay.grant(remote)
            self._owner.on_candidate(self._factory.relayed(event.relayed, event.mapped, relay.server))
            self._done()
        elif isinstance(event, AllocationFailed):
            self._done()
        elif isinstance(event, PermissionCreated | PermissionRefused):
            relay.granted(event.peer.host, isinstance(event, PermissionCreated))
        elif isinstance(event, AllocationLost):
            relay.relayed = None

    # --- datagrams --------------------------------------------------------------------------------------

    def send_from(self, local: Address, transmit: Transmit) -> None:
        self._internet.launch(self._host, Packet.udp(local, transmit.destination, bytes(transmit.data)))

    def _send_from_socket(self, transmit: Transmit) -> None:
        if transmit.local is not None:
            self.send_from(transmit.local, transmit)

    def _received(self, packet: Packet) -> None:
        data, source, local, relay = packet.data, packet.source, packet.destination, self._relay
        if source != self._server:
            self._dispatch(data, source, local)
            return
        self.was_answered = True
        if is_stun(data) and self._binding.owns(data):
            self._binding.receive(data, source, self._internet.now, local)
            self._binding_pump.flush()
        elif relay is not None and local == relay.local:
            relay.receive(data)

    def _dispatch(self, data: Buffer, source: Address, local: Address) -> None:
        if is_stun(data):
            self._owner.on_stun(data, source, local)
        else:
            self._owner.on_packet(data, source, local)

    def _on_binding_event(self, event: BindingEvent) -> None:
        if isinstance(event, Mapped) and event.local is not None and event.address != event.local:
            self._owner.on_candidate(self._factory.server_reflexive(event.address, event.local, event.server))
        self._done()

    def _done(self) -> None:
        self._pending -= 1
        self._check_gathered()

    def _check_gathered(self) -> None:
        if self._pending == 0 and self._asked_all:
            self._asked_all = False
            self._owner.on_gathered()


class _Relay:
    """One allocation with its pump; what comes before a permission waits for it, as in the product."""

    def __init__(
        self,
        sockets: VirtualSockets,
        internet: Internet,
        server: Address,
        local: Address,
        username: str,
        password: str,
    ) -> None:
        self.server = server
        self.local = local
        self.relayed: Address | None = None
        self._internet = internet
        self._held = HeldDatagrams()
        self._client = TurnClient(
            server,
            username,
            Secret(password.encode()),
            entropy=internet.random.randbytes,
            families=(FAMILY_IPV6,) if server.is_ipv6 else (),
        )
        self._sockets = sockets
        self._pump: VirtualPump[Transmit, TurnEvent] = VirtualPump(
            internet, self._client, self._to_server, lambda event: sockets.on_turn_event(self, event)
        )
        self._client.allocate(internet.now)
        self._pump.flush()

    def receive(self, data: Buffer) -> None:
        self._client.receive(data, self.server, self._internet.now, self.local)
        self._pump.flush()

    def grant(self, remote: Address) -> None:
        if self.relayed is not None and self.relayed.is_ipv6 == remote.is_ipv6:
            self._client.create_permission([remote], self._internet.now)
            self._pump.flush()

    def granted(self, host: str, yes: bool) -> None:
        for transmit in self._held.answered(host, yes):
            self.send(transmit)

    def bind(self, remote: Address) -> None:
        self._client.bind_channel(remote, self._internet.now)
        self._pump.flush()

    def send(self, transmit: Transmit) -> None:
        if self._held.admit(transmit):
            self._to_server(self._client.wrap(transmit.data, transmit.destination))

    def _to_server(self, transmit: Transmit) -> None:
        self._sockets.send_from(self.local, transmit)
