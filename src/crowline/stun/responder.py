"""The server side of Binding: it tells a client the address its request came from (RFC 8489, RFC 5780).

Rules of this machine:

1. It answers Binding requests only. Everything else, malformed or unknown, meets silence: an answer to an
   answer is how two servers are made to talk to each other for ever.
2. An answer holds XOR-MAPPED-ADDRESS and nothing else, 32 bytes over IPv4 and 44 over IPv6: the source is
   unproven, so every byte more would be a present to whoever forged it.
3. With a second IP address it also does RFC 5780: OTHER-ADDRESS, RESPONSE-ORIGIN and MAPPED-ADDRESS, as far
   as they fit into three times the request, and CHANGE-REQUEST, RESPONSE-PORT and PADDING honoured. Without
   one these get a 420, as RFC 5780 §6 demands, and so they do on streams, which cannot be answered from
   elsewhere. The answer to RESPONSE-PORT goes to the host it came from and to no port of a service; PADDING
   makes none longer than the request; both have a budget of their own.
4. Clients of RFC 3489 get an answer of their kind (`stun/classic.py`), under the same rules.
5. It keeps nothing about anybody.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.stun import classic
from crowline.stun.attributes import (
    COOKIE_BYTES,
    AnyAttribute,
    ChangeRequest,
    ErrorCode,
    MappedAddress,
    OtherAddress,
    Padding,
    ResponseOrigin,
    ResponsePort,
    UnknownAttributes,
    XorMappedAddress,
)
from crowline.stun.budget import MAX_AMPLIFICATION, Allowance, ReplyBudget
from crowline.stun.integrity import ATTRIBUTE_HEADER_SIZE
from crowline.stun.message import HEADER_SIZE, MalformedStun, Message, MessageClass, Method, Received, parse
from crowline.stun.sources import is_plausible_source

BAD_REQUEST = 400
UNKNOWN_ATTRIBUTE = 420
# What only a server with two addresses does, RFC 5780 §7.
BEHAVIOUR_TYPES: tuple[type[AnyAttribute], ...] = (ChangeRequest, ResponsePort, Padding)
# A discovery asks a few times, seconds apart.
BEHAVIOUR = Allowance(rate=2.0, burst=10.0)
FIRST_USER_PORT = 1024  # below it are services, and hardly a NAT's mappings
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
    """Answers Binding requests. `local` of `receive` is the address that was asked; it answers from there.

    With `on_streams` it names its other address, and does nothing else of RFC 5780: a connection cannot be
    answered from elsewhere.
    """

    def __init__(self, alternates: Alternates | None = None, *, on_streams: bool = False) -> None:
        self.alternates = alternates
        self._on_streams = on_streams
        self.counters: Counter[str] = Counter()
        self._transmits: deque[Transmit] = deque()
        self._budget: ReplyBudget | None = None

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if self.alternates is None and len(data) == HEADER_SIZE and data[:8] == BARE_REQUEST:
            self.counters["answered"] += 1
            self._transmits.append(Transmit(bare_answer(bytes(data[8:]), source), source, local))
            return
        try:
            if classic.is_classic(data):
                self._answer_classic(data, source, local)
                return
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        message = received.message
        if message.method is not Method.BINDING or message.message_class is not MessageClass.REQUEST:
            self.counters["not_a_request"] += 1
            return
        self._answer(received, source, local, now)

    def handle_timeout(self, now: float) -> None:
        """Nothing here depends on time."""

    def next_timeout(self) -> float | None:
        return None

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> None:
        return None

    def _answer(self, received: Received, source: Address, local: Address | None, now: float) -> None:
        request = received.message
        origin, other = self._origin_and_other(local, request.get(ChangeRequest))
        refused = _refused(received, has_alternate=other is not None and not self._on_streams)
        if refused:
            self.counters["unknown_attribute"] += 1
            unknown = (ErrorCode(UNKNOWN_ATTRIBUTE), UnknownAttributes(refused))
            self._send(request.answer(MessageClass.ERROR, *unknown).encode(), source, local)
            return
        destination = _destination(request, source)
        if destination is None:
            self.counters["bad_request"] += 1
            self._send(request.answer(MessageClass.ERROR, ErrorCode(BAD_REQUEST)).encode(), source, local)
            return
        needs_budget = destination != source or request.get(Padding) is not None
        if needs_budget and not self._has_budget(source, now):
            self.counters["over_budget"] += 1
            return
        self.counters["answered"] += 1
        self._send(_success(received, source, origin, other), destination, origin or local)

    def _answer_classic(self, data: Buffer, source: Address, local: Address | None) -> None:
        request = classic.read_request(data)
        if source.is_ipv6:
            # RFC 3489 has no form for such an address.
            self.counters["classic_ipv6"] += 1
            return
        origin, changed = self._origin_and_other(local, request.change)
        unknown = list(request.unknown)
        if changed is None and request.change is not None:
            unknown.append(ChangeRequest.type)
        if unknown:
            self.counters["unknown_attribute"] += 1
            listed = tuple(unknown[:MAX_LISTED_UNKNOWN])
            self._send(classic.write_unknown(request, listed, UNKNOWN_ATTRIBUTE), source, local)
            return
        self.counters["answered_classic"] += 1
        answer = classic.write_response(request, source, origin or local, changed)
        self._send(answer, source, origin or local)

    def _origin_and_other(
        self, local: Address | None, change: ChangeRequest | None
    ) -> tuple[Address | None, Address | None]:
        """Where to answer from, and the address that differs in both: RFC 5780 §6.1, table 1."""
        if self.alternates is None or local is None or (self._on_streams and change is not None):
            return None, None
        wanted = change or ChangeRequest(False, False)
        origin = self.alternates.opposite(local, change_ip=wanted.change_ip, change_port=wanted.change_port)
        return origin, self.alternates.opposite(local, change_ip=True, change_port=True)

    def _has_budget(self, source: Address, now: float) -> bool:
        if self._budget is None:
            self._budget = ReplyBudget(BEHAVIOUR)
        return self._budget.take(source, now)

    def _send(self, data: bytes, destination: Address, local: Address | None) -> None:
        self._transmits.append(Transmit(data, destination, local))


def bare_answer(transaction_id: bytes, source: Address) -> bytes:
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


def _refused(received: Received, *, has_alternate: bool) -> tuple[int, ...]:
    """The comprehension-required types of a request that this server does not do."""
    refused = list(received.unknown_required)
    if not has_alternate:
        refused += [cls.type for cls in BEHAVIOUR_TYPES if received.message.get(cls) is not None]
    return tuple(refused[:MAX_LISTED_UNKNOWN])


def _destination(request: Message, source: Address) -> Address | None:
    """Where an answer goes; ``None`` if RFC 5780 §6.1 or good sense forbid it."""
    target = request.get(ResponsePort)
    if target is None or (target.port == source.port and request.get(Padding) is None):
        return source
    destination = Address(source.host, target.port)
    is_plausible = target.port >= FIRST_USER_PORT and is_plausible_source(destination)
    return destination if is_plausible and request.get(Padding) is None else None


def _success(received: Received, source: Address, origin: Address | None, other: Address | None) -> bytes:
    """The answer, with as much of RFC 5780 as its size allows. The most useful comes first."""
    request = received.message
    attributes: list[AnyAttribute] = [XorMappedAddress(source)]
    if origin is None or other is None:
        return request.answer(MessageClass.SUCCESS, *attributes).encode()
    attributes += [OtherAddress(other), ResponseOrigin(origin), MappedAddress(source)]
    padding = request.get(Padding)
    room = MAX_AMPLIFICATION * len(received.raw) - HEADER_SIZE
    if padding is not None:
        room -= ATTRIBUTE_HEADER_SIZE
    # All four are of one family, so of one size; if ever they are not, of the larger.
    each = ATTRIBUTE_HEADER_SIZE + (20 if source.is_ipv6 or other.is_ipv6 else 8)
    attributes = attributes[: max(1, room // each)]
    if padding is not None:
        size = HEADER_SIZE + each * len(attributes) + ATTRIBUTE_HEADER_SIZE
        attributes.append(Padding(bytes(max(0, len(received.raw) - size))))
    return request.answer(MessageClass.SUCCESS, *attributes).encode()
