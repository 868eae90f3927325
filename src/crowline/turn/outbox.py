"""What the server machine has to say: to clients and peers, to its driver, and to who reads its counters."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from crowline.base.machine import Transmit
from crowline.stun.attributes import AnyAttribute
from crowline.stun.message import Message, MessageClass, Received
from crowline.turn.auth import Authenticated
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.server_events import ServerEvent


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a known sender."""

    received: Received
    who: Authenticated
    five_tuple: FiveTuple
    now: float

    @property
    def message(self) -> Message:
        return self.received.message


class Outbox:
    """Transmits and events in the order in which they must leave."""

    def __init__(self) -> None:
        self.transmits: deque[Transmit] = deque()
        self.events: deque[ServerEvent] = deque()
        self.counters: Counter[str] = Counter()

    def send(self, data: bytes, to: FiveTuple) -> None:
        self.transmits.append(Transmit(data, to.client, to.local, transport=to.transport))

    def succeed(self, request: Request, attributes: tuple[AnyAttribute, ...]) -> bytes:
        """Answer with success; the answer, signed like its request."""
        return self._answer(request, MessageClass.SUCCESS, attributes)

    def refuse(self, request: Request, attributes: tuple[AnyAttribute, ...]) -> None:
        """Answer with an error, the code of which is among the attributes."""
        self._answer(request, MessageClass.ERROR, attributes)

    def _answer(
        self, request: Request, message_class: MessageClass, attributes: tuple[AnyAttribute, ...]
    ) -> bytes:
        received = request.received
        data = request.who.sign(received.message.answer(message_class, *attributes), received)
        self.send(data, request.five_tuple)
        return data
