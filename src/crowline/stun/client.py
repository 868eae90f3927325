"""The client side of Binding: under which address do servers see a socket? RFC 8489, RFC 8445 §5.1.1.2."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.stun.attributes import ErrorCode, MappedAddress, OtherAddress, XorMappedAddress
from crowline.stun.classic import ChangedAddress, SourceAddress
from crowline.stun.message import (
    TRANSACTION_ID_SIZE,
    MalformedStun,
    Message,
    MessageClass,
    Method,
    Received,
    parse,
)
from crowline.stun.transaction import RELIABLE, UDP, Schedule, Transaction

TRY_ALTERNATE = 300

# RFC 5389 took them out of STUN; a server of RFC 3489 sends them, and its answer is as good without.
_RETIRED = {SourceAddress.type, ChangedAddress.type}


class Mapped(Struct, frozen=True):
    """`server` sees the socket `local` as `address`.

    `other` is the server's alternate address (RFC 5780), `round_trip` the time in seconds, where known.
    """

    address: Address
    local: Address | None
    server: Address
    other: Address | None = None
    round_trip: float | None = None
    transport: Transport = Transport.UDP


class NoAnswer(Struct, frozen=True):
    """`server` did not answer `local` in time (`code` 0), or answered with the error `code`."""

    server: Address
    local: Address | None
    code: int = 0
    transport: Transport = Transport.UDP


BindingEvent: TypeAlias = Mapped | NoAnswer


class BindingClient:
    """Asks any number of servers from any number of sockets; each question has its own transaction.

    No answer waits for another: each event comes as its response does. Nothing here is signed, so a 300 (Try
    Alternate) is never believed: RFC 8489 §14.8 lets a client follow only one whose integrity it has checked.
    """

    def __init__(self, *, entropy: Callable[[int], bytes], schedule: Schedule = UDP) -> None:
        self._entropy = entropy
        self._schedule = schedule
        self._transactions: dict[bytes, Transaction] = {}
        self._transmits: deque[Transmit] = deque()
        self._events: deque[BindingEvent] = deque()
        self.counters: Counter[str] = Counter()

    def query(
        self,
        server: Address,
        now: float,
        local: Address | None = None,
        transport: Transport = Transport.UDP,
    ) -> None:
        """Ask `server` from the socket `local`, or once through the stream that leaves from there.

        One `Mapped` or `NoAnswer` follows."""
        transaction_id = self._entropy(TRANSACTION_ID_SIZE)
        request = Message(Method.BINDING, MessageClass.REQUEST, transaction_id).encode()
        schedule = RELIABLE if transport.is_stream else self._schedule
        self._transactions[transaction_id] = Transaction(
            transaction_id, request, server, now, schedule=schedule, local=local, transport=transport
        )
        self.handle_timeout(now)

    def owns(self, data: Buffer) -> bool:
        """Whether a STUN message answers one of our questions, for drivers that share a socket."""
        return bytes(data[8:20]) in self._transactions

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        try:
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        transaction = self._transactions.get(received.message.transaction_id)
        if transaction is None or not _answers(transaction, received, source, local):
            self.counters["not_ours"] += 1
            return
        error = received.message.get(ErrorCode)
        if error is not None and error.code == TRY_ALTERNATE:
            self.counters["unsigned_redirection"] += 1
            return
        event = _outcome(transaction, received, now)
        if event is None:
            self.counters["without_address"] += 1
            return
        del self._transactions[transaction.transaction_id]
        self._events.append(event)

    def handle_timeout(self, now: float) -> None:
        for transaction in list(self._transactions.values()):
            if transaction.is_expired(now):
                del self._transactions[transaction.transaction_id]
                self._events.append(
                    NoAnswer(transaction.destination, transaction.local, transport=transaction.transport)
                )
                continue
            transmit = transaction.due(now)
            if transmit is not None:
                self._transmits.append(transmit)

    def next_timeout(self) -> float | None:
        return min((t.next_timeout() for t in self._transactions.values()), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> BindingEvent | None:
        return self._events.popleft() if self._events else None


def _answers(transaction: Transaction, received: Received, source: Address, local: Address | None) -> bool:
    message = received.message
    return (
        message.method is Method.BINDING
        and message.message_class in (MessageClass.SUCCESS, MessageClass.ERROR)
        and transaction.matches(message.transaction_id, source, local)
    )


def _outcome(transaction: Transaction, received: Received, now: float) -> BindingEvent | None:
    """What a response says; ``None`` for one that says nothing, so that a better one is waited for."""
    message, server = received.message, transaction.destination
    if message.message_class is MessageClass.ERROR:
        error = message.get(ErrorCode)
        if error is None:
            return None
        return NoAnswer(server, transaction.local, error.code, transaction.transport)
    if not _RETIRED.issuperset(received.unknown_required):
        # RFC 8489 §6.3.3: such a success response fails the transaction.
        return NoAnswer(server, transaction.local, transport=transaction.transport)
    mapped = message.get(XorMappedAddress) or message.get(MappedAddress)
    if mapped is None or mapped.address.port == 0:
        return None
    other = message.get(OtherAddress)
    return Mapped(
        mapped.address,
        transaction.local,
        server,
        other=other.address if other else None,
        round_trip=transaction.round_trip(now),
        transport=transaction.transport,
    )
