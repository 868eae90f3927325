"""TCP through a TURN server, the client's side: control connection and data connections (RFC 6062)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.stun.attributes import ConnectionId, MalformedStun, XorPeerAddress
from crowline.stun.message import Message, MessageClass, Method, Received, parse
from crowline.stun.transaction import RELIABLE
from crowline.turn.client import TurnClient
from crowline.turn.codes import ALLOCATION_MISMATCH, BAD_REQUEST
from crowline.turn.credentials import LongTermCredentials
from crowline.turn.events import ConnectFailed, PeerConnection
from crowline.turn.framing import StreamFramer
from crowline.turn.requests import Outcome, Request, Requests

TCP_PROTOCOL = 6


class TcpTurnClient(TurnClient):
    """An allocation that speaks TCP with its peers; its own `transport` is a stream.

    Every `PeerConnection` is to be taken up by a `DataConnection` on a new connection to the same server.
    """

    PROTOCOL = TCP_PROTOCOL

    def __init__(
        self,
        server: Address,
        username: str,
        password: Secret,
        *,
        entropy: Callable[[int], bytes],
        transport: Transport = Transport.TCP,
        families: tuple[int, ...] = (),
    ) -> None:
        super().__init__(server, username, password, entropy=entropy, transport=transport, families=families)
        self._dialling: set[Address] = set()

    def data_connection(self, connection: int) -> DataConnection:
        """The machine for a new stream to the same server, which takes up `connection`."""
        return DataConnection(
            self.server, connection, self._credentials, entropy=self._entropy, transport=self.transport
        )

    def connect(self, peer: Address, now: float) -> None:
        """Have the server dial `peer`; `PeerConnection` or `ConnectFailed` follows.

        Raises `UsageError` while `peer` is being dialled (RFC 6062 §4.3) or without an allocation.
        """
        if self.relayed is None or self.is_closed or peer in self._dialling:
            raise UsageError("There is no allocation, or that peer is being dialled.")
        self._dialling.add(peer)
        self._ask(Request(Method.CONNECT, (XorPeerAddress(peer),), (peer,)), now)

    def _on_indication(self, received: Received) -> None:
        """RFC 6062 §4.4: a peer that we know has dialled the relayed address."""
        message = received.message
        peer, identity = message.get(XorPeerAddress), message.get(ConnectionId)
        if message.method is not Method.CONNECTION_ATTEMPT or received.unknown_required:
            self.counters["unexpected"] += 1
        elif peer is None or identity is None or not self._peers.knows(peer.address):
            self.counters["unexpected_connection"] += 1
        else:
            self._events.append(PeerConnection(identity.value, peer.address, dialled=False))

    def _on_success(self, request: Request, message: Message, now: float) -> None:
        if request.method is not Method.CONNECT:
            super()._on_success(request, message, now)
            return
        identity = message.get(ConnectionId)
        if identity is None:
            self._on_failure(Outcome(request, None, BAD_REQUEST, "the answer names no connection"), now)
            return
        for peer in request.peers:
            self._dialling.discard(peer)
            self._events.append(PeerConnection(identity.value, peer, dialled=True))

    def _on_failure(self, outcome: Outcome, now: float) -> None:
        for peer in outcome.request.peers if outcome.request.method is Method.CONNECT else ():
            self._dialling.discard(peer)
            self._events.append(ConnectFailed(peer, outcome.code, outcome.reason))
        if outcome.request.method is not Method.CONNECT or outcome.code == ALLOCATION_MISMATCH:
            super()._on_failure(outcome, now)


@dataclass(frozen=True, slots=True)
class Bound:
    """The stream belongs to the connection with the peer now; write to it what the peer shall get."""


@dataclass(frozen=True, slots=True)
class BindFailed:
    """The connection is not to be had; close the stream. `code` is the server's, 408 when it was mute."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerBytes:
    """Bytes of the peer, in order."""

    data: bytes


DataEvent: TypeAlias = Bound | BindFailed | PeerBytes


class _State(Enum):
    IDLE = auto()
    BINDING = auto()
    BOUND = auto()
    FAILED = auto()


class DataConnection:
    """One stream to the server: a ConnectionBind request and its answer, and the peer's bytes after them.

    `receive` takes the stream as it comes, in pieces of any size.
    """

    def __init__(
        self,
        server: Address,
        connection: int,
        credentials: LongTermCredentials,
        *,
        entropy: Callable[[int], bytes],
        transport: Transport = Transport.TCP,
    ) -> None:
        self.server = server
        self._transport = transport
        self._connection = connection
        self._framer = StreamFramer()
        self._state = _State.IDLE
        self._transmits: deque[Transmit] = deque()
        self._events: deque[DataEvent] = deque()
        self._requests = Requests(
            server, credentials, entropy=entropy, schedule=RELIABLE, transmit=self._transmits.append
        )
        self.counters = self._requests.counters

    def bind(self, now: float) -> None:
        """The stream is open: take up the connection. `Bound` or `BindFailed` follows."""
        if self._state is not _State.IDLE:
            raise UsageError("A data connection is bound once.")
        self._state = _State.BINDING
        self._requests.send(Request(Method.CONNECTION_BIND, (ConnectionId(self._connection),)), now)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if source != self.server:
            self.counters["wrong_source"] += 1
        elif self._state is _State.BOUND:
            self._events.append(PeerBytes(bytes(data)))
        elif self._state is _State.BINDING:
            self._framer.feed(data)
            self._read_answers(now)

    def handle_timeout(self, now: float) -> None:
        for outcome in self._requests.handle_timeout(now):
            self._fail(outcome.code, outcome.reason)

    def next_timeout(self) -> float | None:
        return self._requests.next_timeout()

    def next_transmit(self) -> Transmit | None:
        if not self._transmits:
            return None
        transmit = self._transmits.popleft()
        return Transmit(transmit.data, transmit.destination, transport=self._transport)

    def next_event(self) -> DataEvent | None:
        return self._events.popleft() if self._events else None

    def _read_answers(self, now: float) -> None:
        """Up to the one that counts: what follows it is the peer's, even where it looks like STUN."""
        try:
            while self._state is _State.BINDING and (answer := self._framer.next_message()) is not None:
                self._on_answer(parse(answer), now)
        except MalformedStun:
            self._fail(BAD_REQUEST, "the server does not speak STUN on this stream")

    def _on_answer(self, received: Received, now: float) -> None:
        if received.message.message_class not in (MessageClass.SUCCESS, MessageClass.ERROR):
            self.counters["unexpected"] += 1
            return
        outcome = self._requests.receive(received, now)
        if outcome is None:
            return
        if outcome.message is None:
            self._fail(outcome.code, outcome.reason)
            return
        self._state = _State.BOUND
        self._events.append(Bound())
        if rest := self._framer.rest():
            self._events.append(PeerBytes(rest))

    def _fail(self, code: int, reason: str) -> None:
        self._state = _State.FAILED
        self._requests.clear()
        self._events.append(BindFailed(code, reason))
