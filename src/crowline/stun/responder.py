"""The server side of Binding: it tells a client the address its request came from (RFC 8489, RFC 5780).

Rules of this machine:

1. It answers Binding requests only. Everything else, malformed or unknown, meets silence: an answer to an
   answer is how two servers are made to talk to each other for ever.
2. An answer holds XOR-MAPPED-ADDRESS and nothing else, 32 bytes over IPv4 and 44 over IPv6: the source is
   unproven, so every byte more would be a present to whoever forged it.
3. With a second IP address it also does RFC 5780: RESPONSE-ORIGIN and OTHER-ADDRESS in every answer, and
   CHANGE-REQUEST honoured. Without one CHANGE-REQUEST gets a 420, as RFC 5780 §6 demands. RESPONSE-PORT and
   PADDING, which let one host aim or inflate answers, are always refused with a 420.
4. It keeps nothing about anybody.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import (
    COOKIE_BYTES,
    AnyAttribute,
    ChangeRequest,
    ErrorCode,
    OtherAddress,
    Padding,
    ResponseOrigin,
    ResponsePort,
    UnknownAttributes,
    XorMappedAddress,
)
from crowline.stun.message import HEADER_SIZE, MalformedStun, Message, MessageClass, Method, Received, parse

UNKNOWN_ATTRIBUTE = 420
REFUSED_TYPES = (ResponsePort, Padding)
# More would let a 420 outgrow three times the request it answers.
MAX_LISTED_UNKNOWN = 8

# The first eight bytes of a Binding request without attributes, which most clients send.
BARE_REQUEST = b"\x00\x01\x00\x00" + COOKIE_BYTES


@dataclass(frozen=True, slots=True)
class Alternates:
    """The two IP addresses and two ports of RFC 5780 §6: all four combinations are bound."""

    primary: Address
    other: Address

    def opposite(self, asked: Address, *, change_ip: bool, change_port: bool) -> Address | None:
        """The address that differs from `asked` as wanted, or ``None`` if `asked` is none of the four."""
        hosts = (self.primary.host, self.other.host)
        ports = (self.primary.port, self.other.port)
        if asked.host not in hosts or asked.port not in ports:
            return None
        return Address(
            hosts[(hosts.index(asked.host) + change_ip) % 2],
            ports[(ports.index(asked.port) + change_port) % 2],
        )


class Responder:
    """Answers Binding requests. `local` of `receive` is the address that was asked; it answers from there."""

    def __init__(self, alternates: Alternates | None = None) -> None:
        self.alternates = alternates
        self.counters: Counter[str] = Counter()
        self._transmits: deque[Transmit] = deque()

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if self.alternates is None and len(data) == HEADER_SIZE and data[:8] == BARE_REQUEST:
            self.counters["answered"] += 1
            self._transmits.append(Transmit(_bare_answer(bytes(data[8:]), source), source, local))
            return
        try:
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        message = received.message
        if message.method is not Method.BINDING or message.message_class is not MessageClass.REQUEST:
            self.counters["not_a_request"] += 1
            return
        self._answer(received, source, local)

    def handle_timeout(self, now: float) -> None:
        """Nothing here depends on time."""

    def next_timeout(self) -> float | None:
        return None

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> None:
        return None

    def _answer(self, received: Received, source: Address, local: Address | None) -> None:
        request = received.message
        change = request.get(ChangeRequest)
        wanted = change or ChangeRequest(False, False)
        origin, other = self._origin_and_other(local, wanted)
        refused = _refused(received, change_allowed=other is not None)
        if refused:
            self.counters["unknown_attribute"] += 1
            error = request.answer(
                MessageClass.ERROR, ErrorCode(UNKNOWN_ATTRIBUTE), UnknownAttributes(refused)
            )
            self._send(error, source, local)
            return
        attributes: list[AnyAttribute] = [XorMappedAddress(source)]
        if origin is not None and other is not None:
            attributes += [ResponseOrigin(origin), OtherAddress(other)]
        self.counters["answered"] += 1
        self._send(request.answer(MessageClass.SUCCESS, *attributes), source, origin or local)

    def _origin_and_other(
        self, local: Address | None, wanted: ChangeRequest
    ) -> tuple[Address | None, Address | None]:
        """Where to answer from, and the address that differs in both: RFC 5780 §6.1, table 1."""
        if self.alternates is None or local is None:
            return None, None
        origin = self.alternates.opposite(local, change_ip=wanted.change_ip, change_port=wanted.change_port)
        return origin, self.alternates.opposite(local, change_ip=True, change_port=True)

    def _send(self, message: Message, destination: Address, local: Address | None) -> None:
        self._transmits.append(Transmit(message.encode(), destination, local))


def _bare_answer(transaction_id: bytes, source: Address) -> bytes:
    """The answer of rule 2, written without a message in between."""
    value = XorMappedAddress(source).write(transaction_id)
    return (
        b"\x01\x01"
        + (4 + len(value)).to_bytes(2, "big")
        + COOKIE_BYTES
        + transaction_id
        + b"\x00\x20"
        + len(value).to_bytes(2, "big")
        + value
    )


def _refused(received: Received, *, change_allowed: bool) -> tuple[int, ...]:
    """The comprehension-required types of a request that this server does not do."""
    refused = list(received.unknown_required)
    refused += [cls.type for cls in REFUSED_TYPES if received.message.get(cls) is not None]
    if not change_allowed and received.message.get(ChangeRequest) is not None:
        refused.append(ChangeRequest.type)
    return tuple(refused[:MAX_LISTED_UNKNOWN])
