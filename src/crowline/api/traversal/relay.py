"""One allocation of a meeting: the machine, its pump, and the socket or stream that leads to the server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.errors import ServerUnreachable
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.net.pump import Pump
from crowline.net.stream import StreamSocket, StreamTarget
from crowline.net.udp import UdpSocket
from crowline.stun.message import MalformedStun
from crowline.turn.client import TurnClient
from crowline.turn.events import DataReceived, Moved, PermissionCreated, PermissionRefused, TurnEvent
from crowline.turn.framing import StreamFramer
from crowline.turn.held import HeldDatagrams

FIRST_BYTE_OF_CHANNELS = 0x40  # RFC 7983
# Seconds that an answer is waited for when nobody wants the allocation any more (RFC 8489 §6.2.1).
LEAVE_LIMIT = 39.5


@dataclass(frozen=True, slots=True)
class Login:
    """What the hub granted for this meeting."""

    username: str
    password: Secret


class RelayOwner(Protocol):
    """What a relay tells."""

    def on_relayed(self, run: memoryview, segment_size: int, peer: Address, relayed: Address) -> None:
        """A run of datagrams that `peer` sent to the address `relayed`."""

    def on_turn_event(self, relay: Relay, event: TurnEvent) -> None:
        """What became of the allocation."""

    def on_way_ended(self, relay: Relay, reason: str) -> None:
        """The stream to the server is gone."""

    def on_given_back(self, relay: Relay) -> None:
        """After `give_up`: the server holds nothing for it any more, or has not answered for long."""

    def on_drained(self) -> None:
        """A burst of the calls above is over."""


class DatagramWay:
    """To the server by a UDP socket that others use too."""

    def __init__(self, socket: UdpSocket) -> None:
        self.transport = Transport.UDP
        self.local = socket.local
        self._socket = socket

    def send(self, transmit: Transmit) -> None:
        self._socket.send(transmit)

    offer = send

    def close(self) -> None:
        """The socket is not ours."""


class StreamWay:
    """To the server by a connection of our own."""

    def __init__(self, target: StreamTarget) -> None:
        self.transport = target.transport
        self.target = target
        self.stream: StreamSocket | None = None
        self.relay: Relay | None = None
        self.framer = StreamFramer()
        self._is_stun = False

    @classmethod
    async def open(cls, target: StreamTarget) -> StreamWay:
        """Raises `ServerUnreachable`."""
        way = cls(target)
        way.stream = await StreamSocket.connect(target, way._received, way._ended)
        return way

    @property
    def connection(self) -> StreamSocket:
        """The open stream. Raises `ServerUnreachable` where it has ended already."""
        if self.stream is None or not self.stream.is_open:
            raise ServerUnreachable("The server closed the connection.")
        return self.stream

    @property
    def local(self) -> Address:
        return self.stream.local if self.stream is not None else Address("0.0.0.0", 0)

    def send(self, transmit: Transmit) -> None:
        """Requests must arrive: nothing repeats them on a stream."""
        if self.stream is not None:
            self.stream.send(transmit.data)

    def offer(self, transmit: Transmit) -> None:
        """Datagrams of the peers may be lost."""
        if self.stream is not None:
            self.stream.offer(transmit.data)

    def close(self) -> None:
        self.relay = None
        if self.stream is not None:
            self.stream.close()

    def _received(self, data: bytes) -> None:
        if self.relay is None:
            return
        if not self._is_stun:
            # Letters look like channel numbers, but an answer comes before any channel.
            self._is_stun = data[0] < FIRST_BYTE_OF_CHANNELS
            if not self._is_stun:
                self._ended("the server does not speak TURN")
                return
        self.framer.feed(data)
        owner = self.relay.owner
        try:
            self.relay.receive(self._messages())
        except MalformedStun:
            self._ended("the server does not speak TURN")
        owner.on_drained()

    def _messages(self) -> Iterable[memoryview]:
        while (message := self.framer.next_message()) is not None:
            yield memoryview(message)

    def _ended(self, reason: str) -> None:
        relay, self.relay = self.relay, None
        if self.stream is not None:
            self.stream.close()
        if relay is not None and relay.way is self:
            relay.owner.on_way_ended(relay, reason)


Way = DatagramWay | StreamWay


class Relay:
    """One allocation, made or on its way."""

    def __init__(
        self, owner: RelayOwner, server: Address, way: Way, login: Login, families: tuple[int, ...]
    ) -> None:
        self.owner = owner
        self.server = server
        self.way = way
        self.families = families
        self.relayed: list[Address] = []
        self.client = TurnClient(
            server,
            login.username,
            login.password,
            entropy=os.urandom,
            families=families,
            transport=way.transport,
            mobility=True,
        )
        self._held = HeldDatagrams()
        self._ways_before: list[Way] = []
        self._leave_timer: asyncio.TimerHandle | None = None
        self.pump = Pump[Transmit, TurnEvent](self.client, self._to_server, self._on_event)
        self._attach(way)

    def begin(self) -> None:
        """Ask for the allocation."""
        self.client.allocate(self.pump.now)
        self.pump.flush()

    @property
    def is_leaving(self) -> bool:
        """Whether it was given up."""
        return self._leave_timer is not None

    def is_between(self, server: Address, local: Address) -> bool:
        """Whether those are its ends, where it goes by datagrams."""
        return self.server == server and self.way.local == local and not self.way.transport.is_stream

    def base_for(self, peer: Address) -> Address | None:
        """The relayed address that `peer` can reach."""
        return next((each for each in self.relayed if each.is_ipv6 == peer.is_ipv6), None)

    def permit(self, peer: Address) -> None:
        if self.base_for(peer) is not None:
            self.client.create_permission([peer], self.pump.now)
            self.pump.flush()

    def forget(self, hosts: Iterable[str]) -> None:
        """Let what these hosts may do lapse: servers take so many permissions."""
        self.client.forget_permission(hosts)

    def bind(self, peer: Address) -> None:
        self.client.bind_channel(peer, self.pump.now)
        self.pump.flush()

    def verify(self) -> None:
        """Something went wrong: is the allocation still there?"""
        self.client.verify(self.pump.now)
        self.pump.flush()

    def move(self, way: Way, server: Address) -> None:
        """Go on by another way, with the ticket that the server gave.

        The way before stays until the server has agreed: its end might be the allocation's (RFC 8016 §3.2.2).
        """
        self._ways_before.append(self.way)
        self.way = way
        self.server = server
        self._attach(way)
        self.client.move(self.pump.now, server=server, transport=way.transport)
        self.pump.flush()

    def send(self, transmit: Transmit) -> None:
        """Send to a peer; what comes before its permission waits for it."""
        if self._held.admit(transmit) and not self.client.is_moving:
            peer = transmit.destination
            for wrapped in self.client.wrap_run(transmit.data, transmit.segment_size, peer):
                self.way.offer(wrapped)

    def receive(self, messages: Iterable[memoryview]) -> None:
        """Whole messages of the server: answers, and what came for us; runs of one peer stay runs."""
        if not self.is_leaving:
            self._receive(messages)
            return
        for message in messages:
            self.client.receive(message, self.server, self.pump.now)
            self.pump.flush()
        if self.client.is_closed:
            self._leave()

    def receive_run(self, run: memoryview, segment_size: int) -> None:
        """A run of ChannelData of the server: what came for us in bulk."""
        for peer, parts in self.client.unwrap_run(run, segment_size):
            self._hand_on(parts, peer)

    def give_up(self) -> None:
        """Give the allocation back, also one that is still on its way; `on_given_back` follows."""
        self.client.close(self.pump.now)
        self.pump.flush()
        if self.client.is_closed:
            self._leave()
        elif self._leave_timer is None:
            self._leave_timer = asyncio.get_running_loop().call_later(LEAVE_LIMIT, self._leave)

    def close(self) -> None:
        """End at once: the allocation is given back where one word to the server does that."""
        self.client.close(self.pump.now)
        self.pump.flush()
        self.pump.close()
        self.way.close()
        self._leave_ways_before()
        if self._leave_timer is not None:
            self._leave_timer.cancel()

    def _receive(self, messages: Iterable[memoryview]) -> None:
        run: list[memoryview] = []
        run_peer: Address | None = None
        for message in messages:
            unwrapped = self.client.unwrap(message)
            if unwrapped is None:
                self.client.receive(message, self.server, self.pump.now)
                self.pump.flush()
                continue
            peer, payload = unwrapped
            if run and (peer != run_peer or len(payload) > len(run[0]) or len(run[-1]) < len(run[0])):
                self._hand_on(run, run_peer)
                run = []
            run.append(payload)
            run_peer = peer
        if run:
            self._hand_on(run, run_peer)

    def _leave(self) -> None:
        self.close()
        self.owner.on_given_back(self)

    def _attach(self, way: Way) -> None:
        if isinstance(way, StreamWay):
            way.relay = self

    def _to_server(self, transmit: Transmit) -> None:
        self.way.send(transmit)

    def _on_event(self, event: TurnEvent) -> None:
        if isinstance(event, DataReceived):
            self._hand_on([memoryview(event.data)], event.peer)
        elif isinstance(event, PermissionCreated | PermissionRefused):
            for transmit in self._held.answered(event.peer.host, isinstance(event, PermissionCreated)):
                self.send(transmit)
        else:
            if isinstance(event, Moved):
                self._leave_ways_before()
            self.owner.on_turn_event(self, event)

    def _leave_ways_before(self) -> None:
        while self._ways_before:
            self._ways_before.pop().close()

    def _hand_on(self, run: list[memoryview], peer: Address | None) -> None:
        base = self.base_for(peer) if peer is not None else None
        if peer is not None and base is not None and len(run[0]):
            data = run[0] if len(run) == 1 else memoryview(b"".join(run))
            self.owner.on_relayed(data, len(run[0]), peer, base)
