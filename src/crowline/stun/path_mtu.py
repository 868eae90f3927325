"""The largest packet that reaches a server whole: Binding requests of several sizes, all of them at once.

Each is filled with an attribute that every server may ignore (RFC 8489 §14), and answered by a small packet,
so that it is the way there that is measured. A router that drops what is too large, and keeps silent about
it, is found out too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import UnknownAttribute
from crowline.stun.integrity import ATTRIBUTE_HEADER_SIZE
from crowline.stun.message import (
    HEADER_SIZE,
    TRANSACTION_ID_SIZE,
    MalformedStun,
    Message,
    MessageClass,
    Method,
    parse,
)
from crowline.stun.nat_discovery import QUICK
from crowline.stun.transaction import Transaction

SIZES = (576, 1000, 1228, 1280, 1360, 1420, 1460, 1492, 1500)
"""Bytes of whole IP packets: what every host takes, QUIC's least over IPv4, IPv6's least, and what is common
in tunnels, with PPPoE and on Ethernet."""

_FILLER = 0xFFFE  # comprehension-optional, and assigned to nobody
_HEADERS = {False: 28, True: 48}  # bytes of IP and UDP, by whether it is IPv6


@dataclass(frozen=True, slots=True)
class PathMeasured:
    """Bytes of the largest IP packet that arrived, and of the smallest larger one that did not."""

    passed: int | None
    lost: int | None


class PathMtu:
    """Drive it by the five verbs and take `PathMeasured`. Its packets must not be fragmented on the way.

    A driver whose system refuses one for its size just drops it. Three are sent of each size.
    """

    def __init__(
        self, server: Address, now: float, *, entropy: Callable[[int], bytes], sizes: Sequence[int] = SIZES
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._server = server
        self._sizes = sorted(sizes)
        self._passed: set[int] = set()
        self._questions: dict[bytes, tuple[int, Transaction]] = {}
        self._transmits: deque[Transmit] = deque()
        self._events: deque[PathMeasured] = deque()
        for size in self._sizes:
            transaction_id = entropy(TRANSACTION_ID_SIZE)
            request = _request(transaction_id, size - _HEADERS[server.is_ipv6])
            transaction = Transaction(transaction_id, request, server, now, schedule=QUICK)
            self._questions[transaction_id] = (size, transaction)
        self.handle_timeout(now)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        try:
            message = parse(data).message
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        is_answer = message.message_class in (MessageClass.SUCCESS, MessageClass.ERROR)
        if not is_answer or source != self._server or message.transaction_id not in self._questions:
            self.counters["not_ours"] += 1
            return
        size, _ = self._questions.pop(message.transaction_id)
        self._passed.add(size)
        if not self._questions:
            self._end()

    def handle_timeout(self, now: float) -> None:
        for key, (_, transaction) in list(self._questions.items()):
            if transaction.is_expired(now):
                del self._questions[key]
                if not self._questions:
                    self._end()
            elif (transmit := transaction.due(now)) is not None:
                self._transmits.append(Transmit(transmit.data, transmit.destination, dont_fragment=True))

    def next_timeout(self) -> float | None:
        return min((each.next_timeout() for _, each in self._questions.values()), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> PathMeasured | None:
        return self._events.popleft() if self._events else None

    def _end(self) -> None:
        passed = max(self._passed, default=None)
        larger = [size for size in self._sizes if passed is not None and size > passed]
        self._events.append(PathMeasured(passed, larger[0] if larger else None))


def _request(transaction_id: bytes, size: int) -> bytes:
    """A Binding request of so many bytes, a multiple of four."""
    filler = UnknownAttribute(_FILLER, bytes(size - HEADER_SIZE - ATTRIBUTE_HEADER_SIZE))
    return Message(Method.BINDING, MessageClass.REQUEST, transaction_id, (filler,)).encode()
