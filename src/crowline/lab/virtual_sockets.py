"""The UDP sockets of a virtual peer and what leads to them: the gatherer of `api/` without an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.lab.network import Packet
from crowline.lab.virtual import Internet
from crowline.lab.virtual_ports import free_address
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_tcp import State, TcpHost
from crowline.stun.attributes import FAMILY_IPV4, FAMILY_IPV6
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
from crowline.turn.framing import StreamFramer
from crowline.turn.head_start import head_start, may_allocate_at
from crowline.turn.held import HeldDatagrams


class Datagrams(Protocol):
    """What the sockets tell their owner."""

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_seen(self, base: Address, address: Address) -> None:
        """The server sees a socket under that address."""

    def on_gathered(self) -> None:
        """Said once: every question has been asked and answered."""

    def on_stun(self, data: Buffer, source: Address, local: Address) -> None: ...

    def on_packet(self, data: Buffer, source: Address, local: Address) -> None:
        """A datagram that is not STUN."""


class VirtualSockets:
    """One socket for each address of the site's host, and at most one allocation."""

    def __init__(self, internet: Internet, site: VirtualSite, owner: Datagrams) -> None:
        self.was_answered = False  # by the server, over UDP
        self._internet = internet
        self._host = site.host
        self._owner = owner
        self.factory = CandidateFactory()
        self._locals = [free_address(internet, site.host, each) for each in site.addresses]
        self._server: Address | None = None
        self._relay: _Relay | None = None
        self._entrants: list[_Relay] = []
        self._tries = 0
        self._login = ("", "")
        self._has_heard = False
        self._asked_at = 0.0
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
            self._owner.on_candidate(self.factory.host(local))

    @property
    def bases(self) -> list[Address]:
        """The sockets."""
        return list(self._locals)

    def query_stun(self, server: Address) -> None:
        """Ask the server from every socket of its family."""
        self._server = server
        self.ask(self._locals)

    def ask(self, bases: list[Address]) -> None:
        """Ask the server under which addresses it sees those sockets."""
        for local in bases:
            if self._server is not None and local.is_ipv6 == self._server.is_ipv6:
                self._pending += 1
                self._binding.query(self._server, self._internet.now, local)
        self._binding_pump.flush()

    def renew(self, base: Address) -> Address:
        """A new socket beside the one at `base`; the allocation moves there."""
        successor = free_address(self._internet, self._host, base.host)
        self._locals.append(successor)
        self._internet.listen(self._host, successor, self._received)
        self._owner.on_candidate(self.factory.host(successor))
        self.ask([successor])
        if self._relay is not None and self._relay.local == base:
            self._relay.move(successor, lambda transmit: self.send_from(successor, transmit))
        return successor

    def adopt(self, local: Address) -> None:
        """That address of the host, which was somebody else's, is a socket of these from now on."""
        self._locals.append(local)
        self._internet.listen(self._host, local, self._received)

    def retire(self, base: Address) -> None:
        """Close a socket."""
        self._locals.remove(base)
        del self._host.sockets[base]

    def allocate(self, server: Address, username: str, password: str, tcp: TcpHost | None) -> None:
        """Ask for relayed addresses, by TCP where UDP is silent; `on_gathered` follows the last answer."""
        self._asked_all = True
        self._login = username, password
        self._pending += 1
        self._server = server
        self._asked_at, self._has_heard = self._internet.now, False
        local = next((each for each in self._locals if each.is_ipv6 == server.is_ipv6), None)
        if local is not None:
            self._enter(server, local, Transport.UDP, lambda transmit: self.send_from(local, transmit))
        if tcp is not None:
            delay = head_start(asks_datagrams=local is not None, has_answered=self.was_answered)
            self._tries += 1
            self._internet.call_at(self._asked_at + delay, lambda: self._try_stream(server, tcp))
        self._settle()

    def permit(self, remote: Address) -> None:
        """Let `remote` reach our relayed addresses, also those still to come."""
        if all(known.host != remote.host for known in self._peers):
            self._peers.append(remote)
            if self._relay is not None:
                self._relay.grant(remote)

    def bind(self, local: Address, remote: Address) -> None:
        """Make packets between a relayed base and `remote` cheap: a channel."""
        if self._relay is not None and local in self._relay.relayed:
            self._relay.bind(remote)

    def send(self, transmit: Transmit) -> None:
        """Send by the base that `transmit.local` names."""
        if self._relay is not None and transmit.local in self._relay.relayed:
            self._relay.send(transmit)
        else:
            self._send_from_socket(transmit)

    # --- the race to the server -------------------------------------------------------------------------

    def _enter(
        self, server: Address, local: Address, transport: Transport, send: Callable[[Transmit], None]
    ) -> _Relay:
        relay = _Relay(self, self._internet, server, local, self._login, transport, send)
        self._entrants.append(relay)
        relay.begin()
        return relay

    def _try_stream(self, server: Address, tcp: TcpHost) -> None:
        local = next((each.host for each in self._locals if each.is_ipv6 == server.is_ipv6), None)
        if self._has_heard or self._relay is not None or local is None:
            self.on_stream_over()
        else:
            _Stream(self, self._internet, tcp, server, local)

    def on_stream_open(self, stream: _Stream) -> None:
        """It may have to wait for UDP a little longer."""
        now = self._internet.now
        at = may_allocate_at(self._asked_at, stream.began, now) if self._entrants else now
        self._internet.call_at(at, lambda: self._enter_stream(stream))

    def _enter_stream(self, stream: _Stream) -> None:
        connection = stream.connection
        if not self._has_heard and self._relay is None and connection.state is State.ESTABLISHED:
            stream.relay = self._enter(
                connection.remote,
                connection.local,
                Transport.TCP,
                lambda transmit: connection.send(bytes(transmit.data)),
            )
        else:
            connection.close()
        self.on_stream_over()

    def on_stream_over(self) -> None:
        """It is in the race now, or never will be."""
        self._tries -= 1
        self._settle()

    def _settle(self) -> None:
        if not self._entrants and not self._tries and self._relay is None:
            self._done()

    # --- what the relay says ----------------------------------------------------------------------------

    def on_turn_event(self, relay: _Relay, event: TurnEvent) -> None:
        if isinstance(event, DataReceived):
            base = relay.base_for(event.peer)
            if base is not None:
                self._dispatch(event.data, event.peer, base)
        elif isinstance(event, Allocated):
            self._on_allocated(relay, event)
        elif isinstance(event, AllocationFailed):
            self._entrants.remove(relay)
            self._settle()
        elif isinstance(event, PermissionCreated | PermissionRefused):
            relay.granted(event.peer.host, isinstance(event, PermissionCreated))
        elif isinstance(event, AllocationLost):
            relay.relayed.clear()

    def _on_allocated(self, relay: _Relay, event: Allocated) -> None:
        """The first allocation wins; the others are given back."""
        is_first = self._relay is None
        if is_first:
            self._relay = relay
            for loser in self._entrants:
                if loser is not relay:
                    loser.close()
            self._entrants = [relay]
        if relay is not self._relay:
            return
        relay.relayed.append(event.relayed)
        for remote in self._peers:
            if remote.is_ipv6 == event.relayed.is_ipv6:
                relay.grant(remote)
        self._owner.on_candidate(self.factory.relayed(event.relayed, event.mapped, relay.server))
        if is_first:
            self._done()

    # --- datagrams --------------------------------------------------------------------------------------

    def send_from(self, local: Address, transmit: Transmit) -> None:
        self._internet.launch(self._host, Packet.udp(local, transmit.destination, bytes(transmit.data)))

    def _send_from_socket(self, transmit: Transmit) -> None:
        if transmit.local is not None:
            self.send_from(transmit.local, transmit)

    def _received(self, packet: Packet) -> None:
        data, source, local = packet.data, packet.source, packet.destination
        if source != self._server:
            self._dispatch(data, source, local)
            return
        self.was_answered = self._has_heard = True
        if is_stun(data) and self._binding.owns(data):
            self._binding.receive(data, source, self._internet.now, local)
            self._binding_pump.flush()
            return
        for relay in self._entrants:
            if local == relay.local:
                relay.receive(data)
                return

    def _dispatch(self, data: Buffer, source: Address, local: Address) -> None:
        if is_stun(data):
            self._owner.on_stun(data, source, local)
        else:
            self._owner.on_packet(data, source, local)

    def _on_binding_event(self, event: BindingEvent) -> None:
        if isinstance(event, Mapped) and event.local is not None:
            self._owner.on_seen(event.local, event.address)
        if isinstance(event, Mapped) and event.local is not None and event.address != event.local:
            self._owner.on_candidate(self.factory.server_reflexive(event.address, event.local, event.server))
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
        login: tuple[str, str],
        transport: Transport,
        send: Callable[[Transmit], None],
    ) -> None:
        self.server = server
        self.local = local
        self.relayed: list[Address] = []
        self._internet = internet
        self._send = send
        self._held = HeldDatagrams()
        username, password = login
        self._client = TurnClient(
            server,
            username,
            Secret(password.encode()),
            entropy=internet.random.randbytes,
            families=(FAMILY_IPV4, FAMILY_IPV6),
            transport=transport,
            mobility=True,
        )
        self._pump: VirtualPump[Transmit, TurnEvent] = VirtualPump(
            internet,
            self._client,
            lambda transmit: self._send(transmit),
            lambda event: sockets.on_turn_event(self, event),
        )

    def begin(self) -> None:
        self._client.allocate(self._internet.now)
        self._pump.flush()

    def base_for(self, peer: Address) -> Address | None:
        """The relayed address that `peer` can reach."""
        return next((each for each in self.relayed if each.is_ipv6 == peer.is_ipv6), None)

    def receive(self, data: Buffer) -> None:
        self._client.receive(data, self.server, self._internet.now, self.local)
        self._pump.flush()

    def move(self, local: Address, send: Callable[[Transmit], None]) -> None:
        """Go on from another socket, with the ticket that the server gave."""
        if self._client.ticket is not None:
            self.local, self._send = local, send
            self._client.move(self._internet.now)
            self._pump.flush()

    def grant(self, remote: Address) -> None:
        if self.base_for(remote) is not None:
            self._client.create_permission([remote], self._internet.now)
            self._pump.flush()

    def granted(self, host: str, yes: bool) -> None:
        for transmit in self._held.answered(host, yes):
            self.send(transmit)

    def bind(self, remote: Address) -> None:
        self._client.bind_channel(remote, self._internet.now)
        self._pump.flush()

    def send(self, transmit: Transmit) -> None:
        if self._held.admit(transmit) and not self._client.is_moving:
            self._send(self._client.wrap(transmit.data, transmit.destination))

    def close(self) -> None:
        self._client.close(self._internet.now)
        self._pump.flush()


class _Stream:
    """A TCP connection to the server that may become the way of a relay."""

    def __init__(
        self, sockets: VirtualSockets, internet: Internet, tcp: TcpHost, server: Address, local: str
    ) -> None:
        self.began = internet.now
        self.relay: _Relay | None = None
        self._sockets = sockets
        self._framer = StreamFramer()
        self._is_open = False
        self.connection = tcp.connect(server, Address(local, 0), self)

    def on_open(self) -> None:
        self._is_open = True
        self._sockets.on_stream_open(self)

    def on_message(self, data: bytes) -> None:
        self._framer.feed(data)
        while self.relay is not None and (message := self._framer.next_message()) is not None:
            self.relay.receive(message)

    def on_closed(self, reason: str) -> None:
        if not self._is_open:
            self._sockets.on_stream_over()
